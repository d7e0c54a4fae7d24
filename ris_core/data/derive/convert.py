"""Public datasets -> dataset folders, for the two sets that the shipped model is trained on.

Conventions: a label's expression is "the <name>"; of Clothing Co-Parsing (CCP) every label that covers at least
0.25 % of its photo, of COCO all instances of a class together where they cover at least 0.5 %, crowds skipped. Three
names that nothing in a photo may go by are drawn for it with a seed of its own. Other expressions follow from the
masks, see `derive`, and from other words for a name. Each ref says its `kind`; `info` in instances.json has the SHA-256
of refs.json. Splits are by file name, see `splits`; pictures put together of two training photos are for training.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ris_core.data.derive.choices import SMALL, Thing
from ris_core.data.derive.expressions import DerivedExpression, derive
from ris_core.data.derive.mosaic import MosaicScene, Pixels, join, pairs
from ris_core.data.derive.words import Noun, may_be, noun, pair, synonyms
from ris_core.data.folder import NO_TARGET, read_folder
from ris_core.data.splits import split_of
from ris_core.errors import DatasetError, InputError
from ris_core.files import atomic_dir, sha256
from ris_core.images import read_image, write_image
from ris_core.masks import Mask, bounding_box, encode_rle, segmentation_to_mask

CCP_SHARE, COCO_SHARE = 0.0025, 0.005
ABSENT = 3
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


@dataclass(frozen=True)
class Photo:
    """A photo and what is labelled in it.

    named: classes with enough pixels to be asked for. unsure: classes of which more is there than `things` show.
    image: HxWx3 RGB where it isn't what `path` holds: then it is written under that name, for training.
    """

    path: Path
    things: list[Thing]
    named: list[str]
    unsure: frozenset[str] = frozenset()
    image: Pixels | None = None

    @property
    def split(self) -> str:
        return split_of(self.path.name) if self.image is None else "train"


def convert_ccp(source: Path, out: Path) -> None:
    """Clothing Co-Parsing (`photos/`, `labels/`, `labels.json`) -> a dataset folder at `out`."""
    names = json.loads((source / "labels.json").read_text(encoding="utf-8"))
    names = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in names.items()}
    write_folder(out, _ccp_photos(source, names), [name for index, name in names.items() if index], _CCP)


def convert_coco_names(source: Path, out: Path, mosaics: int = 0) -> None:
    """A COCO folder (`images/`, `instances.json`) -> a dataset folder of class names and derived expressions.

    `mosaics`: so many pictures are added that are put together of two training photos each, see `mosaic`.
    """
    instances = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    coco = _Coco(source, instances)
    write_folder(out, chain(coco.photos(), coco.mosaics(mosaics)), list(coco.names.values()), _COCO)


_CONVERTERS: dict[str, Callable[..., None]] = {"ccp": convert_ccp, "coco": convert_coco_names}


def convert(kind: str, source: Path, out: Path, mosaics: int = 0) -> int:
    """A dataset of one of the kinds "ccp" and "coco" -> how many expressions the dataset folder at `out` has.

    Raises:
        InputError: there is no such kind, it has no mosaics, or `out` is there already.
        DatasetError: `source` lacks a file, or a photo isn't of the size of its masks.
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


def write_folder(out: Path, photos: Iterable[Photo], names: Sequence[str], info: dict[str, str]) -> None:
    """Write photos and what is labelled in them as a dataset folder.

    `names` are the categories, of which the absent ones are drawn too; `info` is a description and a licence.

    Raises:
        FileExistsError: `out` is there already.
        DatasetError: a photo isn't of the size of its masks.
    """
    tables = _Tables(names)
    with atomic_dir(out) as folder:
        (folder / "images").mkdir()
        for photo in photos:
            if photo.image is None:
                shutil.copyfile(photo.path, folder / "images" / photo.path.name)
            else:
                write_image(folder / "images" / photo.path.name, photo.image)
            tables.add(photo)
        refs = json.dumps(tables.refs).encode()
        instances = {
            "info": info | {"refs_sha256": sha256(refs)},
            "images": tables.images,
            "annotations": tables.annotations,
            "categories": [{"id": number, "name": name} for name, number in tables.categories.items()],
        }
        (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
        (folder / "refs.json").write_bytes(refs)


def _ccp_photos(source: Path, names: dict[int, str]) -> Iterator[Photo]:
    for path in sorted((source / "photos").glob("*.jpg")):
        with Image.open(source / "labels" / f"{path.stem}.png") as image:
            labels = np.asarray(image)
        things = [
            each
            for index in np.flatnonzero(np.bincount(labels.flat))
            if index
            for each in _worn(names[index], labels == index)
        ]
        yield Photo(path, things, _named(things, CCP_SHARE))


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

    def photos(self) -> Iterator[Photo]:
        return map(self._photo, self._images)

    def mosaics(self, count: int) -> Iterator[Photo]:
        """At most `count`; pairs of photos that show too little of what they share are passed over."""
        taught = [image for image in self._images if split_of(image["file_name"]) == "train"]
        drawn = pairs([self._pointed_at(image) for image in taught], count) if count else ()
        for number, (first, second, name) in enumerate(drawn):
            scenes = self._scene(taught[first]), self._scene(taught[second])
            scene = join(*scenes, name, random.Random(f"mosaic {number}"))
            if scene:
                sure = [thing for thing in scene.things if thing.name not in scene.unsure]
                path = self._folder / f"mosaic-{number:05d}.jpg"
                yield Photo(path, list(scene.things), _named(sure, COCO_SHARE), scene.unsure, scene.image)

    def _photo(self, image: dict[str, Any]) -> Photo:
        things = []
        crowds = set()
        for annotation in self._annotations[image["id"]]:
            name = self.names[annotation["category_id"]]
            if annotation.get("iscrowd"):
                crowds.add(name)
                continue
            mask = segmentation_to_mask(annotation["segmentation"], image["height"], image["width"])
            things.append(Thing(name, mask, noun(name)))
        return Photo(self._folder / image["file_name"], things, _named(things, COCO_SHARE), frozenset(crowds))

    def _scene(self, image: dict[str, Any]) -> MosaicScene:
        photo = self._photo(image)
        return MosaicScene(read_image(photo.path), tuple(photo.things), photo.unsure)

    def _pointed_at(self, image: dict[str, Any]) -> list[str]:
        """The class of each thing that is large enough, but for classes that there are crowds of."""
        photo = self._photo(image)
        return [thing.name for thing in photo.things if thing.share >= SMALL and thing.name not in photo.unsure]


def _named(things: Sequence[Thing], share: float) -> list[str]:
    """The classes that cover so much of the photo, in the order of their first things."""
    groups: dict[str, list[Thing]] = defaultdict(list)
    for thing in things:
        groups[thing.name].append(thing)
    return [name for name, group in groups.items() if _share(group) >= share]


def _share(group: Sequence[Thing]) -> float:
    # The union counts a pixel once; of one thing it is known already.
    return group[0].share if len(group) == 1 else float(np.logical_or.reduce([thing.mask for thing in group]).mean())


class _Tables:
    """The rows of a dataset folder's two files."""

    def __init__(self, names: Sequence[str]) -> None:
        self.categories = {name: number for number, name in enumerate(names, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.refs: list[dict[str, Any]] = []
        self.sentences = 0

    def add(self, photo: Photo) -> None:
        image = read_image(photo.path) if photo.image is None else photo.image
        height, width = image.shape[:2]
        if any(thing.mask.shape != (height, width) for thing in photo.things):
            raise DatasetError(f"{photo.path} isn't of the size of its masks. Take photos and masks of one release.")
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": photo.path.name, "height": height, "width": width})
        there = [thing for thing in photo.things if thing.name in photo.named and thing.mask.any()]
        ids = {thing: self._annotate(number, thing) for thing in there}
        for expression in (
            *_names(photo, there),
            *self._absent(photo),
            *derive(there, image, photo.path.name, photo.unsure),
        ):
            self._refer(number, photo.split, expression, [ids[thing] for thing in expression.things])

    def _annotate(self, image_id: int, thing: Thing) -> int:
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image_id,
                "category_id": self.categories[thing.name],
                "segmentation": encode_rle(thing.mask),
                "area": int(thing.mask.sum()),
                "bbox": bounding_box(thing.mask),
                "iscrowd": 0,
            }
        )
        return len(self.annotations)

    def _refer(self, image_id: int, split: str, expression: DerivedExpression, annotation_ids: list[int]) -> None:
        first = self.sentences + 1
        self.sentences += len(expression.sentences)
        sentences = [
            {"sent_id": number, "sent": sentence, "raw": sentence}
            for number, sentence in enumerate(expression.sentences, first)
        ]
        self.refs.append(
            {
                "ref_id": len(self.refs) + 1,
                "image_id": image_id,
                "ann_id": annotation_ids or [NO_TARGET],
                "split": split,
                "kind": expression.kind,
                "sentences": sentences,
            }
        )

    def _absent(self, photo: Photo) -> Iterator[DerivedExpression]:
        there = {thing.name for thing in photo.things} | photo.unsure
        absent = self.categories.keys() - frozenset().union(*map(may_be, there))
        for name in random.Random(photo.path.name).sample(sorted(absent), min(ABSENT, len(absent))):
            yield DerivedExpression("absent", (f"the {name}",))


def _names(photo: Photo, things: Sequence[Thing]) -> Iterator[DerivedExpression]:
    for name in photo.named:
        group = tuple(thing for thing in things if thing.name == name)
        own, *others = synonyms(name)
        yield DerivedExpression("name", (f"the {own}",), group)
        if others:
            yield DerivedExpression("synonym", tuple(f"the {other}" for other in others), group)
