"""What several annotators say of one task together. Pure.

One rule throughout, made for datasets to train on, in which a wrong mask costs more than a missing one: **more than
half** must say so. With two people both must, and where an even number is split, nobody has said anything.

- An object is kept if more than half of the people drew it. Which objects are the same thing, `matching` decides.
- "vote": a pixel of it counts if more than half of all people drew it; those who didn't draw the object count too.
- "staple": a pixel counts if it is part of the object with a probability above 0.5, as STAPLE estimates from the masks
  of those who drew the object. Who draws too much, or too little, weighs less. What two people can't decide between
  them, a probability of 0.5, doesn't count.
- A sentence is kept if more than half of those who said anything about it mean the same objects, or all none, and all
  of these objects are kept.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from backend.datasets.annotations import Correction, DrawnObject, Expression
from backend.datasets.matching import Group, match, of_one_size
from backend.datasets.staple import staple
from backend.errors import BadRequest
from backend.prompts.text import clean
from ris_core.masks import Mask, encode_rle

Method = Literal["vote", "staple"]

# STAPLE leaves two people undecided but for its rounding.
_TIE = 1e-6
_T = TypeVar("_T")


class NoConsensus(BadRequest, code="no_consensus"):
    """People say something of a task, and nothing that most of them agree on."""


@dataclass(frozen=True)
class _Thing:
    """A group and what became of it: an object, or None and why."""

    group: Group
    fused: DrawnObject | None
    why: str = ""


def consensus(corrections: Sequence[Correction], method: Method) -> Correction:
    """What the corrections of one task, one a person, say together. In any order they give the same.

    One alone comes back as it is. Else the result has the lowest annotation id of those that count, nobody's
    `completed_by`, is no ground truth, and took as long as all together; its parent prediction is theirs if they share
    one. A fused object has the region id and the place of the first annotation that has it, and those of all as
    `sources`; an expression is spelled as in the first annotation that means the same, and no edit is known of it.
    What is left out, and why, is in the remarks; a sentence that is left out is unanswered.

    Masks of another size than most: their whole annotation is left out, see `of_one_size`. Raises NoConsensus if people
    say something and nothing of it is left, since the picture would look as if nothing were there, and ValueError if
    there is no correction, or they aren't of one task and of different annotations.
    """
    _check(corrections)
    people, odd = of_one_size(sorted(corrections, key=lambda correction: correction.annotation))
    if len(people) < 2:
        return _alone(people, odd)
    things = _fuse(people, method)
    expressions, silent = _agreed(people, things)
    first = people[0]
    result = Correction(
        task=first.task,
        annotation=first.annotation,
        image=first.image,
        objects=tuple(thing.fused for thing in things if thing.fused),
        expressions=tuple(expressions),
        parent_prediction=_common(person.parent_prediction for person in people),
        lead_time=_sum(person.lead_time for person in people),
        unanswered=tuple(_unanswered(people, expressions)),
        shapes=tuple(dict.fromkeys(shape for person in people for shape in person.shapes)),
        remarks=(*_remarks(people), *odd, *(thing.why for thing in things if thing.why), *silent),
    )
    if any(person.objects or person.expressions for person in people) and not (result.objects or result.expressions):
        raise NoConsensus(
            f"The {len(people)} people who annotated task {first.task} agree on nothing of what they drew and said. "
            f"Look again, and mark the right annotation as ground truth."
        )
    return result


def _check(corrections: Sequence[Correction]) -> None:
    annotations = {correction.annotation for correction in corrections}
    tasks = {correction.task for correction in corrections}
    if len(tasks) != 1 or len(annotations) != len(corrections):
        raise ValueError(f"A consensus is of one task's annotations, each once; got tasks {sorted(tasks)}.")


def _alone(people: Sequence[Correction], odd: Sequence[str]) -> Correction:
    if not people:
        raise NoConsensus("The masks are of different sizes even within the annotations; none can be compared.")
    return replace(people[0], remarks=(*people[0].remarks, *odd))


def _fuse(people: Sequence[Correction], method: Method) -> list[_Thing]:
    """All groups, in order: the kept ones with their objects, the others with a reason."""
    things: list[_Thing] = []
    taken: set[str] = set()
    for group in match([person.objects for person in people]):
        drawn = {people[person].annotation: people[person].objects[number] for person, number in group.items()}
        mask = _fused(list(drawn.values()), len(people), method)
        if isinstance(mask, str):
            annotation, first = next(iter(drawn.items()))
            why = f'left out: "{first.label}", region {first.region} of annotation {annotation}: {mask}'
            things.append(_Thing(group, None, why))
        else:
            things.append(_Thing(group, _object(drawn, mask, taken)))
    return things


def _fused(drawn: Sequence[DrawnObject], people: int, method: Method) -> Mapping[str, Any] | str:
    """The run lengths of a group's mask, or why it has none."""
    if 2 * len(drawn) <= people:
        return f"{len(drawn)} of {people} people drew it"
    box = _box(drawn)
    masks = np.stack([one.mask()[box] for one in drawn])
    inside = 2 * masks.sum(axis=0) > people if method == "vote" else _estimated(masks)
    if not inside.any():
        return f"of {people} people no more than half agree on any of its pixels"
    whole: Mask = np.zeros(drawn[0].rle["size"], np.bool_)
    whole[box] = inside
    return encode_rle(whole)


def _box(drawn: Sequence[DrawnObject]) -> tuple[slice, slice]:
    """Rows and columns of the box around all of them."""
    left, top, width, height = map(int, coco_mask.toBbox(coco_mask.merge([dict(one.rle) for one in drawn])))
    return slice(top, top + height), slice(left, left + width)


def _estimated(masks: NDArray[np.bool_]) -> Mask:
    """NxHxW, cut to the box around the masks -> HxW: what STAPLE takes for the thing.

    It looks at the box and a margin of half its sides all around: three boxes more of background. Over the whole
    picture the prior would tell of the picture's size, not of the thing's, and everybody's specificity would be near 1,
    whatever they drew too much. The margin runs on beyond the picture's edge, so that the place of a thing changes
    nothing.
    """
    return np.asarray(staple(masks, background=3 * masks[0].size).probability > 0.5 + _TIE)


def _object(drawn: Mapping[int, DrawnObject], rle: Mapping[str, Any], taken: set[str]) -> DrawnObject:
    """The object that a group's, by annotation, are together. taken: the ids that are in use, which its joins.

    It was accepted if all accepted one mask, and drawn by hand if all drew it. It is a filled shape if most filled one.
    """
    all_of = list(drawn.values())
    first = all_of[0]
    origins = {one.origin for one in all_of}
    is_untouched = origins == {"prediction"} and all(one.rle == first.rle for one in all_of)
    origin = "prediction" if is_untouched else "manual" if origins == {"manual"} else "prediction-changed"
    shape, count = Counter(one.shape for one in all_of).most_common(1)[0]
    return DrawnObject(
        region=_free_id(first.region, taken),
        label=first.label,
        rle=rle,
        origin=origin,
        score=_common(one.score for one in all_of) if is_untouched else None,
        shape=shape if 2 * count > len(all_of) else "",
        sources=tuple(drawn),
    )


def _free_id(region: str, taken: set[str]) -> str:
    """The id, or with a number after it: annotations made of one prediction share its regions' ids."""
    free, count = region, 1
    while free in taken:
        count += 1
        free = f"{region}#{count}"
    taken.add(free)
    return free


def _agreed(people: Sequence[Correction], things: Sequence[_Thing]) -> tuple[list[Expression], list[str]]:
    """The sentences that most mean alike, in the order in which they were first said, and remarks on the others."""
    thing_of = {
        (people[person].annotation, people[person].objects[number].region): position
        for position, thing in enumerate(things)
        for person, number in thing.group.items()
    }
    said: dict[str, list[tuple[str, frozenset[int]]]] = {}
    for person in people:
        for expression in person.expressions:
            meant = frozenset(thing_of[person.annotation, region] for region in expression.regions)
            said.setdefault(expression.cleaned, []).append((expression.prompt, meant))
    agreed, remarks = [], []
    for sayings in said.values():
        meant, count = Counter(meant for _, meant in sayings).most_common(1)[0]
        prompt = next(prompt for prompt, other in sayings if other == meant)
        regions = [things[position].fused for position in sorted(meant)]
        if 2 * count <= len(sayings):
            remarks.append(f'left out: "{sayings[0][0]}", of which {len(sayings)} people mean different things')
        elif None in regions:
            remarks.append(f'left out: "{prompt}", since not all that it means is kept')
        else:
            agreed.append(Expression(prompt, tuple(drawn.region for drawn in regions if drawn)))
    return agreed, remarks


def _unanswered(people: Iterable[Correction], expressions: Iterable[Expression]) -> Iterator[str]:
    answered = {expression.cleaned for expression in expressions}
    for person in people:
        for prompt in (*person.unanswered, *(expression.prompt for expression in person.expressions)):
            if clean(prompt) not in answered:
                answered.add(clean(prompt))
                yield prompt


def _remarks(people: Iterable[Correction]) -> Iterator[str]:
    return (f"annotation {person.annotation}: {remark}" for person in people for remark in person.remarks)


def _common(values: Iterable[_T | None]) -> _T | None:
    """What all are, else None."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _sum(seconds: Iterable[float | None]) -> float | None:
    known = [number for number in seconds if number is not None]
    return fsum(known) if known else None
