"""Which objects that several people drew in one picture are the same thing. Pure; masks are compared by their runs."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pycocotools import mask as coco_mask

from backend.datasets.annotations import Correction, DrawnObject

SAME = 0.5
"""Two masks of one label are one thing if their IoU is above it.

Of masks that don't overlap, at most one can be that near to another person's (Kirillov et al., "Panoptic Segmentation",
CVPR 2019), and two that are that near to a third overlap.
"""

Group = Mapping[int, int]
"""A thing: by the number of each person who drew it, the number of their object. Nobody drew it twice."""

_Drawn = tuple[int, int]


def match(drawings: Sequence[Sequence[DrawnObject]]) -> list[Group]:
    """All objects of several people, in groups that are one thing each, ordered by their first objects.

    drawings: person by person, of one size. Pairs of one label and an IoU above `SAME` are joined, the best first,
    where that doesn't put two objects of a person into one group. With two people whose own objects don't overlap this
    is the best assignment that there is; for more, no order of the people matters. Equal pairs: the first drawn.
    """
    groups: dict[_Drawn, dict[int, int]] = {
        (person, number): {person: number} for person, drawn in enumerate(drawings) for number in range(len(drawn))
    }
    for _, first, second in sorted(_pairs(drawings)):
        one, other = groups[first], groups[second]
        if not one.keys() & other.keys():
            one.update(other)
            groups.update(dict.fromkeys(other.items(), one))
    distinct = {min(group.items()): dict(sorted(group.items())) for group in groups.values()}
    return [distinct[first] for first in sorted(distinct)]


def _pairs(drawings: Sequence[Sequence[DrawnObject]]) -> Iterator[tuple[float, _Drawn, _Drawn]]:
    """Those that may be the same: (-IoU, first, second), where the first is of a person before the second's."""
    for person, drawn in enumerate(drawings):
        for other in range(person + 1, len(drawings)):
            for first, second, iou in overlaps(drawn, drawings[other]):
                if iou > SAME:
                    yield -iou, (person, first), (other, second)


def overlaps(first: Sequence[DrawnObject], second: Sequence[DrawnObject]) -> Iterator[tuple[int, int, float]]:
    """The numbers of two people's objects of one label, and their IoU, where they overlap. Exact."""
    of_label: dict[str, list[int]] = defaultdict(list)
    for number, drawn in enumerate(second):
        of_label[drawn.label].append(number)
    for number, drawn in enumerate(first):
        others = of_label.get(drawn.label, [])
        rles = [dict(second[other].rle) for other in others]
        ious = coco_mask.iou([dict(drawn.rle)], rles, [0] * len(rles))[0] if rles else ()
        yield from ((number, other, float(iou)) for other, iou in zip(others, ious, strict=True) if iou)


def of_one_size(corrections: Sequence[Correction]) -> tuple[list[Correction], list[str]]:
    """The corrections that can be compared, and remarks on the others.

    Whose masks are of another size than most people's drew on another picture, which was replaced since; where sizes
    are equally frequent, that of the highest annotation id is today's. Who drew nothing can be compared with anybody.
    """
    sizes = {correction.annotation: _sizes(correction) for correction in corrections}
    people = Counter(size for of_person in sizes.values() for size in of_person)
    if len(people) < 2:
        return list(corrections), []
    newest = {size: number for number in sorted(sizes) for size in sizes[number]}
    height, width = max(people, key=lambda size: (people[size], newest[size]))
    odd = {number for number, of_person in sizes.items() if of_person - {(height, width)}}
    remarks = [
        f"left out: annotation {number}, whose masks are of another size than {width} x {height}. If the picture was "
        f"replaced, draw them again"
        for number in sorted(odd)
    ]
    return [correction for correction in corrections if correction.annotation not in odd], remarks


def _sizes(correction: Correction) -> set[tuple[int, int]]:
    return {(drawn.rle["size"][0], drawn.rle["size"][1]) for drawn in correction.objects}
