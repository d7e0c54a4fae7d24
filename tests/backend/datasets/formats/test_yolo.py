"""YOLO's layout, read by ultralytics itself, and by a reader of its own that fills polygons as ultralytics does."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from made_dataset import SPLITS, made_dataset, made_image, written
from scipy import ndimage

from backend.datasets.dataset import Category, DatasetImage
from backend.datasets.export import export_dataset
from backend.datasets.formats.one_polygon import one_polygon
from backend.datasets.formats.options import ExportOptions
from ris_core.images import read_image

TOGETHER = np.ones((3, 3))
GAPS = "gaps between an object's parts, which lines bridge"
official = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="ultralytics isn't here: `make test` installs it"
)


def filled(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """As ultralytics' `polygon2mask`: cut down to whole pixels, then OpenCV's fill."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [polygon.astype(np.int32)], 1)
    return mask.astype(bool)


def labels(path: Path, height: int, width: int) -> list[tuple[int, np.ndarray]]:
    """The lines of a label file, checked as ultralytics does, to its tolerance and beyond: class and mask."""
    found = []
    for line in path.read_text("ascii").splitlines():
        number, *shares = line.split()
        points = np.array(shares, np.float32).reshape(-1, 2)
        assert len(points) >= 3
        assert np.isfinite(points).all()
        assert points.min() >= 0
        assert points.max() <= 1
        found.append((int(number), filled(points * np.array([width, height], np.float32), height, width)))
    return found


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


some_mask = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24)).filter(np.any)


@settings(deadline=None, max_examples=300)
@given(some_mask)
def test_a_mask_of_one_part_is_exact_whatever_its_holes(mask: np.ndarray) -> None:
    parts, count = ndimage.label(mask, TOGETHER)
    for number in range(1, count + 1):
        part = parts == number
        assert np.array_equal(filled(one_polygon(part), *mask.shape), part)


@settings(deadline=None, max_examples=300)
@given(some_mask)
def test_of_several_parts_nothing_is_lost_and_lines_between_them_are_gained(mask: np.ndarray) -> None:
    height, width = mask.shape
    polygon = one_polygon(mask)
    covered = filled(polygon, height, width)
    assert covered[mask].all()
    _, count = ndimage.label(mask, TOGETHER)
    _, joined = ndimage.label(covered, TOGETHER)
    assert joined == 1
    assert (covered & ~mask).sum() <= (count - 1) * max(height, width)
    assert ((polygon > 0) & (polygon < [width, height])).all()


@settings(deadline=None, max_examples=100)
@given(mask=some_mask, tolerance=st.floats(0.1, 8))
def test_simplified_polygons_stay_polygons(mask: np.ndarray, tolerance: float) -> None:
    height, width = mask.shape
    exact, simple = one_polygon(mask), one_polygon(mask, tolerance)
    assert 3 <= len(simple) <= len(exact)
    assert cv2.contourArea(simple.astype(np.float32)) > 0
    assert ((simple > 0) & (simple < [width, height])).all()


def test_bridges_take_the_shortest_straight_way() -> None:
    mask = np.zeros((9, 30), bool)
    mask[1:8, 1:8] = mask[1:8, 10:17] = mask[4, 25] = True
    covered = filled(one_polygon(mask), 9, 30)
    assert (covered & ~mask).sum() == 2 + 8
    # No row and no column meets both.
    apart = np.eye(7, dtype=bool)[::2]
    assert (filled(one_polygon(np.kron(apart, [[True, False]])), 4, 14)).sum() >= 4


def test_any_mask_takes_time_in_proportion_to_its_outline() -> None:
    """Specks by the thousand: comparing each with each would take minutes."""
    mask = np.random.default_rng(0).random((600, 800)) < 0.02
    assert filled(one_polygon(mask), 600, 800)[mask].all()
    diagonal = np.zeros((1200, 1200), bool)
    diagonal[np.arange(0, 1200, 2), np.arange(0, 1200, 2)] = True
    assert filled(one_polygon(diagonal), 1200, 1200)[diagonal].all()


def ring(height: int, width: int, seed: int) -> np.ndarray:
    """A ring, which may touch the border."""
    row, column = np.random.default_rng(seed).integers(0, [height, width])
    distance = np.hypot(*np.ogrid[-row : height - row, -column : width - column][::-1])
    radius = 5 + seed % 13
    return np.asarray((distance < radius) & (distance >= radius / 3))


def hard_images(folder: Path) -> list[DatasetImage]:
    """Of all splits: rings, one pixel, lines at the border, everything, and nothing."""
    height, width = 48, 64
    pixel, line, whole = (np.zeros((height, width), bool) for _ in range(3))
    pixel[47, 63] = line[0] = whole[:] = True
    column = np.zeros((height, width), bool)
    column[:, 63] = True
    images = [
        made_image(
            n, [ring(height, width, 3 * n + m) for m in range(3)], folder, split=SPLITS[n % 3], name=f"{n} a.b.png"
        )
        for n in range(1, 7)
    ]
    hard = [pixel, line, column, whole, ring(height, width, 40)]
    images.append(made_image(7, hard, folder, categories=[9, 9, 2, 5, 2], name="7.jpeg", kind="JPEG"))
    images.append(made_image(8, [], folder, size=(height, width), name="8.gif", kind="GIF", refs={"nothing": ()}))
    return images


def test_a_folder_for_a_reader_of_its_own(tmp_path: Path) -> None:
    images = hard_images(tmp_path)
    left_out = written("yolo", made_dataset(images), tmp_path / "out")
    assert left_out == {"expressions for which it has no place": 1}
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text("utf-8"))
    assert data == {
        **{split: f"images/{split}" for split in SPLITS},
        "names": {0: "cat", 1: "große Katze", 2: "cup"},
        "category_ids": {0: 2, 1: 5, 2: 9},
    }
    pictures = sorted(path.name for path in (tmp_path / "out" / "images").rglob("*.*"))
    assert pictures == [*(f"{n} a.b.png" for n in range(1, 7)), "7.jpeg", "8.png"]
    for image in images:
        path = tmp_path / "out" / "labels" / image.split / f"{Path(image.file_name).stem}.txt"
        found = labels(path, image.height, image.width)
        assert len(found) == len(image.instances)
        for (number, mask), instance in zip(found, image.instances, strict=True):
            assert data["category_ids"][number] == instance.category
            assert np.array_equal(mask, instance.mask())
    assert (tmp_path / "out" / "labels" / "train" / "8.txt").read_bytes() == b""
    assert np.array_equal(read_image(tmp_path / "out" / "images" / "train" / "8.png"), read_image(images[-1].path))


def test_gaps_are_counted_and_what_polygons_cost_is_little(tmp_path: Path) -> None:
    whole = [ring(240, 320, seed) for seed in range(30)]
    halves = [mask & ~(np.abs(np.arange(320) - np.nonzero(mask)[1].mean()) < 2) for mask in whole]
    images = [made_image(n, drawn, tmp_path) for n, drawn in enumerate((whole, halves))]
    costs = {}
    for tolerance in (0.0, 1.0):
        out = tmp_path / str(tolerance)
        left_out = written("yolo", made_dataset(images), out, ExportOptions("leave", tolerance))
        for image in images:
            found = labels(out / "labels" / "train" / f"{image.number}_photo.txt", 240, 320)
            pairs = zip(found, image.instances, strict=True)
            costs[tolerance, image.number] = np.mean([iou(mask, instance.mask()) for (_, mask), instance in pairs])
    assert left_out[GAPS] == sum(ndimage.label(mask, TOGETHER)[1] - 1 for mask in (*whole, *halves)) > 20
    assert costs[0.0, 0] == 1
    assert costs[0.0, 1] > 0.97
    assert costs[1.0, 0] > 0.85
    assert not (tmp_path / "0.0" / "images").exists()


@pytest.mark.parametrize(("splits", "val"), [(["train"], "train"), (["train", "test"], "test"), (["val"], "val")])
def test_where_no_picture_fell_to_val_others_stand_in_and_data_yaml_says_so(
    tmp_path: Path, splits: Sequence[str], val: str
) -> None:
    images = [made_image(n, [], tmp_path, split=split) for n, split in enumerate(splits)]
    names = [Category(1, 'a "b": {c}', ""), Category(2, "#no: 'x' \\ 😀", "")]
    written("yolo", made_dataset(images, names), tmp_path / "out")
    text = (tmp_path / "out" / "data.yaml").read_text("utf-8")
    data = yaml.safe_load(text)
    assert data["val"] == f"images/{val}"
    assert ("No picture fell to val" in text) == (val != "val")
    assert list(data["names"].values()) == [category.name for category in names]


def run_official(folder: Path, result: Path, *options: str) -> dict[str, Any]:
    script = Path(__file__).with_name("official_yolo.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), str(folder), str(result), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(result, weights_only=False)
    return found


@official
def test_ultralytics_reads_every_mask_exactly_and_trains_wherever_the_folder_lies(tmp_path: Path) -> None:
    images = hard_images(tmp_path)
    dataset = made_dataset(images)
    export_dataset(dataset, tmp_path / "out", "yolo")
    moved = tmp_path / "moved and renamed"
    shutil.copytree(tmp_path / "out", moved)
    found = run_official(moved, tmp_path / "result.pt", "--train")
    assert found["names"] == {0: "cat", 1: "große Katze", 2: "cup"}
    assert {split: len(pictures) for split, pictures in found["pictures"].items()} == {"train": 4, "val": 2, "test": 2}
    for image in images:
        name = image.file_name.replace(".gif", ".png")
        check_read(found["pictures"][image.split][name], image)
    assert len(found["losses"]) >= 4
    assert all(np.isfinite(loss) for loss in found["losses"].values())
    assert found["losses"]["seg_loss"] > 0
    # It leaves caches beside the labels, which are no reason not to export again.
    run_official(tmp_path / "out", tmp_path / "again.pt")
    assert list((tmp_path / "out" / "labels").glob("*.cache"))
    export_dataset(dataset, tmp_path / "out", "yolo")
    assert not list((tmp_path / "out" / "labels").glob("*.cache"))


def check_read(read: Mapping[str, Any], image: DatasetImage) -> None:
    """Whether classes and masks are all there; they come in the order of the lines. Boxes end an eighth early."""
    index = {2: 0, 5: 1, 9: 2}
    assert read["classes"].tolist() == [index[instance.category] for instance in image.instances]
    assert np.abs(read["pixels"].astype(int) - read_image(image.path)).max() <= 3
    for mask, box, instance in zip(read["masks"], read["boxes"], image.instances, strict=True):
        assert np.array_equal(mask, instance.mask())
        corner, size = box[:2] - box[2:] / 2, box[2:]
        assert np.abs(np.concatenate([corner, size]) - instance.bbox).max() < 0.13


def test_a_pixel_of_a_very_wide_picture_is_found_again(tmp_path: Path) -> None:
    mask = np.zeros((3, 30_000), bool)
    mask[1, 29_999] = mask[2, 29_998] = True
    written("yolo", made_dataset([made_image(1, [mask], tmp_path)]), tmp_path / "out")
    [(_, read)] = labels(tmp_path / "out" / "labels" / "train" / "1_photo.txt", *mask.shape)
    assert np.array_equal(read, mask)
