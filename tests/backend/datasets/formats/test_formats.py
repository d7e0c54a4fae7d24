"""What holds of every format."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_dataset import CATEGORIES, HEIGHT, SPLITS, WIDTH, made_image, written

from backend.datasets.dataset import Dataset, DatasetImage
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ExportOptions


def some(folder: Path, alive: list[weakref.ref[DatasetImage]]) -> Dataset:
    """Pictures made as they are asked for; `alive` gets a reference to each."""

    def images() -> Iterator[DatasetImage]:
        for n in range(6):
            image = made_image(n, [np.ones((HEIGHT, WIDTH), bool)], folder, split=SPLITS[n % 3], refs={"it": (0,)})
            alive.append(weakref.ref(image))
            yield image
            del image
            # The last one of a format's first way through the pictures may be there yet on its second.
            assert sum(reference() is not None for reference in alive) <= 2

    return Dataset("Some", CATEGORIES, images)


@pytest.mark.parametrize("fmt", list(EXPORT_FORMATS))
def test_no_format_keeps_pictures(tmp_path: Path, fmt: str) -> None:
    alive: list[weakref.ref[DatasetImage]] = []
    written(fmt, some(tmp_path, alive), tmp_path / "out")
    assert len(alive) >= 6


@pytest.mark.parametrize("fmt", list(EXPORT_FORMATS))
def test_no_format_writes_pictures_that_are_to_be_left(tmp_path: Path, fmt: str) -> None:
    written(fmt, some(tmp_path, []), tmp_path / "out", ExportOptions(images="leave"))
    pictures = {path.read_bytes() for path in tmp_path.glob("source-*")}
    assert len(pictures) == 6
    for path in (tmp_path / "out").rglob("*.*"):
        assert not any(picture in path.read_bytes() for picture in pictures)
