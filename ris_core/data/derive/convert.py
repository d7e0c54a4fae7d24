"""Public datasets -> dataset folders, for the two sets that the shipped model is trained on.

Of Clothing Co-Parsing (CCP) every label is asked for that covers at least 0.25 % of its photo, of COCO all instances
of a class together where they cover at least 0.5 %, crowds skipped. What is said of them, see `folder_writer`.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ris_core.data.derive.choices import SMALL, Thing
from ris_core.data.derive.folder_writer import LabelledPhoto, write_folder
from ris_core.data.derive.mosaic import MosaicScene, draw_pairs, join_scenes
from ris_core.data.derive.words import Noun, noun, pair
from ris_core.data.folder import read_folder
from ris_core.data.splits import split_of
from ris_core.errors import DatasetError, InputError
from ris_core.images import read_image
from ris_core.masks import Mask, segmentation_to_mask

CCP_SHARE, COCO_SHARE = 0.0025, 0.005
# Two shoes, say: nearly all of the label, and of like size.
_BOTH, _LIKE = 0.95, 0.5

_CCP = {
    "description": "Clothing Co-Parsing, street-fashion photos with a label for each pixel (Yang, Luo, Lin 2014).",
    "license": "Apache-2.0 (the repository bearpaw/clothing-co-parsing).",
}
_COCO = {
    "description": "Photos and polygons of COCO 2017 (Lin et al. 2014), and expressions derived from them.",
    "license": "annotations CC BY 4.0; each photo a Creative Commons licence of its own, many of them non-commercial.",
}


def convert_ccp(source: Path, out: Path) -> None:
    """Clothing Co-Parsing (`photos/`, `labels/`, `labels.json`) -> a dataset folder at `out`.

    Raises FileExistsError if `out` is there already, FileNotFoundError if a part of `source` is missing, DatasetError
    if a photo isn't of the size of its masks.
    """
    names = json.loads((source / "labels.json").read_text(encoding="utf-8"))
    names = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in names.items()}
    write_folder(out, _ccp_photos(source, names), [name for index, name in names.items() if index], _CCP)


def convert_coco_names(source: Path, out: Path, mosaics: int = 0) -> None:
    """A COCO folder (`images/`, `instances.json`) -> a dataset folder of class names and derived expressions.

    `mosaics`: so many pictures are added that are put together of two training photos each, see `mosaic`.
    Raises as `convert_ccp` does.
    """
    instances = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    coco = _Coco(source, instances)
    write_folder(out, chain(coco.photos(), coco.mosaics(mosaics)), list(coco.names.values()), _COCO)


_CONVERTERS: dict[str, Callable[..., None]] = {"ccp": convert_ccp, "coco": convert_coco_names}


def convert(kind: str, source: Path, out: Path, mosaics: int = 0) -> int:
    """A dataset of one of the kinds "ccp" and "coco" -> how many expressions the dataset folder at `out` has.

    Raises InputError if there is no such kind, it has no mosaics, or `out` is there already; DatasetError if `source`
    lacks a file, or a photo isn't of the size of its masks.
    """
    if kind not in _CONVERTERS:
        raise InputError(f"There is no converter {kind!r}. Choose from {', '.join(_CONVERTERS)}.")
    if mosaics and kind != "coco":
        raise InputError("Mosaics are put together of things that are told apart, which only coco has. Leave them out.")
    try:
        _CONVERTERS[kind](source, out, **({"mosaics": mosaics} if mosaics else {}))
    except FileExistsError:
        raise InputError(f"{out} exists already. Choose another folder, or delete it.") from None
    except FileNotFoundError as error:
        raise DatasetError(f"{source} isn't a {kind} folder: {error.filename} is missing.") from None
    return len(read_folder(out))


def _ccp_photos(source: Path, names: dict[int, str]) -> Iterator[LabelledPhoto]:
    for path in sorted((source / "photos").glob("*.jpg")):
        with Image.open(source / "labels" / f"{path.stem}.png") as image:
            labels = np.asarray(image)
        things = [
            thing
            for index in np.flatnonzero(np.bincount(labels.flat))
            if index
            for thing in _worn(names[index], labels == index)
        ]
        yield LabelledPhoto(path, things, _named(things, CCP_SHARE))


def _worn(name: str, mask: Mask) -> list[Thing]:
    """A label -> one thing, or the two that are worn as a pair where they can be told apart."""
    single = pair(name)
    if single and (both := _halves(mask)):
        return [Thing(name, half, single) for half in both]
    return [Thing(name, mask, Noun(name, name, counted=False))]


def _halves(mask: Mask) -> list[Mask] | None:
    """The two parts of like size that a mask consists of; specks go with the nearer."""
    _, parts, table, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    order = 1 + np.argsort(-table[1:, cv2.CC_STAT_AREA], kind="stable")
    areas = table[order, cv2.CC_STAT_AREA]
    if len(order) < 2 or areas[1] < _LIKE * areas[0] or areas[:2].sum() < _BOTH * areas.sum():
        return None
    distances = np.linalg.norm(centres[:, None] - centres[order[:2]], axis=2)
    nearer = distances.argmin(axis=1)[parts]
    return [mask & (nearer == half) for half in (0, 1)]


class _Coco:
    """A COCO folder's photos, read one at a time. names: of the classes, by COCO's number."""

    def __init__(self, source: Path, instances: dict[str, Any]) -> None:
        self._folder = source / "images"
        self.names = {category["id"]: category["name"] for category in instances["categories"]}
        self._images = sorted(instances["images"], key=lambda entry: entry["file_name"])
        self._annotations = defaultdict(list)
        for annotation in instances["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)

    def photos(self) -> Iterator[LabelledPhoto]:
        """All of them, in the order of their names."""
        return map(self._photo, self._images)

    def mosaics(self, count: int) -> Iterator[LabelledPhoto]:
        """At most `count`; pairs of photos that show too little of what they share are passed over."""
        training = [image for image in self._images if split_of(image["file_name"]) == "train"]
        pairs = draw_pairs([self._pointed_at(image) for image in training], count) if count else ()
        for number, (first, second, name) in enumerate(pairs):
            scenes = self._scene(training[first]), self._scene(training[second])
            scene = join_scenes(*scenes, name, random.Random(f"mosaic {number}"))
            if scene:
                sure = [thing for thing in scene.things if thing.name not in scene.unsure]
                path = self._folder / f"mosaic-{number:05d}.jpg"
                yield LabelledPhoto(path, list(scene.things), _named(sure, COCO_SHARE), scene.unsure, scene.image)

    def _photo(self, image: dict[str, Any]) -> LabelledPhoto:
        things, crowds = [], set()
        for annotation in self._annotations[image["id"]]:
            name = self.names[annotation["category_id"]]
            if annotation.get("iscrowd"):
                crowds.add(name)
                continue
            mask = segmentation_to_mask(annotation["segmentation"], image["height"], image["width"])
            things.append(Thing(name, mask, noun(name)))
        return LabelledPhoto(self._folder / image["file_name"], things, _named(things, COCO_SHARE), frozenset(crowds))

    def _scene(self, image: dict[str, Any]) -> MosaicScene:
        photo = self._photo(image)
        return MosaicScene(read_image(photo.path), tuple(photo.things), photo.unsure)

    def _pointed_at(self, image: dict[str, Any]) -> list[str]:
        """The class of each thing that is large enough, but for classes that there are crowds of."""
        photo = self._photo(image)
        return [thing.name for thing in photo.things if thing.share >= SMALL and thing.name not in photo.unsure]


def _named(things: Sequence[Thing], share: float) -> list[str]:
    """The classes that cover so much of the photo, in the order of their first things."""
    masks: dict[str, list[Mask]] = defaultdict(list)
    for thing in things:
        masks[thing.name].append(thing.mask)
    # The union counts a pixel once.
    return [name for name, group in masks.items() if np.logical_or.reduce(group).mean() >= share]
