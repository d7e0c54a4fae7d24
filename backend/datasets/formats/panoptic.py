"""COCO's panoptic format: one PNG a picture, in which each pixel's colour is the id of its segment.

    images/
    panoptic/train.json    images, annotations of `segments_info`, categories
    panoptic/train/        the PNGs: id = R + 256 G + 65536 B, 0 where nothing was drawn
    and the same of val and test

A pixel is of one segment: what was drawn later lies on top, and `area` and `bbox` are of what is to be seen. Everything
was drawn as an object, so all categories are things. Source: COCO's data format page. Ours: `annotation_id` of a
segment, its number in the other formats, and `ls`, where it comes from.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from backend.datasets.dataset import Dataset, DatasetImage, Json
from backend.datasets.formats.coco import Rows, image_row, parts_of_instances, write_object
from backend.datasets.formats.label_maps import (
    NO_PLACE,
    SPLITS,
    LabelMap,
    Stems,
    class_indices,
    colours,
    label_map,
    write_png,
)
from backend.datasets.formats.options import ExportOptions
from ris_core.masks import bounding_box


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """One document a split, written picture by picture."""
    left_out, stems = Counter[str](), Stems()
    folder = out / "panoptic"
    folder.mkdir()
    with ExitStack() as stack:
        rows = {
            (split, kind): stack.enter_context(Rows(folder / f"{split}.{kind}"))
            for split in SPLITS
            for kind in ("images", "annotations")
        }
        for image in dataset.images():
            options.place(image, out / "images" / image.file_name)
            name = f"{stems.of(image)}.png"
            shown, hidden = label_map(image, range(1, len(image.instances) + 1))
            write_png(folder / image.split / name, _coloured(shown))
            rows[image.split, "images"].add(image_row(image))
            segments = list(_segments(image, shown))
            annotation = {"image_id": image.number, "file_name": name, "segments_info": segments}
            rows[image.split, "annotations"].add(annotation)
            left_out += hidden + Counter({NO_PLACE: len(image.refs)})
        parts = parts_of_instances(dataset) | {"categories": _categories(dataset)}
        for split in SPLITS:
            lists = {kind: rows[split, kind] for kind in ("images", "annotations")}
            write_object(folder / f"{split}.json", {**parts, **lists})
    return left_out


def _coloured(shown: LabelMap) -> Image.Image:
    return Image.fromarray(np.stack([shown >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8))


def _segments(image: DatasetImage, shown: LabelMap) -> Iterator[Json]:
    """What is to be seen of each object, in the order in which they were drawn."""
    for number, instance in enumerate(image.instances, start=1):
        segment = shown == number
        if segment.any():
            yield {
                "id": number,
                "category_id": instance.category,
                "area": int(segment.sum()),
                "bbox": bounding_box(segment),
                "iscrowd": 0,
                "isthing": 1,
                "annotation_id": instance.number,
                "ls": dict(instance.provenance),
            }


def _categories(dataset: Dataset) -> list[Json]:
    indices, palette = class_indices(dataset), colours()
    colour = {number: palette[index % len(palette)].tolist() for number, index in indices.items()}
    rows: list[Json] = parts_of_instances(dataset)["categories"]
    return [row | {"isthing": 1, "color": colour[row["id"]]} for row in rows]
