"""One thing that is asked of a picture, and what negatives, points and rectangles make of its answer.

Knows no HTTP, no files and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from backend.labelstudio.label_config import Label
from backend.labelstudio.regions import Region
from backend.prompts.geometry import GeometricPrompt
from backend.prompts.mending import MaskInEditor, inside
from backend.prompts.text import clean
from ris_core.inference.prompt import Prompt

if TYPE_CHECKING:
    from ris_core.inference.prediction import Prediction

# Where a negative leaves less than this share of a mask, both sentences found the same thing.
_REST = 0.1

PromptSource = Literal["typed", "draft", "task", "label", "sheet", "name", "offered", "command"]


@dataclass(frozen=True)
class PromptRequest:
    """A sentence, the label that the mask it asks for gets, and what narrows the answer down.

    prompt: empty where somebody only pointed. negatives: sentences whose masks are taken away. geometry: where the
    thing is. mended: the mask in the editor that this is about.
    echo: the sentence to show in the prompt TextArea; empty where it is there already, or nobody wrote it for this
    picture. notes: what people should know about the label, which is None where they are to choose it. guessed: a mask
    is wanted even if the thing seems absent.
    """

    prompt: str
    label: Label | None
    negatives: tuple[str, ...] = ()
    geometry: GeometricPrompt | None = None
    mended: MaskInEditor | None = None
    source: PromptSource = "typed"
    echo: str = ""
    notes: tuple[str, ...] = ()
    guessed: bool = False

    @property
    def asked(self) -> tuple[str | Prompt, ...]:
        """All that the model is to be asked for this request: what is one expression gets one mask."""
        sentence, *negatives = (clean(text) or text for text in (self.prompt, *self.negatives))
        return (self._pointed(sentence, self.geometry) if self.geometry else sentence, *negatives)

    def _pointed(self, sentence: str, drawn: GeometricPrompt) -> Prompt:
        mended = self.mended
        if mended is None:
            return Prompt(sentence, drawn.points, drawn.box)
        # Without Auto-Accept Suggestions all points come again, but for those that were deleted.
        together = bool(mended.keys & drawn.keys)
        points = drawn.points if together else (*mended.points, *drawn.points)
        fewer = together and not drawn.keys >= mended.keys
        # To the sentence alone the model can say more than a mask.
        mask = None if fewer or (mended.spoken and not self.negatives) else mended.mask
        # A later click outside an earlier box says that the box was too small.
        kept = (
            mended.box if mended.box and all(inside(point, mended.box) for point in points if point.positive) else None
        )
        return Prompt(sentence, points, drawn.box or kept, mask)

    def as_answered(self, answer: Prediction, regions: Sequence[Region]) -> MaskInEditor:
        """What stands in the editor once this is answered by `regions`."""
        ids: dict[str, tuple[str, ...]] = {}
        for region in regions:
            ids[region["from_name"]] = (*ids.get(region["from_name"], ()), region["id"])
        label, mask = self.label.value if self.label else None, answer.mask if answer.present else None
        if self.geometry is None:
            return MaskInEditor(ids, label, mask, self.prompt, spoken=not self.negatives)
        mended, pointed = self.mended, self._pointed(self.prompt, self.geometry)
        return MaskInEditor(
            ids,
            label,
            mask,
            self.prompt,
            tuple(pointed.points),
            pointed.box,
            self.geometry.keys,
            origin=regions[0]["origin"] if regions else "prediction",
            held=bool(mended and (mended.held or mended.keys & self.geometry.keys)),
        )


def combine(request: PromptRequest, answer: Prediction, negatives: Sequence[Prediction] = ()) -> Prediction:
    """The answer to `request.prompt` without what its negatives found, within its rectangles.

    Taken away is all that a negative finds, however sure the model is of either: whoever writes "not the puppy" has
    seen it count as a dog. Where next to nothing would be left, the model can't tell the two apart, and the surer one
    has it all. An answer that loses everything says that the thing isn't there. negatives: of `request.negatives`.
    """
    if not answer.present:
        return answer
    mask = answer.mask
    for negative in (negative for negative in negatives if negative.present):
        rest = mask & ~negative.mask
        if np.count_nonzero(rest) >= _REST * np.count_nonzero(mask):
            mask = rest
        elif negative.score > answer.score:
            mask = np.zeros_like(mask)
    if request.geometry:
        mask = request.geometry.trim(mask)
    if mask.any():
        return replace(answer, mask=mask)
    return replace(answer, mask=mask, present=False, score=1 - answer.score, guess=0.0)


def reply(request: PromptRequest, answer: Prediction) -> str:
    """What the editor says of an answer: whether the thing was found, how sure the model is, and what of the label."""
    said = f"found, {answer.score:.2f}"
    if answer.present and answer.guess:
        said = f"only a guess, {answer.guess:.2f}"
    elif answer.guess:
        said = f'not found; nearest guess {answer.guess:.2f} ("{request.prompt}?" shows it)'
    elif not answer.present:
        said = "not found"
    what = request.prompt or ("what you mended" if request.mended else "what you pointed at")
    return "; ".join([f"{what}: {said}", *(request.notes if answer.present else ())])


def echoes(requests: Sequence[PromptRequest], answers: Sequence[Prediction]) -> list[str]:
    """The sentences to show in the prompt TextArea beside these answers.

    What somebody asks of this very picture stays, found or not: "Not in this picture" is about what has no mask. A
    prompt that is only tried here would be meant, too, so it is shown where it found something.
    """
    return [
        request.echo
        for request, answer in zip(requests, answers, strict=True)
        if request.echo and (answer.present or request.source != "offered")
    ]
