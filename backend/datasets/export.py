"""An export: what a project's annotations say, written in a format to a folder of its own.

The folder appears whole or not at all, and an earlier export gives way to it. Killed at any moment, it is done again:
annotations that were read and pictures that were fetched are kept.
"""

import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from backend.datasets.agreement import Agreement
from backend.datasets.annotations import Correction, last_of_people
from backend.datasets.categories import number_categories
from backend.datasets.consensus import Method, NoConsensus, consensus
from backend.datasets.dataset import Dataset, DatasetImage
from backend.datasets.edits import EditLedger
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ExportOptions, ImageFiles
from backend.datasets.image_store import ImageStore
from backend.datasets.instances import categories_of
from backend.datasets.near_duplicates import find_near_duplicates
from backend.datasets.problems import Problem
from backend.datasets.records import ProjectRecords, SubmittedAnnotation, open_records, says_where
from backend.datasets.replacing import check_replaceable, replacing
from backend.datasets.report import write_report
from backend.datasets.selection import Policy, select
from backend.datasets.snapshots import describe, write_manifest
from backend.datasets.staging import Chosen, Staging, measured, stage, staging
from backend.errors import BadRequest, DiskFull
from backend.home import pictures_folder
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.images import ImageResolver, project_credentials
from backend.labelstudio.label_config import Defaults, LabelConfig, parse
from ris_core.errors import DatasetError
from ris_core.images import MAX_PIXELS

STAGES = ("reading annotations", "fetching pictures", "writing", "report")
OnProgress = Callable[[str, float], object]

_DEFAULTS = ExportOptions()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_TOLERANT = 100.0
# Problems of something that is drawn, but not taken.
_HIDES = ("region", "unknown tag")
_METHODS: Mapping[str, Method] = {"consensus-vote": "vote", "consensus-staple": "staple"}
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
    or a strict export has a problem; DiskFull, ConfigError and LabelStudioError.
    """
    check_replaceable(out)
    defaults = defaults or Defaults()
    described = client.project(project)
    xml = described["label_config"]
    config, credentials = parse(xml, defaults), project_credentials(described)
    workshop = out.with_name(f".{out.name}.staged")
    with (
        _disk_full_explained(out),
        open_records(home, project) as records,
        _folder(workshop),
        staging(workshop) as staged,
    ):
        read = records.update(client, project, xml, defaults, lambda share: on_progress(STAGES[0], share))
        agreement, ledger = Agreement(), EditLedger(home, project)
        store = ImageStore(pictures_folder(home), max_pixels)
        stage(
            measured(
                _chosen(records, staged, spec, agreement),
                ledger,
                lambda ids: client.predictions_of(project, ids),
                config,
            ),
            len(records),
            staged,
            lambda correction: images.fetch(correction.image, correction.task, credentials),
            store,
            lambda share: on_progress(STAGES[1], share),
        )
        _check(project, staged, spec)
        dataset = _dataset(project, staged, config, home, spec)

        def finish(folder: Path, left_out: Mapping[str, int]) -> None:
            if spec.report:
                on_progress(STAGES[3], 0.0)
                _write_report(dataset, folder, spec, staged, agreement, store, left_out)

        shown = _with_progress(dataset, len(staged), lambda share: on_progress(STAGES[2], share))
        left_out = export_dataset(shown, out, spec.format, spec.options, finish)
        return {"project": project, "format": spec.format, "out": str(out), "read": read, **_outcome(staged, left_out)}


def _outcome(staged: Staging, left_out: Mapping[str, int]) -> dict[str, Any]:
    """What came of an export, for its report: counts, what is left out, problems."""
    counts = dict(staged.counts)
    counts["refs"] -= sum(count for what, count in left_out.items() if what.startswith("expressions "))
    return {
        **counts,
        "left_out": dict(left_out),
        "problems": dict(Counter(problem.kind for problem in staged.problems)),
        "listed": [asdict(problem) for problem in _in_order(staged.problems)[:_MOST_LISTED]],
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
    Raises DatasetError if `out` holds anything else, and leaves it alone; DiskFull.
    """
    with _disk_full_explained(out), replacing(out) as folder:
        left_out = EXPORT_FORMATS[fmt].write(dataset, folder, options)
        finish(folder, left_out)
        # By which a later export knows what it may replace.
        write_manifest(folder)
    return left_out


def _chosen(records: ProjectRecords, staged: Staging, spec: ExportSpec, agreement: Agreement) -> Iterator[Chosen]:
    """What counts of each task. What is wrong with that becomes a problem."""
    for record in records:
        staged.problems.extend(record.problems)
        read = {annotation.correction.annotation: annotation for annotation in record.annotations}
        heads = [annotation.head for annotation in record.annotations]
        agreement.add([read[int(head["id"])].correction for head in last_of_people(heads)])
        counting = [read[int(head["id"])] for head in select(heads, spec.annotations, says_where)]
        for annotation in counting:
            staged.problems.extend(annotation.problems)
        corrections = [annotation.correction for annotation in counting if not _hides_something(annotation)]
        if len(corrections) > 1 and spec.annotations in _METHODS:
            corrections = list(_agreed(corrections, _METHODS[spec.annotations], staged))
        if corrections:
            yield record.task, corrections


def _hides_something(annotation: SubmittedAnnotation) -> bool:
    """Whether something is drawn, but nothing of it taken: it would look as if nothing were there."""
    return not annotation.correction.objects and any(problem.kind in _HIDES for problem in annotation.problems)


def _agreed(corrections: Sequence[Correction], method: Method, staged: Staging) -> Iterator[Correction]:
    """The consensus, if there is one. What it leaves out becomes a problem."""
    task, known = corrections[0].task, {remark for correction in corrections for remark in correction.remarks}
    try:
        agreed = consensus(corrections, method)
    except NoConsensus as error:
        staged.problems.append(Problem("disagreement", task, str(error)))
        return
    for remark in agreed.remarks:
        if remark not in known:
            staged.problems.append(Problem("disagreement", task, f"{remark[:1].upper()}{remark[1:]}."))
    yield agreed


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


def _dataset(project: int, staged: Staging, config: LabelConfig, home: Path, spec: ExportSpec) -> Dataset:
    numbers = number_categories(home, project, config, staged.labels)

    def images() -> Iterator[DatasetImage]:
        for image in staged.images(numbers):
            # Where the file is there, nothing tells where it came from.
            yield image if spec.images == "leave" else replace(image, source="")

    return Dataset(describe(project), categories_of(numbers, config), images)


def _with_progress(dataset: Dataset, total: int, on_progress: Callable[[float], object]) -> Dataset:
    def images() -> Iterator[DatasetImage]:
        for number, image in enumerate(dataset.images()):
            on_progress(number / total)
            yield image

    return replace(dataset, images=images)


def _write_report(
    dataset: Dataset,
    folder: Path,
    spec: ExportSpec,
    staged: Staging,
    agreement: Agreement,
    store: ImageStore,
    left_out: Mapping[str, int],
) -> None:
    agreed = agreement.as_json()
    write_report(
        dataset,
        folder,
        problems=_in_order(staged.problems),
        agreement=agreed if agreed["tasks"] else None,
        duplicates=find_near_duplicates(dataset.images(), lambda image: store.perceptual_hash(image.digest)),
        left_out=left_out,
        format_name=spec.format,
        polygon_tolerance=None if EXPORT_FORMATS[spec.format].is_exact else spec.tolerance,
    )


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(
        problems, key=lambda problem: (problem.task, problem.annotation or 0, problem.region, problem.message)
    )


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
    except (OSError, sqlite3.Error) as error:
        if full := DiskFull.of(error, out, "export again"):
            raise full from None
        raise
