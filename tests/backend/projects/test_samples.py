import io
import subprocess
import sys
from collections import Counter
from importlib import resources
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from backend.projects import samples
from backend.projects.samples import SampleMask, SamplesMissing, corrections, photos
from backend.projects.samples.sources import SOURCES
from ris_core.errors import RisError

LABELS = {"person", "cat", "cup", "rocket", "building", "flower", "sky", "other"}
MASKS = corrections()
NAMES = [f"{sample.photo}: {sample.prompts[0]}" for sample in MASKS]
each_mask = pytest.mark.parametrize("sample", MASKS, ids=NAMES)


def find(photo: str, prompt: str) -> SampleMask:
    [sample] = [sample for sample in MASKS if sample.photo == photo and prompt in sample.prompts]
    return sample


def test_photos_are_whole_files_of_the_stated_size() -> None:
    sizes = {}
    for name, data in photos():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            sizes[name] = (image.height, image.width)
            assert image.mode == ("L" if name == "camera.png" else "RGB")
    assert sizes == {name: source.size for name, source in SOURCES.items()}
    assert len(sizes) == 7


def test_photos_import_neither_package() -> None:
    code = """
import sys
from backend.projects.samples import photos
assert len(list(photos())) == 7
print(sorted({"skimage", "sklearn", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SOURCES", {"x.png": SimpleNamespace(package="no_such_package", folder="data")})
    with pytest.raises(SamplesMissing, match=r"x\.png .*pip install ris-studio\[samples\]") as caught:
        list(photos())
    assert isinstance(caught.value, RisError)


def test_a_missing_photo_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "SOURCES", {"no.png": SOURCES["camera.png"]})
    with pytest.raises(SamplesMissing, match=r"skimage is installed without no\.png"):
        list(photos())


def test_every_photo_has_masks_and_states_where_it_comes_from() -> None:
    assert {sample.photo for sample in MASKS} == set(SOURCES)
    assert all(source.author and source.licence for source in SOURCES.values())
    assert all(source.page.startswith("https://") for source in SOURCES.values())


def test_masks_file_is_small_and_flat() -> None:
    data = resources.files(samples).joinpath("masks.json").read_bytes()
    assert len(data) < 150_000
    assert b"." not in data.replace(b".png", b"").replace(b".jpg", b"")


def test_labels_are_the_projects_and_all_are_used() -> None:
    assert {sample.label for sample in MASKS} == LABELS


def test_prompts_are_sentences_and_mean_one_thing_in_a_photo() -> None:
    counts = Counter((sample.photo, prompt.casefold()) for sample in MASKS for prompt in sample.prompts)
    assert counts
    assert set(counts.values()) == {1}
    assert all(prompt == " ".join(prompt.split()) and prompt for _, prompt in counts)
    assert all(len(sample.prompts) >= 2 for sample in MASKS)


@each_mask
def test_outlines_lie_inside_the_photo(sample: SampleMask) -> None:
    height, width = SOURCES[sample.photo].size
    for outline in (*sample.polygons, *sample.holes):
        points = np.array(outline).reshape(-1, 2)
        assert len(points) >= 3
        assert points.min() >= 0
        assert points[:, 0].max() < width
        assert points[:, 1].max() < height


@each_mask
def test_mask_is_neither_empty_nor_everything(sample: SampleMask) -> None:
    mask = sample.mask()
    assert mask.dtype == np.bool_
    assert mask.shape == SOURCES[sample.photo].size
    assert 0.01 < mask.mean() < 0.8
    assert (mask == sample.mask()).all()


@each_mask
def test_holes_are_cut_out_of_what_was_covered(sample: SampleMask) -> None:
    covered = SampleMask(sample.photo, sample.label, sample.prompts, sample.polygons, ()).mask()
    cut = SampleMask(sample.photo, sample.label, sample.prompts, sample.holes, ()).mask()
    assert not (cut & ~covered).any()
    assert (sample.mask() == (covered & ~cut)).all()


def test_some_masks_have_holes() -> None:
    assert {"the table", "the temple", "the camera"} <= {sample.prompts[0] for sample in MASKS if sample.holes}


def test_overlapping_polygons_are_a_union_and_outlines_belong_to_what_they_bound() -> None:
    first, second, hole = (10, 10, 20, 10, 20, 20, 10, 20), (15, 15, 30, 15, 30, 30, 15, 30), (12, 12, 14, 12, 14, 14)
    mask = SampleMask("camera.png", "other", ("x",), (first, second), (hole,)).mask()
    assert mask[17, 17]
    assert mask[10, 10] and mask[30, 30]
    assert not mask[9, 10] and not mask[31, 30]
    assert not mask[12, 12] and not mask[14, 14] and mask[14, 12]
    assert mask.sum() == 11 * 11 + 16 * 16 - 6 * 6 - 6


@pytest.mark.parametrize(
    ("photo", "prompt", "inside", "outside"),
    [
        ("astronaut.png", "the woman", (225, 100), (400, 430)),
        ("astronaut.png", "the orange suit", (100, 350), (225, 100)),
        ("astronaut.png", "the space shuttle", (415, 60), (480, 60)),
        ("chelsea.png", "the cat", (260, 150), (420, 60)),
        ("coffee.png", "the cup", (210, 280), (120, 150)),
        ("coffee.png", "the spoon", (410, 85), (402, 165)),
        ("coffee.png", "the table", (550, 50), (290, 150)),
        ("rocket.jpg", "the rocket", (322, 300), (335, 300)),
        ("rocket.jpg", "the sky", (250, 100), (322, 300)),
        ("camera.png", "the man", (110, 490), (293, 250)),
        ("camera.png", "the camera", (290, 160), (325, 190)),
        ("china.jpg", "the temple", (200, 90), (106, 205)),
        ("china.jpg", "the sky", (450, 100), (450, 300)),
        ("flower.jpg", "the flower", (305, 222), (380, 410)),
    ],
)
def test_masks_cover_what_their_sentence_says(
    photo: str, prompt: str, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    mask = find(photo, prompt).mask()
    assert mask[inside[::-1]]
    assert not mask[outside[::-1]]


@pytest.mark.parametrize(
    ("photo", "part", "whole"),
    [
        ("astronaut.png", "the orange suit", "the woman"),
        ("astronaut.png", "the woman's head", "the woman"),
        ("chelsea.png", "the eyes", "the cat"),
        ("coffee.png", "the coffee", "the cup"),
        ("flower.jpg", "the flower", "the flowers"),
    ],
)
def test_a_part_lies_within_its_whole(photo: str, part: str, whole: str) -> None:
    inner, outer = find(photo, part).mask(), find(photo, whole).mask()
    assert (inner & ~outer).sum() < 0.005 * inner.sum()


@pytest.mark.parametrize(
    ("photo", "things"),
    [
        ("astronaut.png", ["the woman", "the flag", "the space shuttle", "the helmet"]),
        ("coffee.png", ["the cup", "the spoon", "the saucer", "the table"]),
        ("rocket.jpg", ["the rocket", "the sky"]),
        ("camera.png", ["the man", "the camera", "the sky", "the grass"]),
        ("china.jpg", ["the temple", "the sky", "the trees"]),
        ("flower.jpg", ["the flower", "the flower at the bottom"]),
    ],
)
def test_things_beside_each_other_do_not_overlap(photo: str, things: list[str]) -> None:
    layers = np.sum([find(photo, thing).mask() for thing in things], axis=0)
    assert layers.max() >= 1
    assert (layers > 1).mean() < 0.002
