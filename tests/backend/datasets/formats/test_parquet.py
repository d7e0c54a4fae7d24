"""Parquet, read by Hugging Face's `datasets`, and trained from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_dataset import CATEGORIES, HEIGHT, SPLITS, WIDTH, made_dataset, made_image, masks, written
from small_project import build, export_snapshot

from backend.datasets.dataset import Category, DatasetImage
from backend.datasets.export import export_dataset
from backend.datasets.formats import parquet
from backend.datasets.formats.options import ExportOptions
from ris_core.data import read_folder
from ris_core.errors import DatasetError
from ris_core.images import read_image

NAMES = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()


def loaded(folder: Path, cache: Path) -> Any:
    """All splits, as people load them."""
    import datasets

    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def check(row: dict[str, Any], image: DatasetImage) -> None:
    """Whether a row is all that a picture holds."""
    assert np.array_equal(np.asarray(row["image"]), read_image(image.path))
    assert (row["image_id"], row["file_name"], row["sha256"]) == (image.number, image.file_name, image.digest)
    assert (row["width"], row["height"]) == (image.width, image.height)
    objects = image.instances
    assert row["object_ids"] == [instance.number for instance in objects]
    assert row["category_ids"] == [instance.category for instance in objects]
    assert row["bboxes"] == [instance.bbox for instance in objects]
    assert row["areas"] == [instance.area for instance in objects]
    assert [json.loads(text) for text in row["provenance"]] == [instance.provenance for instance in objects]
    for mask, instance in zip(row["masks"], objects, strict=True):
        assert mask.mode == "1"
        assert np.array_equal(np.asarray(mask), instance.mask())
    assert row["prompt_ids"] == [ref.number for ref in image.refs]
    assert row["prompts"] == [ref.sentence for ref in image.refs]
    assert row["prompts_raw"] == [ref.raw for ref in image.refs]
    assert row["prompt_objects"] == [list(ref.instances) for ref in image.refs]
    assert [json.loads(text) for text in row["prompt_provenance"]] == [ref.told for ref in image.refs]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(masks, min_size=1, max_size=3),
    sentences=st.lists(st.text(st.characters(codec="utf-8"), max_size=9), unique=True, max_size=3),
)
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[np.ndarray]], sentences: list[str]
) -> None:
    import datasets

    folder = tmp_path_factory.mktemp("folder")
    images = [
        made_image(n, layers, folder, refs={text: tuple(range(len(layers)))[n - 1 :] for text in sentences})
        for n, layers in enumerate(drawn, 1)
    ]
    assert written("parquet", made_dataset(images), folder / "out") == {}
    # The columns' features from the files alone; `load_dataset` is slow, and has tests of its own below.
    table = pq.read_table(folder / "out" / "data" / "train-00000-of-00001.parquet")
    rows = datasets.Dataset(datasets.table.InMemoryTable(table))
    for row, image in zip(rows, images, strict=True):
        check(row, image)


def several(folder: Path, count: int = 9) -> list[DatasetImage]:
    noise = np.random.default_rng(0).random((count, 2, HEIGHT, WIDTH)) < 0.5
    said = {"the cat": (0,), "both": (0, 1), "a unicorn": ()}
    return [made_image(n, list(noise[n]), folder, split=SPLITS[n % 3], refs=said) for n in range(count)]


def test_load_dataset_finds_the_splits_and_decodes_pictures(tmp_path: Path) -> None:
    import datasets

    images = several(tmp_path)
    export_dataset(made_dataset(images), tmp_path / "out", "parquet")
    found = loaded(tmp_path / "out", tmp_path / "cache")
    assert {split: rows.num_rows for split, rows in found.items()} == dict.fromkeys(NAMES.values(), 3)
    for split, name in NAMES.items():
        for row, image in zip(found[name], [image for image in images if image.split == split], strict=True):
            check(row, image)
    labels = found["train"].features["categories"].feature
    assert labels.names == [category.name for category in CATEGORIES]
    assert labels.int2str(found["train"][0]["categories"]) == ["cat", "große Katze"]
    by_file = datasets.load_dataset(
        "parquet",
        data_files={"some": str(tmp_path / "out" / "data" / "validation-*.parquet")},
        split="some",
        cache_dir=str(tmp_path / "cache"),
    )
    assert by_file.features == found["validation"].features
    check(by_file[0], images[1])
    streamed = datasets.load_dataset(str(tmp_path / "out"), split="test", streaming=True)
    check(next(iter(streamed)), images[2])


def test_a_project_in_parquet(tmp_path: Path) -> None:
    snapshot = build(tmp_path / "home")
    assert export_snapshot(snapshot, tmp_path / "out", "parquet") == {}
    found = loaded(tmp_path / "out", tmp_path / "cache")
    said = {}
    for rows in found.values():
        for row in rows:
            of = dict(zip(row["object_ids"], map(np.asarray, row["masks"]), strict=True))
            for sentence, meant in zip(row["prompts"], row["prompt_objects"], strict=True):
                empty = np.zeros((row["height"], row["width"]), bool)
                said[row["image_id"], sentence] = np.any([empty, *(of[number] for number in meant)], axis=0)
    truth = {(sample.image_id, sample.sentence): sample.mask() for sample in read_folder(snapshot.folder)}
    assert said.keys() == truth.keys()
    assert all(np.array_equal(said[key], truth[key]) for key in truth)


def test_a_step_of_training(tmp_path: Path) -> None:
    export_dataset(made_dataset(several(tmp_path, 12)), tmp_path / "out", "parquet")

    def tensors(rows: dict[str, list[Any]]) -> dict[str, list[torch.Tensor]]:
        pictures = [torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255 for image in rows["image"]]
        targets = [torch.tensor(np.any([np.asarray(mask) for mask in of], axis=0)).float() for of in rows["masks"]]
        return {"pixels": pictures, "target": targets}

    rows = loaded(tmp_path / "out", tmp_path / "cache")["train"].with_transform(tensors)
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 1, 3, padding=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(3):
        for batch in torch.utils.data.DataLoader(rows, batch_size=4):
            assert batch["pixels"].shape == (4, 3, HEIGHT, WIDTH)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(batch["pixels"])[:, 0], batch["target"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_shards_and_groups_of_rows_are_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [made_image(n, [np.ones((60, 80), bool)], tmp_path, split="val") for n in range(20)]
    size = max(image.path.stat().st_size for image in images)
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 3 * size)
    monkeypatch.setattr(parquet, "_SHARD_BYTES", 7 * size)
    written("parquet", made_dataset(images), tmp_path / "out")
    paths = sorted((tmp_path / "out" / "data").iterdir())
    count = len(paths)
    assert count > 1
    assert [path.name for path in paths] == [f"validation-{n:05}-of-{count:05}.parquet" for n in range(count)]
    for path in paths:
        about = pq.ParquetFile(path).metadata
        assert path.stat().st_size < 12 * size
        groups = [about.row_group(n) for n in range(about.num_row_groups)]
        assert all(group.num_rows <= 4 and group.total_byte_size < 5 * size for group in groups)
    found = loaded(tmp_path / "out", tmp_path / "cache")
    assert found["validation"]["image_id"][:] == list(range(20))
    assert list(found) == ["validation"]


def test_pictures_may_be_left_out(tmp_path: Path) -> None:
    images = several(tmp_path, 3)
    written("parquet", made_dataset(images), tmp_path / "out", ExportOptions(images="leave"))
    row = loaded(tmp_path / "out", tmp_path / "cache")["train"][0]
    assert row["image"] is None
    assert np.array_equal(np.asarray(row["masks"][0]), images[0].instances[0].mask())


def test_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    twins = [Category(1, "cat", "a"), Category(2, "dog", "a"), Category(3, "cat", "b")]
    with pytest.raises(DatasetError, match=r"Two categories are named 'cat'.*Rename one"):
        written("parquet", made_dataset([], twins), tmp_path / "out")
