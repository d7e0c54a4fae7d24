"""Datasets made from masks, without Label Studio, and strategies that draw them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from backend.datasets.dataset import Category, Dataset, DatasetImage, Instance, Ref
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ExportOptions
from ris_core.files import sha256
from ris_core.masks import encode_rle

Masks = Sequence[np.ndarray]
SPLITS = ("train", "val", "test")
HEIGHT, WIDTH = 9, 11
# Numbers with gaps, as deleted labels leave them.
CATEGORIES = (Category(2, "cat", "brush"), Category(5, "große Katze", "brush"), Category(9, "cup", "brush"))

masks = st.lists(arrays(np.bool_, (HEIGHT, WIDTH)).filter(np.any), max_size=4)
"""What is in a picture, in the order in which it was drawn."""


def made_image(
    number: int,
    drawn: Masks,
    folder: Path,
    *,
    categories: Sequence[int] | None = None,
    split: str = "train",
    refs: Mapping[str, tuple[int, ...]] | None = None,
    name: str = "",
    kind: str = "PNG",
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> DatasetImage:
    """A picture of noise. categories: of the masks in turn. refs: what each sentence means, masks counted from 0."""
    height, width = drawn[0].shape if len(drawn) else size
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    name = name or f"{number}_photo.png"
    path = folder / f"source-{name}"
    path.write_bytes(buffer.getvalue())
    categories = categories or [CATEGORIES[position % 3].number for position in range(len(drawn))]
    ids = [number * 1000 + position for position in range(len(drawn))]
    instances = [
        Instance(id_, category, encode_rle(mask), {"task": number, "region": f"r{id_}", "prompts": ["the ü"]})
        for id_, category, mask in zip(ids, categories, drawn, strict=True)
    ]
    said = [
        Ref(number * 1000 + position, sentence, sentence.title(), tuple(ids[index] for index in meant), {"iou": 0.5})
        for position, (sentence, meant) in enumerate((refs or {}).items())
    ]
    digest = sha256(buffer.getvalue())
    return DatasetImage(number, name, path, width, height, digest, split, tuple(instances), tuple(said))


def made_dataset(images: Sequence[DatasetImage], categories: Sequence[Category] = CATEGORIES) -> Dataset:
    return Dataset("Made", tuple(categories), lambda: iter(images))


def written(fmt: str, dataset: Dataset, out: Path, options: ExportOptions | None = None) -> Mapping[str, int]:
    """Write a dataset in a format to a new folder."""
    out.mkdir()
    return EXPORT_FORMATS[fmt].write(dataset, out, options or ExportOptions())


def painted(drawn: Masks, values: Sequence[int], size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """HxW: the value of the last mask that has a pixel, found pixel by pixel; 0 where none has it."""
    height, width = drawn[0].shape if len(drawn) else size
    return np.array(
        [
            [
                next((v for mask, v in zip(reversed(drawn), reversed(values), strict=True) if mask[row, column]), 0)
                for column in range(width)
            ]
            for row in range(height)
        ]
    )
