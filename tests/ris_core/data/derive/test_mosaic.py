"""Two photos in one picture: what is labelled lies where it shows, and nothing of a held-out photo does."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ris_core.data import read_folder, split_of
from ris_core.data.derive.choices import Thing
from ris_core.data.derive.convert import convert_coco_names
from ris_core.data.derive.mosaic import MosaicScene, draw_pairs, join_scenes
from ris_core.data.derive.words import noun

BOX = {"dog": (40, 80, 30, 70), "cup": (85, 95, 100, 115)}


def scene(colour: int, size: tuple[int, int] = (120, 160), **boxes: tuple[int, int, int, int]) -> MosaicScene:
    """A grey photo on which each thing has a brightness of its own; boxes: top, bottom, left, right."""
    image, things = np.full((*size, 3), colour, np.uint8), []
    for number, (name, (top, bottom, left, right)) in enumerate(boxes.items(), 1):
        mask = np.zeros(size, bool)
        mask[top:bottom, left:right] = True
        image[mask] = colour + 40 * number
        things.append(Thing(name, mask, noun(name)))
    return MosaicScene(image, tuple(things), frozenset())


@pytest.mark.parametrize("seed", range(12))
def test_each_mask_covers_its_own_pixels(seed: int) -> None:
    joined = join_scenes(scene(10, **BOX), scene(130, (200, 150), **BOX), "dog", random.Random(seed))
    assert joined is not None
    assert joined.image.shape == (120, 160, 3)
    dogs = [thing.mask for thing in joined.things if thing.name == "dog"]
    assert sorted(int(np.median(joined.image[dog])) for dog in dogs) == [50, 170]
    for thing in joined.things:
        # Enlarging blends a pixel at the edges.
        assert np.ptp(joined.image[thing.mask].astype(int)) <= 120 and thing.mask.shape == (120, 160)
    assert not np.logical_and.reduce([thing.mask for thing in joined.things]).any()


def test_the_same_randomness_gives_the_same() -> None:
    first, second = (join_scenes(scene(10, **BOX), scene(130, **BOX), "dog", random.Random(3)) for _ in range(2))
    assert first is not None and second is not None
    assert np.array_equal(first.image, second.image)
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.things, second.things, strict=True))


def test_what_is_nearly_cut_off_makes_its_class_unsure() -> None:
    """Side by side a window shows half of the width: of a cup that begins at its very edge, a sliver."""
    for seed in range(40):
        wide = scene(10, dog=(40, 80, 0, 40), cup=(40, 80, 60, 160))
        joined = join_scenes(wide, wide, "dog", random.Random(seed))
        if joined is None or "cup" not in joined.unsure:
            continue
        assert "dog" not in joined.unsure
        return
    pytest.fail("no window cut the cup off")


def test_nothing_is_joined_where_the_shared_thing_is_tiny() -> None:
    assert join_scenes(scene(10, **BOX), scene(90, dog=(10, 13, 10, 13)), "dog", random.Random(0)) is None


def test_pairs_share_a_class_of_few_things() -> None:
    classes = [["dog"], ["dog", "cup"], ["cup", "cup", "cup"], ["bird"], ["dog", "dog"]]
    drawn = list(draw_pairs(classes, 50))
    assert len(drawn) == 50 and drawn == list(draw_pairs(classes, 50))
    assert {name for _, _, name in drawn} == {"dog"}
    assert all(first != second and {first, second} <= {0, 1, 4} for first, second, _ in drawn)
    assert list(draw_pairs([["dog"], ["cup"]], 5)) == []


def test_mosaics_are_of_training_photos_alone(tmp_path: Path) -> None:
    source = tmp_path / "coco"
    (source / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 31):
        name, training = f"{number:03d}.jpg", split_of(f"{number:03d}.jpg") == "train"
        Image.new("RGB", (96, 64), (0, 200, 0) if training else (200, 0, 0)).save(source / "images" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": 96})
        outline = [30, 20, 60, 20, 60, 50, 30, 50]
        annotation = {"id": number, "image_id": number, "category_id": 1, "segmentation": [outline]}
        annotations.append(annotation | {"area": 900, "bbox": [30, 20, 30, 30], "iscrowd": 0})
    tables = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dog"}]}
    (source / "instances.json").write_text(json.dumps(tables))
    assert {split_of(image["file_name"]) for image in images} == {"train", "val", "test"}

    convert_coco_names(source, tmp_path / "out", mosaics=20)

    made = [sample for sample in read_folder(tmp_path / "out") if sample.image.name.startswith("mosaic-")]
    assert len({sample.image for sample in made}) == 20
    assert {sample.split for sample in made} == {"train"}
    assert {"derived", "plural"} <= {sample.kind for sample in made}
    for sample in made:
        assert sample.photo()[..., 0].max() < 50
