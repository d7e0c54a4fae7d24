"""How far annotators of the same tasks agree, in figures that are gathered task by task. Pure.

Two people are compared at a time, in every task that both annotated; who is first changes nothing.

- iou, dice: the means over all objects that either of them drew, of its IoU or Dice with the other's object that is the
  same thing (`matching.match`), and 0 where there is none. With IoU that is the panoptic quality of Kirillov et al.,
  "Panoptic Segmentation", CVPR 2019, in which neither of the two is the truth.
- matched: the share of these objects that are matched, the recognition quality there.
- kappa: Cohen's ("A Coefficient of Agreement for Nominal Scales", 1960) on the pixels of all pictures in which either
  of them drew the label: drawn or not, by chance or not. Of several pairs it is their mean (Light, "Measures of
  Response Agreement for Qualitative Data", 1971). Where a label is small in its pictures it is near to Dice (Zijdenbos
  et al., IEEE TMI 13(4), 1994).

What is kept grows with the numbers of people and labels, not with that of tasks.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import combinations
from math import fsum
from typing import Any, Self

from pycocotools import mask as coco_mask

from backend.datasets.annotations import Correction, DrawnObject
from backend.datasets.matching import match, of_one_size, overlaps

BINS = 10
_WORST = 50
# Sums of floats depend on the order of the tasks, in digits beyond these.
_DIGITS = 6

_Pair = tuple[int | None, int | None]


@dataclass(frozen=True)
class Sums:
    """Of objects that two people drew: how many there are, how many are matched, and the sums of their figures.

    Each matched object counts for both people. pixels: both drew it, only the first, only the second, neither did.
    """

    objects: int = 0
    matched: int = 0
    iou: float = 0.0
    dice: float = 0.0
    pixels: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __add__(self, other: Self) -> Self:
        both, first, second, neither = map(sum, zip(self.pixels, other.pixels, strict=True))
        return type(self)(
            self.objects + other.objects,
            self.matched + other.matched,
            self.iou + other.iou,
            self.dice + other.dice,
            (both, first, second, neither),
        )

    def as_json(self) -> dict[str, Any]:
        """objects, and the means matched, iou and dice, each in [0, 1]; None where there is no object."""
        means = {"matched": self.matched, "iou": self.iou, "dice": self.dice}
        return {
            "objects": self.objects,
            **{name: _rounded(total / self.objects) if self.objects else None for name, total in means.items()},
        }


class Agreement:
    """Gathers how far people agree. worst: how many of the tasks are named on which they agree least."""

    def __init__(self, worst: int = _WORST) -> None:
        self._keep = worst
        self._sums: dict[_Pair, dict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
        self._tasks: Counter[_Pair] = Counter()
        self._compared = self._alone = self._left_out = 0
        self._histogram = [0] * BINS
        self._worst: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, corrections: Sequence[Correction]) -> None:
        """The corrections of one task, one a person, in any order; each task once.

        Masks of another size than most: their whole annotation is left out and counted, see `of_one_size`.
        """
        people, odd = of_one_size(sorted(corrections, key=lambda correction: correction.annotation))
        self._left_out += len(odd)
        if len(people) < 2:
            self._alone += len(people)
            return
        self._compared += 1
        total = Sums()
        for one, other in combinations(people, 2):
            first, second = sorted((one, other), key=_by_person)
            pair = first.completed_by, second.completed_by
            self._tasks[pair] += 1
            for label, sums in compare(first.objects, second.objects).items():
                self._sums[pair][label] += sums
                total += sums
        self._note(people, total)

    def as_json(self) -> dict[str, Any]:
        """The figures so far, ready for JSON; see above for what they mean.

        tasks: how many were compared, alone: how many have one annotation that can be, left_out: annotations of another
        picture. objects: how many are compared, one of three people's with those of both others. by_label: with
        `kappa`. by_pair: with `annotators` (their ids, None where unknown), `tasks`, and the same by label. histogram:
        of tasks, by iou in ten bins from 0 to 1, those without any object left out. worst: `task`, its `annotations`
        and figures, the least iou first; never one on which all agree to the pixel. The means are rounded to six
        digits, and None where there is nothing to take them of.
        """
        by_label: dict[str, list[Sums]] = defaultdict(list)
        for of_pair in self._sums.values():
            for label, sums in of_pair.items():
                by_label[label].append(sums)
        return {
            "tasks": self._compared,
            "alone": self._alone,
            "left_out": self._left_out,
            **_total(sums for several in by_label.values() for sums in several).as_json(),
            "by_label": {label: _of_label(by_label[label]) for label in sorted(by_label)},
            "by_pair": [self._of_pair(pair) for pair in sorted(self._tasks, key=_order)],
            "histogram": list(self._histogram),
            "worst": [{"task": task, **entry} for _, task, entry in self._worst],
        }

    def _note(self, people: Sequence[Correction], total: Sums) -> None:
        if not total.objects:
            return
        iou = total.iou / total.objects
        self._histogram[min(int(iou * BINS), BINS - 1)] += 1
        if iou < 1:
            entry = {"annotations": [person.annotation for person in people], **total.as_json()}
            self._worst = nsmallest(self._keep, [*self._worst, (iou, people[0].task, entry)], key=lambda item: item[:2])

    def _of_pair(self, pair: _Pair) -> dict[str, Any]:
        of_labels = self._sums.get(pair, {})
        return {
            "annotators": list(pair),
            "tasks": self._tasks[pair],
            **_total(of_labels.values()).as_json(),
            "by_label": {label: _of_label([of_labels[label]]) for label in sorted(of_labels)},
        }


def compare(first: Sequence[DrawnObject], second: Sequence[DrawnObject]) -> dict[str, Sums]:
    """By label, what two people drew in one picture. Exact, by run lengths."""
    ious = {(one, other): iou for one, other, iou in overlaps(first, second)}
    of_labels: dict[str, Sums] = defaultdict(Sums)
    for group in match([first, second]):
        if len(group) == 2:
            iou = ious[group[0], group[1]]
            of_labels[first[group[0]].label] += Sums(2, 2, 2 * iou, 2 * 2 * iou / (1 + iou))
        else:
            person, number = next(iter(group.items()))
            of_labels[(first, second)[person][number].label] += Sums(1)
    return {label: sums + Sums(pixels=_pixels(first, second, label)) for label, sums in of_labels.items()}


def kappa(pixels: tuple[int, int, int, int]) -> float | None:
    """Cohen's kappa, at most 1, of how many pixels both, only one, only the other and neither chose.

    None where both chose everything, or nothing: then nothing is left to chance.
    """
    both, one, other, neither = pixels
    beyond = 2 * (both * neither - one * other)
    possible = (both + one) * (one + neither) + (both + other) * (other + neither)
    return beyond / possible if possible else None


def _pixels(first: Sequence[DrawnObject], second: Sequence[DrawnObject], label: str) -> tuple[int, int, int, int]:
    """As in `Sums`, of one label that at least one of them drew."""
    one, other = ([dict(drawn.rle) for drawn in objects if drawn.label == label] for objects in (first, second))
    height, width = (one or other)[0]["size"]
    in_one, in_other, in_either = (_area(runs) for runs in (one, other, [*one, *other]))
    both = in_one + in_other - in_either
    return both, in_one - both, in_other - both, height * width - in_either


def _area(runs: Sequence[dict[str, Any]]) -> int:
    """Pixels of masks together."""
    return int(coco_mask.area(coco_mask.merge(list(runs)))) if runs else 0


def _of_label(of_pairs: Sequence[Sums]) -> dict[str, Any]:
    known = [value for value in (kappa(sums.pixels) for sums in of_pairs) if value is not None]
    return {**_total(of_pairs).as_json(), "kappa": _rounded(fsum(known) / len(known)) if known else None}


def _total(sums: Iterable[Sums]) -> Sums:
    return sum(sums, start=Sums())


def _by_person(correction: Correction) -> tuple[int, int]:
    return -1 if correction.completed_by is None else correction.completed_by, correction.annotation


def _order(pair: _Pair) -> tuple[int, int]:
    first, second = (-1 if person is None else person for person in pair)
    return first, second


def _rounded(figure: float) -> float:
    return round(figure, _DIGITS)
