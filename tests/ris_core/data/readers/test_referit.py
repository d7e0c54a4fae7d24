"""ReferIt as papers on segmentation use it: a region is 0 in its mask file, which is read when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import HEIGHT, WIDTH, write_referit
from scipy.io import savemat

from ris_core.data import read_dataset
from ris_core.errors import DatasetError

QUERIES = {"112_3": ["sky", "blue sky "], "113_1": ["the people"]}


def read(root: Path, kind: str = "referit/trainval", split: str | None = "test") -> list[Any]:
    return read_dataset(f"{kind}:{root}", split)


def test_exact_values(tmp_path: Path) -> None:
    write_referit(tmp_path, test=QUERIES)
    labels = np.ones((HEIGHT, WIDTH), np.uint8)
    labels[:3, 2:] = 0
    savemat(tmp_path / "mask" / "112_3.mat", {"segimg_t": labels})
    samples = read(tmp_path)
    assert [(s.image_id, s.ref_id, s.sentence) for s in samples] == [
        (112, 1, "sky"),
        (112, 1, "blue sky "),
        (113, 2, "the people"),
    ]
    assert samples[0].image == tmp_path / "images" / "112.jpg"
    assert (samples[0].height, samples[0].width) == (HEIGHT, WIDTH)
    assert (samples[0].mask() == (labels == 0)).all() and int(samples[0].mask().sum()) == 30
    assert all(s.has_target and s.split == "test" for s in samples)


def test_masks_are_read_when_asked_for(tmp_path: Path) -> None:
    _, _, sample = read(write_referit(tmp_path, test=QUERIES))
    with pytest.raises(DatasetError, match=r"113_1\.mat is missing"):
        sample.mask()
    savemat(tmp_path / "mask" / "113_1.mat", {"segimg_t": np.zeros((WIDTH, HEIGHT))})
    with pytest.raises(DatasetError, match=r"113_1\.mat is 12 x 10, its photo 10 x 12"):
        sample.mask()
    savemat(tmp_path / "mask" / "113_1.mat", {"segimg_t": np.zeros((HEIGHT, WIDTH))})
    assert sample.mask().all()


def test_the_older_names_of_regions(tmp_path: Path) -> None:
    old = {f"{region}.png": sentences for region, sentences in QUERIES.items()}
    assert read(write_referit(tmp_path / "old", test=old))[0].segmentations[0].path.name == "112_3.mat"


def test_both_ways_to_split(tmp_path: Path) -> None:
    parts = {"train": {"112_1": ["a"]}, "val": {"112_2": ["b"]}, "trainval": {"112_1": ["a"], "112_2": ["b"]}}
    write_referit(tmp_path, test={"113_1": ["c"]}, **parts)
    whole = [(s.split, s.sentence) for s in read(tmp_path, split=None)]
    assert whole == [("train", "a"), ("train", "b"), ("test", "c")]
    parted = [(s.split, s.sentence) for s in read(tmp_path, "referit/train", None)]
    assert parted == [("train", "a"), ("val", "b"), ("test", "c")]


@pytest.mark.parametrize(("queries", "pictures"), [("", "referit"), ("data", "referit-dataset")])
def test_where_other_repositories_keep_it(tmp_path: Path, queries: str, pictures: str) -> None:
    write_referit(tmp_path / pictures, test=QUERIES)
    (tmp_path / queries).mkdir(exist_ok=True)
    name = "referit_query_test.json"
    (tmp_path / pictures / name).rename(tmp_path / queries / name)
    assert read(tmp_path)[0].image == tmp_path / pictures / "images" / "112.jpg"


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"lacks images/, mask/, referit_query_trainval\.json\. It has to hold\n"):
        read(tmp_path, split="train")
    write_referit(tmp_path, test={"114_1": ["it"]})
    with pytest.raises(DatasetError, match=r"114\.jpg can't be read"):
        read(tmp_path)


@pytest.mark.parametrize("bad", [{"photo_1": ["it"]}, {"112_1": 7}, ["112_1"]], ids=str)
def test_queries_that_arent(tmp_path: Path, bad: Any) -> None:
    write_referit(tmp_path, test=bad)
    with pytest.raises(DatasetError, match=r"photo\.jpg can't be read|isn't a file of ReferIt's queries"):
        read(tmp_path)
