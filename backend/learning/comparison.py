"""Two versions of a project's model on the same held-out expressions: what the gate goes by, and what changed most."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.datasets import fingerprints
from backend.datasets.snapshots import newest_snapshot, read_manifest
from backend.learning.gate import ComparedExpression, Verdict, judge
from backend.learning.versions import plain_name
from backend.registry import Registry, Version
from ris_core import segmenters
from ris_core.data import Sample, read_folder
from ris_core.errors import OutOfMemory
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import Report, evaluate, evaluate_each
from ris_core.images import write_image
from ris_core.inference.passes import is_out_of_memory
from ris_core.models.base import best_device, without_gpu

_log = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]
"""Hears the stage, and the share of it that is done, 0 to 1."""

# Expressions on each sheet: two answers each, two a row.
_A_SHEET = 6


@dataclass(frozen=True)
class Comparison:
    """What both versions answered; `expressions[i]` is about `before.samples[i]`."""

    before: Report
    after: Report
    expressions: tuple[ComparedExpression, ...]


@dataclass(frozen=True)
class VersionComparison:
    """Two versions on the held-out expressions of a snapshot. pictures: better.jpg, worse.jpg, as far as there are."""

    snapshot: Path
    versions: tuple[Version, Version]
    answered: Comparison
    verdict: Verdict
    pictures: tuple[Path, ...] = ()

    @property
    def changed(self) -> list[ComparedExpression]:
        """The expressions whose score changed, what changed most first."""
        changed = [expression for expression in self.answered.expressions if _gain(expression)]
        return sorted(changed, key=lambda expression: (-abs(_gain(expression)), expression.task, expression.prompt))

    def as_json(self) -> dict[str, Any]:
        """Both versions' figures, the gate's verdict, and each expression's scores."""
        before, after = self.versions
        return {
            "snapshot": self.snapshot.name,
            "before": {"version": before.name, **self.answered.before.figures},
            "after": {"version": after.name, **self.answered.after.figures},
            "gate": self.verdict.as_json(),
            "expressions": [asdict(expression) for expression in self.answered.expressions],
            "pictures": [str(path) for path in self.pictures],
        }


def compare(
    registry: Registry,
    home: Path,
    project: int,
    names: tuple[str, str],
    needed: int,
    pictures: Path | None = None,
    on_progress: OnProgress = lambda stage, share: None,
) -> VersionComparison:
    """Have two versions answer the held-out expressions of the newest snapshot, and ask the gate about the second.

    needed: as of `judge`. pictures: a folder for sheets of what changed most.
    Raises NotFound if the project has no version of that name, and what `compare_versions` does. A zero-shot segmenter
    may be named by its own name as well.
    """
    before, after = (registry.find(project, plain_name(name)) for name in names)
    snapshot = newest_snapshot(home, project)
    answered = compare_versions(before.folder, after.folder, snapshot, on_progress)
    verdict = judge(answered.expressions, needed, reference_scores(before))
    sheets = draw(pictures, (before, after), answered) if pictures else []
    return VersionComparison(snapshot, (before, after), answered, verdict, tuple(sheets))


def compare_versions(
    before: Path, after: Path, snapshot: Path, on_progress: OnProgress, known: Report | None = None
) -> Comparison:
    """Have two checkpoints, one after the other, answer the held-out expressions of a snapshot ("evaluating").

    known: what the first has answered already.

    Raises CheckpointError if one can't be loaded, DatasetError or ImageError if the snapshot is damaged.
    """
    samples = [sample for sample in read_folder(snapshot) if sample.split != "train"]
    digests, total = read_manifest(snapshot), max(1, 2 * len(samples))

    def answered(folder: Path, done_before: int) -> Report:
        def note(done: int) -> None:
            on_progress("evaluating", (done_before + done) / total)

        return _evaluated(folder, samples, note)

    old, new = known or answered(before, 0), answered(after, len(samples))
    expressions = tuple(
        ComparedExpression(
            task=sample.image_id,
            prompt=sample.sentence,
            photo=fingerprints.picture(digests[f"images/{sample.image.name}"]),
            target=fingerprints.target(sample),
            before=was.correct,
            after=now.correct,
            accepted=was.accepted,
        )
        for sample, was, now in zip(old.samples, old.scores, new.scores, strict=True)
    )
    return Comparison(old, new, expressions)


def _evaluated(folder: Path, samples: Sequence[Sample], on_progress: Callable[[int], None]) -> Report:
    """What a checkpoint answers: on the GPU, and on the CPU where a photo doesn't fit there."""
    try:
        return evaluate(segmenters.load(folder), samples, on_progress)
    except (OutOfMemory, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or best_device().type == "cpu":
            raise
    _log.warning("The GPU's memory doesn't hold a single photo: versions are compared on the CPU, which takes longer.")
    with without_gpu():
        return evaluate(segmenters.load(folder), samples, on_progress)


def reference_scores(version: Version) -> Mapping[str, float]:
    """What a version's card says that the next candidate must not lose, see `gate.judge`.

    Nothing where somebody promoted it against the gate: what it had lost by then was accepted with it.
    """
    return version.card.get("worked", {}) if version.card.get("decision") == "promoted" else {}


def draw(folder: Path, versions: tuple[Version, Version], answered: Comparison) -> list[Path]:
    """Write better.jpg and worse.jpg, what the second version gained and lost most, with both answers side by side.

    One of them is left out where nothing changed that way. Returns the files.
    """
    predictors, written = [segmenters.load(version.folder) for version in versions], []
    pairs = sorted(zip(answered.expressions, answered.before.samples, strict=True), key=lambda pair: _gain(pair[0]))
    worse = [sample for expression, sample in pairs if _gain(expression) < 0]
    better = [sample for expression, sample in reversed(pairs) if _gain(expression) > 0]
    for name, samples in (("better", better[:_A_SHEET]), ("worse", worse[:_A_SHEET])):
        shown = [
            answer for sample in samples for predictor in predictors for answer in evaluate_each(predictor, [sample])
        ]
        if shown:
            path = folder / f"{name}.jpg"
            title = f"{name}: each first by {versions[0].name}, then by {versions[1].name}"
            write_image(path, contact_sheet(shown, title))
            written.append(path)
    return written


def _gain(expression: ComparedExpression) -> float:
    return expression.after - expression.before
