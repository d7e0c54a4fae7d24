"""The figures of a report against a naive computation over decoded masks, with other libraries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from backend.datasets.dataset import Category, DatasetImage, Instance, Ref
from backend.datasets.report.figures import AREA_EDGES, Figures
from backend.datasets.report.mask_checks import overlaps, shape_of
from backend.datasets.report.tallies import Frequent, Histogram, Worst
from ris_core.masks import Mask, encode_rle

CATEGORIES = (Category(1, "cat", "brush"), Category(4, "big dog", "brush"), Category(9, "cup", "brush"))
NAMES = {category.number: category.name for category in CATEGORIES}
SPLITS = ("train", "val", "test")

masks = arrays(np.bool_, (9, 12), elements=st.booleans()) | arrays(
    np.bool_, (9, 12), elements=st.sampled_from([True] * 9 + [False])
)


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_parts_and_holes_are_those_that_scipy_labels(mask: Mask) -> None:
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    outside = np.pad(~mask, 1, constant_values=True)
    _, empty = ndimage.label(outside)
    sizes = ndimage.sum_labels(mask, parts, range(1, count + 1))
    shape = shape_of(mask)
    assert (shape.parts, shape.holes) == (count, empty - 1 if count else 0)
    assert shape.specks == (sum(size < 16 for size in sizes) if count > 1 else 0)


@given(st.lists(st.tuples(masks, st.sampled_from([1, 4]), st.sampled_from([7, 8])), max_size=6))
def test_overlaps_are_those_of_the_pixels(drawn: list[tuple[Mask, int, int]]) -> None:
    instances = [
        Instance(number, category, encode_rle(mask), {"annotation": annotation})
        for number, (mask, category, annotation) in enumerate(drawn)
    ]
    expected = {}
    for one, other in combinations(range(len(drawn)), 2):
        first, second = drawn[one][0], drawn[other][0]
        shared, smaller = (first & second).sum(), min(first.sum(), second.sum())
        if drawn[one][2] == drawn[other][2] and smaller and shared / smaller >= 0.5:
            iou = shared / (first | second).sum()
            expected[one, other] = (shared / smaller, iou, drawn[one][1] == drawn[other][1] and iou >= 0.8)
    told = {
        (overlap.first.number, overlap.second.number): (overlap.share, overlap.iou, overlap.is_duplicate)
        for overlap in overlaps(instances)
    }
    assert told.keys() == expected.keys()
    for pair, values in told.items():
        assert values == pytest.approx(expected[pair])


def test_many_masks_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    instances = [Instance(number, 1, encode_rle(generator.random((8, 8)) < 0.8), {}) for number in range(50)]
    whole = list(overlaps(instances))
    monkeypatch.setattr("backend.datasets.report.mask_checks._ROWS", 7)
    assert list(overlaps(instances)) == whole
    assert len(whole) == 50 * 49 // 2


def an_instance(draw: st.DrawFn, number: int) -> Instance:
    provenance: dict[str, Any] = {
        "annotation": draw(st.sampled_from([70, 71])),
        "origin": draw(st.sampled_from(["manual", "prediction", "prediction-changed", None])),
        "completed_by": draw(st.sampled_from([1, 2, None])),
    }
    provenance |= draw(st.sampled_from([{}, {"shape": "rectangle"}, {"consensus": [1, 2]}]))
    return Instance(number, draw(st.sampled_from(list(NAMES))), encode_rle(draw(masks)), provenance)


@st.composite
def pictures(draw: st.DrawFn) -> list[DatasetImage]:
    images = []
    for task in range(1, draw(st.integers(0, 5)) + 1):
        instances = tuple(an_instance(draw, 100 * task + number) for number in range(draw(st.integers(0, 4))))
        numbers = st.lists(st.sampled_from([row.number for row in instances] or [0]), unique=True, max_size=3)
        refs = []
        for number in range(draw(st.integers(0, 3))):
            sentence = draw(st.sampled_from(["the cat", "cup", "a very big dog on the left", "x"]))
            iou = draw(st.none() | st.integers(0, 100))
            told = {} if iou is None else {"iou": iou / 100, "origin": draw(st.sampled_from(["accepted", "corrected"]))}
            refs.append(Ref(number, sentence, sentence.title(), tuple(draw(numbers)) if instances else (), told))
        split = draw(st.sampled_from(SPLITS))
        images.append(DatasetImage(task, f"{task}.png", Path("no"), 12, 9, "", split, instances, tuple(refs)))
    return images


def figures_of(images: Sequence[DatasetImage], tolerance: float | None = None) -> dict[str, Any]:
    figures = Figures(CATEGORIES, tolerance)
    for image in images:
        figures.add(image)
    return figures.as_json()


def mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def near(value: float | None, expected: float | None) -> bool:
    return value == expected if expected is None or value is None else abs(value - expected) < 2e-4


@settings(max_examples=50)
@given(pictures())
def test_figures_are_those_of_a_naive_count(images: list[DatasetImage]) -> None:
    figures = figures_of(images)
    rows = [(image, instance) for image in images for instance in image.instances]
    refs = [(image, ref) for image in images for ref in image.refs]
    assert figures["counts"] == {
        "images": len(images),
        "negatives": sum(image.instances == () for image in images),
        "instances": len(rows),
        "refs": len(refs),
    }
    for split in {image.split for image in images}:
        counts = figures["by_split"][split]
        assert counts["images"] == sum(image.split == split for image in images)
        assert counts["instances"] == sum(image.split == split for image, _ in rows)
        assert counts["refs"] == sum(image.split == split for image, _ in refs)
    assert list(figures["by_split"]) == [split for split in SPLITS if split in figures["by_split"]]
    for label in figures["labels"]:
        check_label(label, images)
    masks = figures["masks"]
    assert Counter(masks["origins"]) == Counter(row.provenance["origin"] or "unknown" for _, row in rows)
    assert masks["consensus"] == sum("consensus" in row.provenance for _, row in rows)
    assert masks["shapes"].get("rectangle", 0) == sum("shape" in row.provenance for _, row in rows)
    assert masks["several_parts"] == sum(ndimage.label(row.mask(), np.ones((3, 3)))[1] > 1 for _, row in rows)
    filled = [ndimage.binary_fill_holes(row.mask()) for _, row in rows]
    assert masks["holes"] == sum((full != row.mask()).any() for full, (_, row) in zip(filled, rows, strict=True))
    people = Counter(str(row.provenance["completed_by"] or "unknown") for _, row in rows)
    assert {name: counts["instances"] for name, counts in figures["annotators"].items()} == people
    check_prompts(figures["prompts"], [ref for _, ref in refs])
    sizes = Counter("tiny" if row.area else "empty" for _, row in rows if row.mask().sum() < 16)
    for kind in ("tiny", "empty"):
        assert figures["findings"].get(kind, {"count": 0})["count"] == sizes[kind]
    assert json.loads(json.dumps(figures)) == figures


def check_label(label: dict[str, Any], images: Sequence[DatasetImage]) -> None:
    own = [(image, row) for image in images for row in image.instances if row.category == label["number"]]
    assert label["name"] == NAMES[label["number"]]
    assert label["instances"] == len(own)
    assert label["images"] == len({image.number for image, _ in own})
    assert Counter(label["by_split"]) == Counter(image.split for image, _ in own)
    shares = [row.mask().mean() for _, row in own]
    counts, _ = np.histogram(shares, [0, *AREA_EDGES, 2])
    assert label["area_shares"] == counts.tolist()
    assert near(label["mean_area_share"], mean(shares))
    assert label["sizes"]["small"] == len(own)
    numbers = {row.number for _, row in own}
    meaning = [ref for image in images for ref in image.refs if numbers & set(ref.instances)]
    assert label["refs"] == len(meaning)
    assert near(label["mean_iou"], mean([ref.told["iou"] for ref in meaning if "iou" in ref.told]))


def check_prompts(prompts: dict[str, Any], refs: Sequence[Ref]) -> None:
    assert prompts["distinct"] == len({ref.sentence for ref in refs})
    assert {row["prompt"]: row["refs"] for row in prompts["frequent"]} == Counter(ref.sentence for ref in refs)
    assert near(prompts["mean_words"], mean([len(ref.sentence.split(" ")) for ref in refs]))
    assert sum(prompts["words"]) == len(refs)
    assert prompts["words"][1] == sum(" " not in ref.sentence for ref in refs)
    assert prompts["targets"] == {
        "one": sum(len(ref.instances) == 1 for ref in refs),
        "several": sum(len(ref.instances) > 1 for ref in refs),
        "none": sum(not ref.instances for ref in refs),
    }
    for origin, row in prompts["by_origin"].items():
        ious = [ref.told["iou"] for ref in refs if ref.told.get("origin", "unknown") == origin and "iou" in ref.told]
        assert (row["compared"], near(row["mean_iou"], mean(ious))) == (len(ious), True)
    ious = [ref.told["iou"] for ref in refs if "iou" in ref.told]
    assert prompts["ious"] == np.histogram(ious, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 2])[0].tolist()


def box(height: int, width: int, *sides: int) -> Mask:
    mask = np.zeros((height, width), np.bool_)
    top, left, bottom, right = sides
    mask[top:bottom, left:right] = True
    return mask


def with_masks(*drawn: tuple[int, Mask], task: int = 1) -> DatasetImage:
    instances = tuple(
        Instance(10 * task + number, category, encode_rle(mask), {}) for number, (category, mask) in enumerate(drawn)
    )
    height, width = drawn[0][1].shape
    return DatasetImage(task, "a.png", Path("no"), width, height, "", "train", instances, ())


def test_what_is_found_names_the_task_and_the_worst_comes_first() -> None:
    images = [
        with_masks((1, box(200, 200, 0, 0, 3, 5)), (4, box(200, 200, 50, 50, 150, 150)), task=1),
        with_masks((1, box(200, 200, 0, 0, 1, 2)), (1, box(200, 200, 0, 0, 100, 90)), task=2),
        with_masks((4, box(200, 200, 0, 0, 100, 100)), (4, box(200, 200, 0, 0, 100, 99)), task=3),
    ]
    findings = figures_of(images)["findings"]
    assert [(row["task"], row["pixels"], row["label"]) for row in findings["tiny"]["listed"]] == [
        (2, 2, "cat"),
        (1, 15, "cat"),
    ]
    assert findings["overlap"]["listed"] == [{"task": 2, "labels": ["cat", "cat"], "share": 1.0, "iou": 0.0002}]
    assert findings["duplicate"] == {
        "count": 1,
        "listed": [{"task": 3, "labels": ["big dog", "big dog"], "share": 1.0, "iou": 0.99}],
    }


def test_two_people_who_drew_the_same_thing_didnt_draw_it_twice() -> None:
    image = with_masks((1, box(50, 50, 5, 5, 40, 40)), (1, box(50, 50, 5, 5, 40, 40)))
    assert figures_of([image])["findings"]["duplicate"]["count"] == 1
    people = tuple(
        replace(row, provenance={"annotation": number}) for number, row in enumerate(image.instances, start=1)
    )
    assert figures_of([replace(image, instances=people)])["findings"] == {}


def test_what_polygons_cost_is_measured_at_their_tolerance() -> None:
    disc = np.hypot(*(np.indices((80, 80)) - 40)) < 30
    image = with_masks((1, disc))
    assert figures_of([image])["masks"]["polygons"] is None
    exact = figures_of([image], 0.0)["masks"]["polygons"]
    assert exact == {"tolerance": 0.0, "mean_iou": 1.0, "worst_iou": 1.0, "changed_pixels": 0}
    coarse = figures_of([image], 3.0)["masks"]["polygons"]
    assert 0.8 < coarse["worst_iou"] == coarse["mean_iou"] < 1
    assert coarse["changed_pixels"] > 0


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.integers(1, 4))
def test_frequent_things_are_counted_exactly_as_long_as_they_fit(keys: list[str], most: int) -> None:
    frequent = Frequent[str](most)
    for key in keys:
        frequent.add(key)
    exact = Counter(keys)
    assert len(frequent.counts) <= 2 * most
    assert all(count <= exact[key] for key, count in frequent.counts.items())
    if frequent.is_exact:
        assert frequent.counts == exact
        assert frequent.distinct == len(exact)
    else:
        assert frequent.distinct is None
        assert len(exact) > 2 * most


@given(st.lists(st.integers(-3, 3)), st.integers(1, 5))
def test_the_worst_are_the_first_of_all_in_order(values: list[int], most: int) -> None:
    worst = Worst(most)
    for number, value in enumerate(values):
        worst.add(value, number)
    assert worst.things() == sorted(range(len(values)), key=lambda number: values[number])[:most]
    assert worst.count == len(values)


def test_a_histogram_counts_an_edge_with_what_is_above() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 0.999, 1, 1.5, 2, 7):
        histogram.add(value)
    assert histogram.counts == [2, 2, 2]
