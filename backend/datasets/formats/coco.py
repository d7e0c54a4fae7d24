"""COCO's `instances.json`, gRefCOCO's `refs.json` and `images/`: what a snapshot holds and `ris train` reads.

Masks are compressed run lengths, so holes and specks stay; on request polygons, each with what it costs. `iscrowd` is
0, since trainers drop crowds. Sources: COCO's data format page; gRefCOCO's refs (`ann_id` and `category_id` are lists,
[-1] where a sentence means nothing in the image), for whose readers `backend.datasets.formats.refer` is. Ours: `ls` of
an annotation, where it comes from; `split` and `sha256` of an image; `origin` of a ref, "accepted", "corrected",
"rejected", "manual", "absent" or "taught", and `iou`, of the prediction with it.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from backend.datasets.dataset import Dataset, DatasetImage, Instance, Json, Ref, compact_json
from backend.datasets.formats.options import ExportOptions
from backend.labelstudio.masks.polygon import outlines
from ris_core.data.folder import NO_TARGET
from ris_core.masks import iou, segmentation_to_mask

_LICENSE = {"id": 1, "name": "As the owner of the images says", "url": ""}
_IOU_DIGITS = 4


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """Masks as run lengths: exact."""
    return _write(dataset, out, options, instance_row)


def write_polygons(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """Masks as polygons, for tools that read nothing else. `polygon` of an annotation says what that costs."""
    return _write(dataset, out, options, lambda image, instance: _polygon_row(image, instance, options.tolerance))


def parts_of_instances(dataset: Dataset) -> Json:
    """The parts of `instances.json` that don't grow with the pictures."""
    return {
        "info": {"description": dataset.description, "version": "1"},
        "licenses": [_LICENSE],
        "categories": [
            {"id": category.number, "name": category.name, "supercategory": category.supercategory}
            for category in dataset.categories
        ],
    }


def image_row(image: DatasetImage, folder: str = "") -> Json:
    """A picture in `instances.json`. folder: what stands before its name."""
    return {
        "id": image.number,
        "file_name": folder + image.file_name,
        "width": image.width,
        "height": image.height,
        "license": _LICENSE["id"],
        "sha256": image.digest,
        "split": image.split,
        **({"source": image.source} if image.source else {}),
    }


def instance_row(image: DatasetImage, instance: Instance) -> Json:
    """An object in `instances.json`."""
    return {
        "id": instance.number,
        "image_id": image.number,
        "category_id": instance.category,
        "segmentation": dict(instance.rle),
        "area": instance.area,
        "bbox": instance.bbox,
        "iscrowd": 0,
        "ls": dict(instance.provenance),
    }


def ref_row(image: DatasetImage, ref: Ref) -> Json:
    """A sentence in `refs.json`."""
    return {
        "ref_id": ref.number,
        "image_id": image.number,
        "ann_id": list(ref.instances) or [NO_TARGET],
        "category_id": sorted({image.categories[number] for number in ref.instances}) or [NO_TARGET],
        "file_name": image.file_name,
        "split": image.split,
        **ref.told,
        "sent_ids": [ref.number],
        "sentences": [
            {"sent_id": ref.number, "sent": ref.sentence, "raw": ref.raw, "tokens": ref.sentence.split()},
        ],
    }


def write_documents(
    dataset: Dataset,
    out: Path,
    row: Callable[[DatasetImage, Instance], Json] = instance_row,
    place: Callable[[DatasetImage], object] = lambda image: None,
) -> None:
    """Write `instances.json` and `refs.json` into a folder, and have each picture placed. One picture is in memory."""
    with (
        Rows(out / "images.rows") as images,
        Rows(out / "annotations.rows") as annotations,
        Rows(out / "refs.rows") as refs,
    ):
        for image in dataset.images():
            place(image)
            images.add(image_row(image))
            for instance in image.instances:
                annotations.add(row(image, instance))
            for ref in image.refs:
                refs.add(ref_row(image, ref))
        write_object(
            out / "instances.json", {**parts_of_instances(dataset), "images": images, "annotations": annotations}
        )
        with (out / "refs.json").open("wb") as file:
            file.writelines(refs.as_list())


def write_object(path: Path, parts: Mapping[str, Any]) -> None:
    """Write a JSON object to a file, sorted by name. Parts that are rows don't have to fit into memory."""
    with path.open("wb") as file:
        for number, (name, part) in enumerate(sorted(parts.items())):
            file.write(b"{" if number == 0 else b",")
            file.write(compact_json(name) + b":")
            file.writelines(part.as_list() if isinstance(part, Rows) else [compact_json(part)])
        file.write(b"}")


class Rows:
    """Rows of a JSON list, kept in a file until all are there; it is gone when the block ends."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._any = path, path.open("wb"), False

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._path.unlink()

    def add(self, row: Any) -> None:
        """Append a row."""
        self._file.write((b"," if self._any else b"") + compact_json(row))
        self._any = True

    def as_list(self) -> Iterator[bytes]:
        """The JSON of the list, in pieces."""
        self._file.flush()
        yield b"["
        with self._path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
        yield b"]"


def _write(
    dataset: Dataset, out: Path, options: ExportOptions, row: Callable[[DatasetImage, Instance], Json]
) -> Mapping[str, int]:
    write_documents(dataset, out, row, lambda image: options.place(image, out / "images" / image.file_name))
    return {}


def _polygon_row(image: DatasetImage, instance: Instance, tolerance: float) -> Json:
    mask = instance.mask()
    rings = outlines(mask, tolerance)
    polygons = [ring.ravel().tolist() for ring in rings]
    read_back = segmentation_to_mask(polygons, image.height, image.width)
    cost = {
        "iou": round(iou(mask, read_back), 6),
        "changed_pixels": int((mask != read_back).sum()),
        "parts": len(rings),
    }
    return {**instance_row(image, instance), "segmentation": polygons, "polygon": cost}
