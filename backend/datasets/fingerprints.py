"""What expressions, masks and pictures are known by in what is kept: names by content, whose form never changes.

    edit_keys          an annotation's masks for a sentence, in `<home>/projects/<project>.changes.json`
    annotation_key     all that an annotation says, there too
    picture, target    a held-out picture and the masks that are meant, among the expressions of a version's card
    held_out           both with the sentence: what a reference score in a version's card is about
    Fingerprint        an expression, by which news is told from what a version was made from; kept nowhere

Masks are told by their run lengths, whatever their order.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from backend.datasets.annotations import Correction, Expression, SkippedTask
from backend.prompts.text import clean, spelled
from ris_core.data import Sample
from ris_core.files import sha256

# 64 bits: among a million pictures two agree with a chance of one in thirty million.
_DIGITS = 16


class Fingerprint(NamedTuple):
    """An expression by what it means. sentence: cleaned. runs: the run lengths of its masks, sorted."""

    task: int
    sentence: str
    runs: tuple[str, ...]


def of_samples(samples: Iterable[Sample]) -> frozenset[Fingerprint]:
    """The expressions of a snapshot, also of one whose sentences still have their punctuation."""
    return frozenset(
        Fingerprint(sample.image_id, clean(sample.sentence) or sample.sentence, _runs(sample.segmentations))
        for sample in samples
    )


def of_corrections(corrections: Iterable[Correction]) -> frozenset[Fingerprint]:
    """The expressions of annotations: the same as those of the snapshot that they become."""
    return frozenset(
        Fingerprint(correction.task, expression.cleaned, _drawn_runs(correction, expression))
        for correction in corrections
        for expression in correction.expressions
    )


def changed(
    now: frozenset[Fingerprint], before: frozenset[Fingerprint], skipped: Iterable[SkippedTask]
) -> set[tuple[int, str]]:
    """The expressions, by task and sentence, that are new, mean something else now, or were taken back.

    What a task said that can't be used just now wasn't taken back.
    """
    out = {task.task for task in skipped}
    return {(expression.task, expression.sentence) for expression in now ^ before if expression.task not in out}


def edit_keys(correction: Correction, expression: Expression) -> tuple[str, str]:
    """An annotation's masks for a sentence, others as soon as one is changed: by `clean`, and as it was before that."""
    runs = _drawn_runs(correction, expression)
    first, second = (
        f"{correction.annotation}:{_digest('/'.join([sentence, *runs]))}"
        for sentence in (expression.cleaned, spelled(expression.prompt))
    )
    return first, second


def annotation_key(correction: Correction) -> str:
    """An annotation as it was submitted: what is drawn, with which labels, what it means, and what was asked for."""
    drawn = [(drawn.region, drawn.label, drawn.rle["counts"]) for drawn in correction.objects]
    said = [(expression.cleaned, expression.regions) for expression in correction.expressions]
    shapes = [(shape.kind, sorted(shape.labels)) for shape in correction.shapes]
    return f"{correction.annotation}:all:{_digest(repr((drawn, said, shapes, correction.unanswered)))}"


def picture(digest: str) -> str:
    """A picture, by the SHA-256 of its file."""
    return digest[:_DIGITS]


def target(sample: Sample) -> str:
    """The masks that a sentence means; empty where that isn't there."""
    runs = "/".join(_runs(sample.segmentations))
    return _digest(runs) if runs else ""


def held_out(photo: str, targets: Iterable[str], sentence: str) -> str:
    """A sentence about a photo, by `picture` and the `target` of each task that asks it."""
    return _digest(f"{photo}/{'/'.join(sorted(set(targets)))}/{sentence}")


def _drawn_runs(correction: Correction, expression: Expression) -> tuple[str, ...]:
    return _runs(drawn.rle for drawn in correction.objects if drawn.region in expression.regions)


def _runs(rles: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted(rle["counts"] for rle in rles))


def _digest(text: str) -> str:
    return sha256(text.encode())[:_DIGITS]
