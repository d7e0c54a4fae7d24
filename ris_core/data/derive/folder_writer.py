"""Photos and the masks of what is in them -> a dataset folder, with all that can be said of them.

Conventions: a name's expression is "the <name>"; other words for it follow. Three names that nothing in a photo may go
by are drawn for it with a seed of its own. Other expressions follow from masks and pixels, see `expressions`. Each ref
says its `kind`; `info` in instances.json has the SHA-256 of refs.json. Splits are by file name, see `splits`; pictures
put together of two training photos are for training.
"""

import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ris_core.data.derive.choices import Thing
from ris_core.data.derive.expressions import DerivedExpression, derive_expressions
from ris_core.data.derive.words import may_be, synonyms
from ris_core.data.folder import NO_TARGET
from ris_core.data.splits import split_of
from ris_core.errors import DatasetError
from ris_core.files import atomic_dir, sha256
from ris_core.images import Pixels, read_image, write_image
from ris_core.masks import bounding_box, encode_rle

ABSENT = 3


@dataclass(frozen=True)
class LabelledPhoto:
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
        """Its file name's; a picture that was put together is for training."""
        return split_of(self.path.name) if self.image is None else "train"


def write_folder(out: Path, photos: Iterable[LabelledPhoto], names: Sequence[str], info: dict[str, str]) -> None:
    """Write photos and what is labelled in them as a dataset folder.

    `names` are the categories, of which the absent ones are drawn too; `info` is a description and a licence.

    Raises FileExistsError if `out` is there already, DatasetError if a photo isn't of the size of its masks.
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


class _Tables:
    """The rows of a dataset folder's two files."""

    def __init__(self, names: Sequence[str]) -> None:
        self.categories = {name: number for number, name in enumerate(names, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.refs: list[dict[str, Any]] = []
        self._sentence_ids = count(1)

    def add(self, photo: LabelledPhoto) -> None:
        """The rows of one photo, its objects and its expressions."""
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
            *derive_expressions(there, image, photo.path.name, photo.unsure),
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
        self.refs.append(
            {
                "ref_id": len(self.refs) + 1,
                "image_id": image_id,
                "ann_id": annotation_ids or [NO_TARGET],
                "split": split,
                "kind": expression.kind,
                "sentences": [
                    {"sent_id": next(self._sentence_ids), "sent": sentence, "raw": sentence}
                    for sentence in expression.sentences
                ],
            }
        )

    def _absent(self, photo: LabelledPhoto) -> Iterator[DerivedExpression]:
        there = {thing.name for thing in photo.things} | photo.unsure
        absent = self.categories.keys() - frozenset().union(*map(may_be, there))
        for name in random.Random(photo.path.name).sample(sorted(absent), min(ABSENT, len(absent))):
            yield DerivedExpression("absent", (f"the {name}",))


def _names(photo: LabelledPhoto, things: Sequence[Thing]) -> Iterator[DerivedExpression]:
    for name in photo.named:
        group = tuple(thing for thing in things if thing.name == name)
        own, *others = synonyms(name)
        yield DerivedExpression("name", (f"the {own}",), group)
        if others:
            yield DerivedExpression("synonym", tuple(f"the {other}" for other in others), group)
