"""What formats with one value a pixel share: what lies on top, what that hides, colours, and files of indices."""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.datasets.dataset import Dataset, DatasetImage
from ris_core.errors import DatasetError

LabelMap = NDArray[np.int32]
"""HxW: the value of each pixel, 0 where nothing was drawn."""

SPLITS = ("train", "val", "test")
NO_PLACE = "expressions for which it has no place"
_WHOLLY = "objects that lie wholly below others"
_PARTLY = "parts of objects that lie below others"
_COLOURS = 256
_MOST = 65_535


def label_map(image: DatasetImage, values: Sequence[int]) -> tuple[LabelMap, Counter[str]]:
    """The values of a picture's instances, one an instance, and how many of these aren't all to be seen.

    What was drawn later lies on top, as in the editor. Nothing is hidden by another instance of the same value.
    """
    shown = np.array([0, *values], np.int32)[image.layers()]
    hidden = Counter[str]()
    for value, instance in zip(values, image.instances, strict=True):
        kept = int(np.count_nonzero(shown[instance.mask()] == value))
        if kept < instance.area:
            hidden[_PARTLY if kept else _WHOLLY] += 1
    return shown, hidden


def class_indices(dataset: Dataset) -> Mapping[int, int]:
    """By category number the index of a class: from 1 without gaps, in order of the numbers. 0 is the background."""
    return {category.number: index for index, category in enumerate(dataset.categories, start=1)}


def colours() -> NDArray[np.uint8]:
    """256x3: the palette of Pascal VOC's development kit, in which neighbours differ much and 0 is black.

    The lowest three bits of an index are the highest of red, green and blue, the next three the second highest, and
    so on.
    """
    index = np.arange(_COLOURS)[:, None]
    bits = (index >> (3 * np.arange(8) + np.arange(3)[:, None, None])) & 1
    return np.asarray((bits << np.arange(7, -1, -1)).sum(axis=2).T, np.uint8)


def write_indices(path: Path, indices: LabelMap, depth: int) -> None:
    """Write a PNG whose pixels are indices: of 8 bits with the palette, or of 16 bits grey. Its folder is made."""
    if depth == 8:
        picture = Image.fromarray(indices.astype(np.uint8), "P")
        picture.putpalette(colours().tobytes())
    else:
        picture = Image.fromarray(indices.astype(np.uint16))
    write_png(path, picture)


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a PNG; its folder is made."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def depth_of(highest: int) -> int:
    """How many bits hold indices up to the highest: 8 or 16. Raises DatasetError if neither does."""
    if highest > _MOST:
        raise DatasetError(f"There are {highest:,} categories, and an index of 16 bits counts to {_MOST:,}.")
    return 8 if highest < _COLOURS else 16


class Stems:
    """Names for files beside pictures: the picture's without its suffix, and its number too where that is taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, image: DatasetImage) -> str:
        """The stem of a picture, another one each time. Two that differ in case alone are one to some file systems."""
        stem = Path(image.file_name).stem
        while stem.casefold() in self._taken:
            stem = f"{stem}_{image.number}"
        self._taken.add(stem.casefold())
        return stem


def one_line(name: str) -> str:
    """A name in which every run of white space is one blank, for lists with a name a line."""
    return " ".join(name.split())


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file of lines; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
