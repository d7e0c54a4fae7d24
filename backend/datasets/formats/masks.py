"""Semantic masks: one PNG a picture, whose pixels are the index of a class.

    images/
    masks/            <picture>.png: 8 bits with a palette, 16 bits grey where there are more than 255 categories
    classes.txt       the classes' names, a line each, from index 0, the background
    labels.json       the same with category numbers and colours
    splits/train.txt  the pictures' names without suffix, and the same of val and test

A pixel is of one class: that of what was drawn last.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from backend.datasets.dataset import Dataset, Json, compact_json
from backend.datasets.formats.label_maps import (
    NO_PLACE,
    SPLITS,
    Stems,
    class_indices,
    colours,
    depth_of,
    label_map,
    one_line,
    write_indices,
    write_lines,
)
from backend.datasets.formats.options import ExportOptions

_BACKGROUND = "background"


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """An index counts the categories by number, from 1 and without gaps. Raises DatasetError beyond 65,535."""
    indices, left_out, stems = class_indices(dataset), Counter[str](), Stems()
    depth = depth_of(len(indices))
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for image in dataset.images():
        options.place(image, out / "images" / image.file_name)
        stem = stems.of(image)
        shown, hidden = label_map(image, [indices[instance.category] for instance in image.instances])
        write_indices(out / "masks" / f"{stem}.png", shown, depth)
        splits[image.split].append(stem)
        left_out += hidden + Counter({NO_PLACE: len(image.refs)})
    for split, names in splits.items():
        write_lines(out / "splits" / f"{split}.txt", names)
    names = [_BACKGROUND, *(category.name for category in dataset.categories)]
    write_lines(out / "classes.txt", map(one_line, names))
    (out / "labels.json").write_bytes(compact_json(_labels(dataset, depth)))
    return left_out


def _labels(dataset: Dataset, depth: int) -> list[Json]:
    """The classes by index. Grey values of 16 bits have no colours."""
    palette = colours().tolist() if depth == 8 else None
    numbers: dict[int | None, str] = {None: _BACKGROUND}
    numbers |= {category.number: category.name for category in dataset.categories}
    return [
        {"index": index, "name": name, "category_id": number, **({"color": palette[index]} if palette else {})}
        for index, (number, name) in enumerate(numbers.items())
    ]
