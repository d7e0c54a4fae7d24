"""The dataset folder that training, evaluation and export share: `images/`, `instances.json`, `refs.json`.

`instances.json` is COCO's format; `refs.json` holds gRefCOCO's refs: `ref_id`, `image_id`, `ann_id` (a list, [-1] where
the thing isn't in the photo), `split` and `sentences` of `sent_id`, `sent`, `raw`; where annotators corrected a model's
answers, `origin` says what became of them. A number alone in `ann_id`, as RefCOCO has it, is read too.
"""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ris_core.errors import DatasetError
from ris_core.images import Pixels, read_image
from ris_core.masks import Mask, segmentation_to_mask

NO_TARGET = -1


class LazyMask(ABC):
    """The mask of an object that isn't in one of COCO's forms, and is made when it is needed."""

    @abstractmethod
    def mask(self, height: int, width: int) -> Mask:
        """height x width bool. Raises DatasetError if there is no such mask, or one of another size."""


@dataclass(frozen=True)
class Sample:
    """One expression about one photo. A photo decoded has `height` x `width` pixels, its orientation applied.

    `segmentations` has one entry for each object meant, in any of COCO's forms or a `LazyMask`. `ref_id` numbers the
    refs of a split: the expressions of one ref mean the same objects. `coco_id` is COCO's number of the photo where
    a set says it that names its photos otherwise. `kind` says how the expression came about, see
    `derive.expressions.ExpressionKind`; `origin` how its mask did: "accepted" or "corrected" by an annotator, drawn
    ("manual"), "absent", "taught" by another model, or "" for unknown.
    """

    image: Path
    image_id: int
    ref_id: int
    split: str
    sentence: str
    height: int
    width: int
    segmentations: tuple[Any, ...]
    coco_id: int | None = None
    kind: str = "name"
    origin: str = ""

    @property
    def has_target(self) -> bool:
        """Whether anything in the photo is meant."""
        return bool(self.segmentations)

    def photo(self) -> Pixels:
        """height x width x 3 RGB in [0, 255]. Raises ImageError if unreadable, DatasetError if its size differs."""
        image = read_image(self.image)
        if image.shape[:2] != (self.height, self.width):
            raise DatasetError(f"{self.image} isn't of the size that its dataset says. Convert or unpack it again.")
        return image

    def mask(self) -> Mask:
        """height x width bool: the union of the referred objects, empty where there is none."""
        size = self.height, self.width
        union = np.zeros(size, dtype=bool)
        for segmentation in self.segmentations:
            lazy = isinstance(segmentation, LazyMask)
            union |= segmentation.mask(*size) if lazy else segmentation_to_mask(segmentation, *size)
        return union


def read_folder(folder: Path, split: str | None = None) -> list[Sample]:
    """Every expression of a dataset folder, or of one split, in the order of `refs.json`.

    Raises DatasetError if a file is missing, isn't JSON, or points at an image or annotation that isn't there.
    """
    splits, source = None if split is None else {split}, folder / "refs.json"
    try:
        instances, refs = read_json(folder / "instances.json"), read_json(source)
    except FileNotFoundError as error:
        raise DatasetError(
            f"{error.filename} is missing. A dataset folder holds images/, instances.json and refs.json."
        ) from None
    return list(samples_of(refs, instances, folder / "images", splits, source))


def samples_of(
    refs: Any, instances: Any, photos: Path, splits: Collection[str] | None, source: Path
) -> Iterator[Sample]:
    """RefCOCO's refs and COCO's instances -> the expressions of `splits`, or all, in the order of `refs`.

    `source` is the file that the refs came from. Of several objects crowds are left out, as in ReLA's gRefCOCO.

    Raises DatasetError if refs and instances don't fit together.
    """
    try:
        images = {image["id"]: image for image in instances["images"]}
        annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
        for ref in refs:
            if splits is None or ref["split"] in splits:
                yield from _samples(photos, ref, images, annotations)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{source} doesn't fit its instances.json: {error!r}. Unpack both again.") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises DatasetError if it isn't JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} isn't JSON: {error}.") from None


def _samples(
    photos: Path, ref: dict[str, Any], images: dict[Any, Any], annotations: dict[Any, Any]
) -> Iterator[Sample]:
    image, targets = images[ref["image_id"]], _targets(ref, annotations)
    for sentence in ref["sentences"]:
        yield Sample(
            image=photos / image["file_name"],
            image_id=ref["image_id"],
            ref_id=ref["ref_id"],
            split=ref["split"],
            sentence=sentence["sent"],
            height=image["height"],
            width=image["width"],
            segmentations=targets,
            kind=ref.get("kind", "name"),
            origin=str(ref.get("origin", "")),
        )


def _targets(ref: dict[str, Any], annotations: dict[Any, Any]) -> tuple[Any, ...]:
    meant = [annotations[number] for number in meant_annotations(ref)]
    if any(annotation["image_id"] != ref["image_id"] for annotation in meant):
        raise ValueError(f"ref {ref['ref_id']} means an annotation of another photo")
    # A ref that means a crowd alone keeps it: without, it would seem to mean nothing.
    things = [annotation for annotation in meant if not annotation.get("iscrowd")] or meant
    return tuple(annotation["segmentation"] for annotation in things)


def meant_annotations(ref: Mapping[str, Any]) -> list[int]:
    """The numbers of the annotations that a ref of RefCOCO, gRefCOCO or ours means; none where it means nothing."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    return [number for number in ids if number != NO_TARGET]


def by_photo(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Samples grouped by photo, photos in order of first appearance."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[str(sample.image)].append(sample)
    yield from groups.values()
