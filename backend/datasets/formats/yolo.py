"""YOLO's layout for segmentation, which ultralytics trains on as it is, wherever the folder lies.

    data.yaml                where the pictures are, and the classes' names and category numbers
    images/train/x.jpg       and the same in val and test
    labels/train/x.txt       an object a line: its class and one polygon, by the picture's width and height; empty if
                             nothing is in the picture

A class counts the categories by number, from 0 and without gaps. ultralytics wants pictures to validate on: where none
fell to val, those of test or train are named instead, and `data.yaml` says so.

Source: ultralytics' documentation of its format for segmentation, and its reader.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from backend.datasets.dataset import Dataset, DatasetImage, compact_json
from backend.datasets.formats.label_maps import NO_PLACE, Stems, class_indices, write_lines
from backend.datasets.formats.one_polygon import one_polygon, parts_of
from backend.datasets.formats.options import ExportOptions

# The kinds of pictures that both we and ultralytics read; others are saved anew, without loss.
_READ = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_BRIDGED = "gaps between an object's parts, which lines bridge"


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """Masks as polygons within `options.tolerance`; at 0 they lose nothing, and gain a line between two parts."""
    indices, left_out, stems = class_indices(dataset), Counter[str](), Stems()
    pictures = Counter[str]()
    for image in dataset.images():
        stem, suffix = stems.of(image), Path(image.file_name).suffix.lower()
        name = f"{stem}{suffix if suffix in _READ else '.png'}"
        options.place_as(image, out / "images" / image.split / name)
        write_lines(out / "labels" / image.split / f"{stem}.txt", _lines(image, indices, options.tolerance))
        pictures[image.split] += 1
        gaps = sum(parts_of(instance.mask()) - 1 for instance in image.instances)
        left_out += Counter({NO_PLACE: len(image.refs), _BRIDGED: gaps})
    write_lines(out / "data.yaml", _data(dataset, indices, pictures))
    return left_out


def _lines(image: DatasetImage, indices: Mapping[int, int], tolerance: float) -> Iterator[str]:
    size = np.array([image.width, image.height])
    for instance in image.instances:
        shares = (one_polygon(instance.mask(), tolerance) / size).ravel()
        yield " ".join([str(indices[instance.category] - 1), *(f"{share:.6f}" for share in shares)])


def _data(dataset: Dataset, indices: Mapping[int, int], pictures: Counter[str]) -> Iterator[str]:
    """Lines of YAML, of which JSON's texts are a part."""
    yield "# Paths are relative to this file."
    yield "train: images/train"
    if not pictures["val"]:
        yield "# No picture fell to val, without which nothing can be trained."
    yield f"val: images/{next((split for split in ('val', 'test') if pictures[split]), 'train')}"
    if pictures["test"]:
        yield "test: images/test"
    yield "names:"
    for category in dataset.categories:
        yield f"  {indices[category.number] - 1}: {compact_json(category.name).decode()}"
    yield "# The categories' numbers in other formats."
    yield "category_ids:"
    for category in dataset.categories:
        yield f"  {indices[category.number] - 1}: {category.number}"
