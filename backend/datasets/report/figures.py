"""The figures of a dataset's report: what is in it, and what looks wrong. One picture is in memory at a time.

Memory grows with the labels and the people, not with the pictures, objects or prompts: of what there may be any number
of, the most frequent or the worst are kept.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.datasets.dataset import Category, DatasetImage, Instance, Json, Ref
from backend.datasets.report.mask_checks import DUPLICATE, OVERLAP, TINY, Overlap, overlaps, shape_of
from backend.datasets.report.tallies import Frequent, Histogram, Mean, Worst
from backend.labelstudio.masks.polygon import outlines
from ris_core.masks import Mask, iou, segmentation_to_mask

SPLITS = ("train", "val", "test")
AREA_EDGES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Shares of the picture between which masks are counted."""
WORD_EDGES = (1, 2, 3, 4, 5, 6, 8, 11)
"""Numbers of words: none, each of 1 to 5, 6 and 7, 8 to 10, more."""
IOU_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LOW_IOU = 0.5
"""A prediction below it is a miss, as Prec@0.5 has it."""

_SMALL, _MEDIUM = 32**2, 96**2
_FREQUENT, _LISTED = 20, 50

FindingKind = Literal["empty", "tiny", "specks", "duplicate", "overlap", "low IoU"]
"""A mask of no pixel; of fewer than TINY; with stray parts of fewer; two of one thing; two that overlap; a prediction
that was far from what was submitted."""


@dataclass(frozen=True)
class Finding:
    """Something in a picture that is worth a look. goodness: the smaller, the worse. about: for JSON."""

    kind: FindingKind
    task: int
    goodness: float
    about: Json

    def as_json(self) -> Json:
        """With its task."""
        return {"task": self.task, **self.about}


@dataclass
class _Label:
    """Of one category. objects: by split. sizes: COCO's small (below 32x32 pixels), medium (96x96) and large."""

    category: Category
    images: int = 0
    refs: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    area: Histogram = field(default_factory=lambda: Histogram(AREA_EDGES))
    share: Mean = field(default_factory=Mean)
    iou: Mean = field(default_factory=Mean)

    def as_json(self) -> Json:
        return {
            "number": self.category.number,
            "name": self.category.name,
            "images": self.images,
            "instances": self.objects.total(),
            "refs": self.refs,
            "by_split": dict(sorted(self.objects.items(), key=lambda item: split_order(item[0]))),
            "sizes": {size: self.sizes[size] for size in ("small", "medium", "large")},
            "area_shares": self.area.counts,
            "mean_area_share": self.share.value,
            "compared": self.iou.count,
            "mean_iou": self.iou.value,
        }


@dataclass
class _Extent:
    """From the least to the greatest of some numbers."""

    least: int | None = None
    greatest: int | None = None
    mean: Mean = field(default_factory=Mean)

    def add(self, value: int) -> None:
        self.least = value if self.least is None else min(self.least, value)
        self.greatest = value if self.greatest is None else max(self.greatest, value)
        self.mean.add(value)

    def as_json(self) -> Json:
        return {"least": self.least, "greatest": self.greatest, "mean": self.mean.value}


class Figures:
    """Collects a dataset's figures picture by picture."""

    def __init__(self, categories: Sequence[Category], polygon_tolerance: float | None = None) -> None:
        """polygon_tolerance: how far the export's polygons may be off an outline, in pixels; None: it has none."""
        self._labels = {category.number: _Label(category) for category in categories}
        self._splits: dict[str, Counter[str]] = defaultdict(Counter)
        self._width, self._height, self._sizes = _Extent(), _Extent(), Frequent[tuple[int, int]]()
        self._masks = _Masks(polygon_tolerance)
        self._prompts = _Prompts()
        self._annotators: dict[str, Counter[str]] = defaultdict(Counter)
        self._overlapping = Frequent[tuple[str, str]]()
        self._worst: dict[FindingKind, Worst] = defaultdict(lambda: Worst(_LISTED))

    def add(self, image: DatasetImage) -> list[Finding]:
        """Take a picture; what was found in it."""
        self._count(image)
        findings = [
            *self._instances(image),
            *(self._overlap(image, overlap) for overlap in overlaps(image.instances)),
            *self._refs(image),
        ]
        for finding in findings:
            self._worst[finding.kind].add(finding.goodness, finding)
        return findings

    def as_json(self) -> Json:
        """The figures so far, see docs/exports.md. The same pictures in the same order give the same."""
        totals = sum(self._splits.values(), Counter[str]())
        return {
            "counts": {what: totals[what] for what in ("images", "negatives", "instances", "refs")},
            "by_split": {
                split: {what: counts[what] for what in ("images", "negatives", "instances", "refs")}
                for split, counts in sorted(self._splits.items(), key=lambda item: split_order(item[0]))
            },
            "labels": [label.as_json() for label in self._labels.values()],
            "images": {
                "width": self._width.as_json(),
                "height": self._height.as_json(),
                "distinct_sizes": self._sizes.distinct,
                "sizes": [
                    {"width": width, "height": height, "images": count}
                    for (width, height), count in self._sizes.first(_FREQUENT)
                ],
            },
            "masks": {
                **self._masks.as_json(),
                "overlapping_labels": [
                    {"labels": list(labels), "pairs": count} for labels, count in self._overlapping.first(_FREQUENT)
                ],
            },
            "annotators": {name: dict(sorted(counts.items())) for name, counts in sorted(self._annotators.items())},
            "prompts": self._prompts.as_json(),
            "findings": {
                kind: {"count": worst.count, "listed": [finding.as_json() for finding in worst.things()]}
                for kind, worst in sorted(self._worst.items())
            },
            "thresholds": {"tiny": TINY, "overlap": OVERLAP, "duplicate": DUPLICATE, "low_iou": LOW_IOU},
        }

    def _count(self, image: DatasetImage) -> None:
        self._splits[image.split].update(
            images=1, negatives=not image.instances, instances=len(image.instances), refs=len(image.refs)
        )
        self._width.add(image.width)
        self._height.add(image.height)
        self._sizes.add((image.width, image.height))
        for number in set(image.categories.values()):
            self._labels[number].images += 1
        people = [str(instance.provenance.get("completed_by") or "unknown") for instance in image.instances]
        for name in people:
            self._annotators[name]["instances"] += 1
        for name in set(people):
            self._annotators[name]["images"] += 1

    def _instances(self, image: DatasetImage) -> Iterator[Finding]:
        for instance in image.instances:
            label, area = self._labels[instance.category], instance.area
            share = area / (image.width * image.height)
            label.objects[image.split] += 1
            label.sizes["small" if area < _SMALL else "medium" if area < _MEDIUM else "large"] += 1
            label.area.add(share)
            label.share.add(share)
            yield from self._masks.add(image, instance, label.category.name)

    def _overlap(self, image: DatasetImage, overlap: Overlap) -> Finding:
        first, second = sorted(self._name(instance) for instance in (overlap.first, overlap.second))
        self._overlapping.add((first, second))
        about = {"labels": [first, second], "share": round(overlap.share, 4), "iou": round(overlap.iou, 4)}
        if overlap.is_duplicate:
            return Finding("duplicate", image.number, -overlap.iou, about)
        return Finding("overlap", image.number, -overlap.share, about)

    def _refs(self, image: DatasetImage) -> Iterator[Finding]:
        for ref in image.refs:
            measured = self._prompts.add(ref)
            for number in {image.categories[instance] for instance in ref.instances}:
                self._labels[number].refs += 1
                if measured is not None:
                    self._labels[number].iou.add(measured)
            if measured is not None and measured < LOW_IOU:
                about = {"prompt": ref.raw, "iou": measured, "origin": ref.told.get("origin", "unknown")}
                yield Finding("low IoU", image.number, measured, about)

    def _name(self, instance: Instance) -> str:
        return self._labels[instance.category].category.name


class _Masks:
    """Of all masks: where they come from, and what they are like."""

    def __init__(self, polygon_tolerance: float | None) -> None:
        self._origins, self._shapes, self._parts = Counter[str](), Counter[str](), Counter[str]()
        self._most_parts = 0
        self._tolerance = polygon_tolerance
        self._polygons, self._worst_polygon, self._changed = Mean(), 1.0, 0

    def add(self, image: DatasetImage, instance: Instance, label: str) -> Iterator[Finding]:
        """Take one; what was found."""
        self._origins[str(instance.provenance.get("origin") or "unknown")] += 1
        self._shapes["consensus"] += "consensus" in instance.provenance
        self._shapes[str(instance.provenance.get("shape") or "mask")] += 1
        mask = instance.mask()
        shape = shape_of(mask)
        self._parts.update({"several parts": shape.parts > 1, "holes": shape.holes > 0, "specks": shape.specks > 0})
        self._most_parts = max(self._most_parts, shape.parts)
        self._polygon(mask)
        if instance.area < TINY:
            kind: FindingKind = "tiny" if instance.area else "empty"
            yield Finding(kind, image.number, instance.area, {"label": label, "pixels": instance.area})
        if shape.specks:
            about = {"label": label, "parts": shape.parts, "specks": shape.specks}
            yield Finding("specks", image.number, -shape.specks, about)

    def as_json(self) -> Json:
        shapes = dict(sorted(self._shapes.items()))
        return {
            "origins": dict(sorted(self._origins.items())),
            "consensus": shapes.pop("consensus", 0),
            "shapes": shapes,
            "several_parts": self._parts["several parts"],
            "most_parts": self._most_parts,
            "holes": self._parts["holes"],
            "specks": self._parts["specks"],
            "area_edges": list(AREA_EDGES),
            "polygons": self._polygons_as_json(),
        }

    def _polygon(self, mask: Mask) -> None:
        if self._tolerance is None:
            return
        rings = [ring.ravel().tolist() for ring in outlines(mask, self._tolerance)]
        read_back = segmentation_to_mask(rings, *mask.shape)
        kept = iou(mask, read_back)
        self._polygons.add(kept)
        self._worst_polygon = min(self._worst_polygon, kept)
        self._changed += int((mask != read_back).sum())

    def _polygons_as_json(self) -> Json | None:
        if self._tolerance is None:
            return None
        return {
            "tolerance": self._tolerance,
            "mean_iou": self._polygons.value,
            "worst_iou": round(self._worst_polygon, 4),
            "changed_pixels": self._changed,
        }


class _Prompts:
    """Of all sentences: what they mean, how they are worded, and how the predictions for them were taken."""

    def __init__(self) -> None:
        self._sentences, self._words = Frequent[str](), Frequent[str]()
        self._lengths, self._length = Histogram(WORD_EDGES), Mean()
        self._targets = Counter[str]()
        self._origins, self._ious = Counter[str](), defaultdict[str, Mean](Mean)
        self._all, self._spread = Mean(), Histogram(IOU_EDGES)

    def add(self, ref: Ref) -> float | None:
        """Take one; the IoU of the prediction for it, where that is known."""
        words = ref.sentence.split()
        self._sentences.add(ref.sentence)
        for word in words:
            self._words.add(word)
        self._lengths.add(len(words))
        self._length.add(len(words))
        self._targets[("none", "one", "several")[min(len(ref.instances), 2)]] += 1
        origin = str(ref.told.get("origin") or "unknown")
        self._origins[origin] += 1
        measured: Any = ref.told.get("iou")
        if measured is None:
            return None
        for tally in (self._ious[origin], self._all, self._spread):
            tally.add(measured)
        return float(measured)

    def as_json(self) -> Json:
        return {
            "distinct": self._sentences.distinct,
            "exact": self._sentences.is_exact and self._words.is_exact,
            "frequent": [{"prompt": text, "refs": count} for text, count in self._sentences.first(_FREQUENT)],
            "frequent_words": [{"word": text, "count": count} for text, count in self._words.first(_FREQUENT)],
            "mean_words": self._length.value,
            "words": self._lengths.counts,
            "word_edges": list(WORD_EDGES),
            "targets": {what: self._targets[what] for what in ("one", "several", "none")},
            "by_origin": {
                origin: {"refs": count, "compared": self._ious[origin].count, "mean_iou": self._ious[origin].value}
                for origin, count in sorted(self._origins.items())
            },
            "compared": self._all.count,
            "mean_iou": self._all.value,
            "ious": self._spread.counts,
            "iou_edges": list(IOU_EDGES),
        }


def split_order(split: str) -> tuple[int, str]:
    """train, val, test, then any other by name."""
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
