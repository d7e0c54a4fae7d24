"""An export: what a project's annotations say, written in a format to a folder of its own.

The folder appears whole or not at all, and an earlier export gives way to it. Killed at any moment, it is done again:
annotations that were read and pictures that were fetched are kept.
"""

import errno
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, get_args

from backend.datasets.categories import number_categories
from backend.datasets.dataset import Dataset, DatasetImage
from backend.datasets.edits import EditLedger
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ExportOptions, ImageFiles
from backend.datasets.image_store import ImageStore
from backend.datasets.instances import categories_of
from backend.datasets.records import ProjectRecords, open_records
from backend.datasets.selection import Policy, select
from backend.datasets.snapshots import MANIFEST, describe, read_manifest, write_manifest
from backend.datasets.staging import Chosen, Staging, measured, stage, staging
from backend.errors import BadRequest
from backend.home import pictures_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver, project_credentials
from backend.labelstudio.label_config import Defaults, LabelConfig, parse
from ris_core.errors import DatasetError
from ris_core.files import atomic_dir
from ris_core.images import MAX_PIXELS

STAGES = ("reading annotations", "fetching pictures", "writing")
OnProgress = Callable[[str, float], object]

_DEFAULTS = ExportOptions()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_TOLERANT = 100.0
# A job's result holds so many problems; the export's report.json all of them.
_MOST_LISTED = 100


@dataclass(frozen=True)
class ExportSpec:
    """What an export is to be like.

    format: of EXPORT_FORMATS. annotations: which count, see `backend.datasets.selection`. images: how picture files get
    into it. tolerance: of polygons, in pixels. strict: whether a problem ends it. report: whether it has a page.
    """

    format: str = "coco"
    annotations: Policy = "best"
    images: ImageFiles = "copy"
    tolerance: float = 0.0
    strict: bool = False
    report: bool = True

    def __post_init__(self) -> None:
        """Raise BadRequest if a value is none of those."""
        choices = {
            "export format": (self.format, tuple(EXPORT_FORMATS)),
            "choice of annotations": (self.annotations, get_args(Policy)),
            "way to put pictures into an export": (self.images, get_args(ImageFiles)),
        }
        for what, (value, known) in choices.items():
            if value not in known:
                raise BadRequest(f"There is no {what} {value!r:.100}. Choose from {', '.join(known)}.")
        if not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance <= _MOST_TOLERANT:
            raise BadRequest(f"A tolerance is a number of pixels from 0 to {_MOST_TOLERANT:g}.")
        if not (isinstance(self.strict, bool) and isinstance(self.report, bool)):
            raise BadRequest("strict and report are true or false.")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """From JSON. Raises BadRequest."""
        unknown = document.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise BadRequest(f"An export has no {min(unknown)!r:.100}.")
        return cls(**document)

    @property
    def options(self) -> ExportOptions:
        """What the format is told."""
        return ExportOptions(self.images, float(self.tolerance))


_USUAL = ExportSpec()


def usual_name(project: int, fmt: str) -> str:
    """The folder that a project's export in a format goes to, unless another one is named."""
    return f"project-{project}-{fmt}"


def check_name(name: object) -> None:
    """Raise BadRequest if `name` can't name an export's folder: a path from the queue could lead anywhere."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(f"{name!r:.100} can't name an export. Use letters, digits, dots and dashes.")


def export_project(
    client: LabelStudio,
    images: ImageResolver,
    project: int,
    out: Path,
    *,
    home: Path,
    spec: ExportSpec = _USUAL,
    max_pixels: int = MAX_PIXELS,
    defaults: Defaults | None = None,
    on_progress: OnProgress = lambda stage, share: None,
) -> dict[str, Any]:
    """Export a project's annotations to the folder `out`; an earlier export there is replaced.

    Returns a report for JSON: project, format, out, the numbers of images, annotations and refs, left_out (how many
    things the format can't say, by what they are), read (how many tasks were read anew), problems (how many of each
    kind) and listed (the first of them). Raises DatasetError if there is nothing to export, `out` holds something else,
    a strict export has a problem, or the disk is full; ConfigError and LabelStudioError.
    """
    check_replaceable(out)
    defaults = defaults or Defaults()
    described = client.project(project)
    xml = described["label_config"]
    config, credentials = parse(xml, defaults), project_credentials(described)
    workshop = out.with_name(f".{out.name}.staged")
    with open_records(home, project) as records, _folder(workshop), staging(workshop) as staged:
        read = records.update(client, project, xml, defaults, lambda share: on_progress(STAGES[0], share))
        chosen = _chosen(records, staged, spec)
        ledger = EditLedger(home, project)
        stage(
            measured(chosen, ledger, lambda ids: client.predictions_of(project, ids), config),
            len(records),
            staged,
            lambda correction: images.fetch(correction.image, correction.task, credentials),
            ImageStore(pictures_folder(home), max_pixels),
            lambda share: on_progress(STAGES[1], share),
        )
        _check(project, staged, spec)
        dataset = _dataset(project, staged, config, home, lambda share: on_progress(STAGES[2], share))
        left_out = export_dataset(dataset, out, spec.format, spec.options)
        counts = dict(staged.counts)
        counts["refs"] -= sum(count for what, count in left_out.items() if what.startswith("expressions "))
        problems = sorted(staged.problems, key=lambda problem: (problem.task, problem.annotation or 0, problem.region))
    return {
        "project": project,
        "format": spec.format,
        "out": str(out),
        **counts,
        "left_out": dict(left_out),
        "read": read,
        "problems": dict(Counter(problem.kind for problem in problems)),
        "listed": [asdict(problem) for problem in problems[:_MOST_LISTED]],
    }


def export_dataset(
    dataset: Dataset,
    out: Path,
    fmt: str = "coco",
    options: ExportOptions = _DEFAULTS,
    finish: Callable[[Path, Mapping[str, int]], object] = lambda folder, left_out: None,
) -> Mapping[str, int]:
    """Write a dataset to the folder `out` in one of EXPORT_FORMATS. Returns what that can't say, see there.

    An earlier export at `out` is replaced once the new one is complete. finish: adds further files to the folder.
    Raises DatasetError if `out` holds anything else, and leaves it alone, or the disk is full.
    """
    check_replaceable(out)
    previous, fresh = (out.with_name(f".{out.name}.{name}") for name in ("previous", "new"))
    # Left behind only by a process that was killed.
    for leftover in (previous, fresh, *out.parent.glob(f".{fresh.name}.*")):
        shutil.rmtree(leftover, ignore_errors=True)
    with _disk_full_explained(out), atomic_dir(fresh) as folder:
        left_out = EXPORT_FORMATS[fmt].write(dataset, folder, options)
        finish(folder, left_out)
        # By which a later export knows what it may replace.
        write_manifest(folder)
    if out.exists():
        out.rename(previous)
    fresh.rename(out)
    shutil.rmtree(previous, ignore_errors=True)
    return left_out


def check_replaceable(out: Path) -> None:
    """Raise DatasetError if there is anything at `out` that no export wrote."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise DatasetError(f"{out} is a file. Choose a folder to export to.")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    foreign = files - {*read_manifest(out), MANIFEST}
    if foreign:
        raise DatasetError(
            f"{out} holds {min(foreign)}, which no export wrote. Move it away, or export to another folder."
        )


def _chosen(records: ProjectRecords, staged: Staging, spec: ExportSpec) -> Iterator[Chosen]:
    """What counts of each task. What is wrong with that becomes a problem."""
    for record in records:
        staged.problems.extend(record.problems)
        submitted = {annotation.correction.annotation: annotation for annotation in record.annotations}
        about = [annotation.about for annotation in record.annotations]
        selected = select(about, spec.annotations, lambda entry: bool(entry["says_where"]))
        counting = [submitted[int(entry["id"])] for entry in selected]
        for annotation in counting:
            staged.problems.extend(annotation.problems)
        corrections = [
            annotation.correction
            for annotation in counting
            # It would look as if nothing were there.
            if annotation.correction.objects or not any(problem.kind == "region" for problem in annotation.problems)
        ]
        if corrections:
            yield record.task, corrections


def _check(project: int, staged: Staging, spec: ExportSpec) -> None:
    first = next(iter(staged.problems), None)
    if not len(staged):
        why = f" Task {first.task}: {first.message}" if first else " Annotate a task in Label Studio first."
        what = "has no submitted annotation yet" if first is None else "has none that can be exported"
        raise DatasetError(f"Project {project} {what}.{why}")
    if spec.strict and first:
        raise DatasetError(
            f"{len(staged.problems)} problems, and the export is to be strict. The first, in task {first.task}: "
            f"{first.message} Without --strict, they are listed in the report."
        )


def _dataset(
    project: int, staged: Staging, config: LabelConfig, home: Path, on_progress: Callable[[float], object]
) -> Dataset:
    numbers = number_categories(home, project, config, staged.labels)
    total = len(staged)

    def images() -> Iterator[DatasetImage]:
        for number, image in enumerate(staged.images(numbers)):
            on_progress(number / total)
            yield image

    return Dataset(describe(project), categories_of(numbers, config), images)


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """A folder for as long as it lasts; one that a killed process left is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk_full_explained(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DatasetError(f"The disk is full: {out} can't be written. Make room, then export again.") from None
