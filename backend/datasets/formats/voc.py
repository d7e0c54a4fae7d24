"""Pascal VOC's layout, as its development kit has it.

    JPEGImages/          <picture>.jpg
    SegmentationClass/   <picture>.png, of 8 bits with the palette: the index of a class
    SegmentationObject/  the same, the index of an object, which counts those of the annotation from 1
    Annotations/         <picture>.xml: the objects, each with its name and box
    ImageSets/Segmentation/, ImageSets/Main/   train.txt, val.txt, trainval.txt, test.txt
    labelmap.txt         by index the classes' names and colours, as CVAT and Datumaro write and read it

A pixel is of one object: that which was drawn last; boxes are of the whole mask. 255 means void there, "don't count",
and nothing of ours does: 254 classes, and objects a picture, are the most. Readers look for `.jpg` alone, so other
pictures are saved anew. Source: the VOC2012 development kit's documentation.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from backend.datasets.dataset import Dataset, DatasetImage, Instance
from backend.datasets.formats.label_maps import (
    NO_PLACE,
    LabelMap,
    Stems,
    class_indices,
    colours,
    label_map,
    one_line,
    write_indices,
    write_lines,
)
from backend.datasets.formats.options import ExportOptions
from ris_core.errors import DatasetError

_MOST = 254
_LISTS = {"train": ("train", "trainval"), "val": ("val", "trainval"), "test": ("test",)}
_SAVED_ANEW = "pictures' exact pixels, as they are saved anew as JPEG"
_INSTEAD = "`masks` and `panoptic` hold more."


def write(dataset: Dataset, out: Path, options: ExportOptions) -> Mapping[str, int]:
    """An index counts the categories by number, from 1 and without gaps. Raises DatasetError beyond 254."""
    indices, left_out, stems = class_indices(dataset), Counter[str](), Stems()
    if len(indices) > _MOST:
        raise DatasetError(f"VOC's masks have room for {_MOST} categories, and there are {len(indices)}. {_INSTEAD}")
    names = {category.number: one_line(category.name) for category in dataset.categories}
    lists: dict[str, list[str]] = {name: [] for name in ("train", "val", "trainval", "test")}
    for image in dataset.images():
        objects, hidden = _objects(image)
        classes = np.array([0, *(indices[instance.category] for instance in image.instances)], np.int32)[objects]
        stem = stems.of(image)
        is_saved_anew = options.place_as(image, out / "JPEGImages" / f"{stem}.jpg")
        write_indices(out / "SegmentationClass" / f"{stem}.png", classes, depth=8)
        write_indices(out / "SegmentationObject" / f"{stem}.png", objects, depth=8)
        _write_annotation(out / "Annotations" / f"{stem}.xml", image, objects, names)
        for name in _LISTS[image.split]:
            lists[name].append(stem)
        left_out += hidden + Counter({NO_PLACE: len(image.refs), _SAVED_ANEW: int(is_saved_anew)})
    for name, listed in lists.items():
        for folder in ("Segmentation", "Main"):
            write_lines(out / "ImageSets" / folder / f"{name}.txt", listed)
    write_lines(out / "labelmap.txt", _label_map_lines(["background", *names.values()]))
    return left_out


def _label_map_lines(names: Sequence[str]) -> Iterator[str]:
    yield "# label:color_rgb:parts:actions"
    for name, colour in zip(names, colours().tolist(), strict=False):
        yield f"{name}:{','.join(map(str, colour))}::"


def _objects(image: DatasetImage) -> tuple[LabelMap, Counter[str]]:
    count = len(image.instances)
    if count > _MOST:
        raise DatasetError(
            f"{image.file_name} (task {image.number}) has {count} objects, and VOC's masks have room for {_MOST}. "
            f"{_INSTEAD}"
        )
    return label_map(image, range(1, count + 1))


def _write_annotation(path: Path, image: DatasetImage, objects: LabelMap, names: Mapping[int, str]) -> None:
    root = Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", f"{path.stem}.jpg")
    size = SubElement(root, "size")
    for name, value in (("width", image.width), ("height", image.height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", int(bool(image.instances)))
    visible = np.bincount(objects.ravel(), minlength=len(image.instances) + 1)
    for index, instance in enumerate(image.instances, start=1):
        _add_object(root, instance, names[instance.category], is_occluded=bool(visible[index] < instance.area))
    ElementTree.indent(root, "\t")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(ElementTree.tostring(root, "utf-8") + b"\n")


def _add_object(root: Element, instance: Instance, name: str, is_occluded: bool) -> None:
    """An object. Its box holds the first pixel and the last, and the picture's first is 1."""
    drawn = SubElement(root, "object")
    _add(drawn, "name", name)
    _add(drawn, "pose", "Unspecified")
    for flag, is_set in (("truncated", False), ("occluded", is_occluded), ("difficult", False)):
        _add(drawn, flag, int(is_set))
    left, top, width, height = (int(side) for side in instance.bbox)
    box = SubElement(drawn, "bndbox")
    for side, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", left + width), ("ymax", top + height)):
        _add(box, side, value)


def _add(parent: Element, name: str, value: object) -> None:
    SubElement(parent, name).text = str(value)
