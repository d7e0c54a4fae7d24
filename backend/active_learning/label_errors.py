"""Probable label errors: corrections on which the version in production is sure, and says something else.

A correction's suspicion is how far the version's answer can be believed, times 1 - what the correction makes of it: the
IoU where both have a mask, 0 where one of them says that the thing isn't there. So another mask, a mask of what is
absent and a missing mask are told by one number, [0, 1] (ours).

A wrong model is often sure. How far it can be believed is the smallest of three (ours): its score; that score,
corrected to what its masks, or its refusals, of all these corrections came to; and how well it did on the other
corrections of the same sentence, beginning with its mean on all others, which counts for two. So it accuses nobody of
what it doesn't know.

With the masks of 10 in 100 corrections exchanged for another thing's in the same photo, by the shipped model: of the
first 10, 8 were such on photos of clothes, and 4 on COCO's, where it knows less. By its score alone those are 7 and 3,
and on COCO's it lists 27 right masks, now 4; of the 25 right ones of the sample photos it lists 14, now none. A version
that learnt from an error may have taken it over: among held-out corrections errors are told more surely.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import Self

from ris_core import segmenters
from ris_core.data import Sample, read_folder
from ris_core.evaluation.contact_sheet import contact_sheet
from ris_core.evaluation.evaluate import Report, evaluate, evaluate_each
from ris_core.evaluation.metrics import Score
from ris_core.images import write_image
from ris_core.inference.calibration import corrected, fit_correction
from ris_core.inference.segmenter import Segmenter

# Below it there is nothing to tell a person about.
LEAST = 0.3
# How many corrections of a sentence the mean on all others counts for.
_PRIOR = 2.0
_A_SHEET = 12


@dataclass(frozen=True)
class Suspect:
    """A correction that wants a second look.

    says: what the version says instead, "another mask", "absent" or "there". iou: of both masks, None where one of them
    has none. score: the version's own. suspicion: see above.
    """

    task: int
    prompt: str
    says: str
    iou: float | None
    score: float
    suspicion: float

    @classmethod
    def of(cls, sample: Sample, score: Score, certainty: float) -> Self:
        """A correction, how the version's answer scored against it, and how far that answer can be believed."""
        says = "absent" if score.refused else "another mask" if score.has_target else "there"
        iou = score.iou if says == "another mask" else None
        agreement = score.iou if score.has_target else float(score.refused)
        return cls(sample.image_id, sample.sentence, says, iou, score.expected, certainty * (1 - agreement))


@dataclass(frozen=True)
class LabelErrors:
    """The most suspicious of a snapshot's corrections, the worst first. pictures: the sheets that show them."""

    version: str
    snapshot: str
    corrections: int
    suspects: tuple[Suspect, ...]
    pictures: tuple[Path, ...]


def find_label_errors(
    checkpoint: Path,
    snapshot: Path,
    count: int,
    pictures: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelErrors:
    """At most `count` corrections of a snapshot that are suspicious enough to tell a person about.

    pictures: a folder for sheets of them, with both masks on the photo. on_progress: hears how many corrections were
    looked at, of how many. Raises as `find_suspects`, and CheckpointError if the version can't be loaded.
    """
    predictor, samples = segmenters.load(checkpoint), read_folder(snapshot)
    ranked = find_suspects(predictor, samples, lambda done: on_progress(done, len(samples)))
    chosen = [(suspect, sample) for suspect, sample in ranked if suspect.suspicion >= LEAST][:count]
    sheets = _draw(pictures, predictor, [sample for _, sample in chosen]) if pictures else []
    suspects = tuple(suspect for suspect, _ in chosen)
    return LabelErrors(predictor.version, snapshot.name, len(samples), suspects, tuple(sheets))


def find_suspects(
    predictor: Segmenter, samples: Sequence[Sample], on_progress: Callable[[int], None] = lambda done: None
) -> list[tuple[Suspect, Sample]]:
    """All corrections of a snapshot, the most suspicious first. Raises ImageError, DatasetError if it is damaged."""
    report = evaluate(predictor, samples, on_progress)
    answered = zip(report.samples, report.scores, certainties(report), strict=True)
    suspects = [(Suspect.of(*row), row[0]) for row in answered]
    return sorted(suspects, key=lambda pair: (-pair[0].suspicion, pair[0].task, pair[0].prompt))


def certainties(report: Report) -> list[float]:
    """How far each answer of a report can be believed, [0, 1]; see above."""
    samples, scores = report.samples, report.scores
    lines = {}
    for refused in (True, False):
        pairs = [(score.expected, score.correct) for score in scores if score.refused is refused]
        lines[refused] = fit_correction(*map(list, zip(*pairs, strict=True))) if pairs else (1.0, 0.0)
    by_sentence: dict[str, list[float]] = defaultdict(list)
    for sample, score in zip(samples, scores, strict=True):
        by_sentence[sample.sentence].append(score.correct)
    total = fsum(score.correct for score in scores)
    believed = []
    for sample, score in zip(samples, scores, strict=True):
        alike = by_sentence[sample.sentence]
        # On nothing but this one, nothing is known of it.
        usual = (total - score.correct) / (len(scores) - 1) if len(scores) > 1 else 0.0
        known = (fsum(alike) - score.correct + _PRIOR * usual) / (len(alike) - 1 + _PRIOR)
        believed.append(min(score.expected, known, corrected(score.expected, *lines[score.refused])))
    return believed


def _draw(folder: Path, predictor: Segmenter, samples: Sequence[Sample]) -> list[Path]:
    """Sheets of the corrections with the version's masks over theirs, the worst first. Returns the files."""
    written = []
    for start in range(0, len(samples), _A_SHEET):
        shown = [next(evaluate_each(predictor, [sample])) for sample in samples[start : start + _A_SHEET]]
        path = folder / f"suspects-{start // _A_SHEET + 1}.jpg"
        write_image(path, contact_sheet(shown, f"{predictor.version}: corrections to look at again"))
        written.append(path)
    return written
