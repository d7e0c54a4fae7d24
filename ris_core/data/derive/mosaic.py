"""Two photos put together into one, so that what each shows alone has to be told apart: "the left dog".

Ours, after the mosaics of object detection (Bochkovskiy et al. 2020). Real photos seldom show two of a class that
people would tell apart, and a model that has seen few such learns to mark them all. Each half is a window of one photo
around a thing of a class that both have. Of what a window cuts nearly off nobody could say what it is: its class is
unsure.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ris_core.data.derive.choices import SMALL, Thing
from ris_core.images import Pixels
from ris_core.masks import Mask, bounding_box

# Of a thing's pixels, in the window.
_SEEN = 0.25
# Things of the shared class that a photo may have: among many, nobody says which.
_MOST = 2
# Of the window's side: how far the thing may lie from its middle.
_ASIDE = 0.15


@dataclass(frozen=True)
class MosaicScene:
    """image: HxWx3 RGB. things: what is labelled. unsure: classes of which more is there than `things`."""

    image: Pixels
    things: tuple[Thing, ...]
    unsure: frozenset[str]


def draw_pairs(classes: Sequence[Sequence[str]], count: int, seed: int = 0) -> Iterator[tuple[int, int, str]]:
    """Draw photos to put together: (first, second, the class that they share), every class as often as any other.

    `classes`: of each photo, the class of each of its things that people would point at.
    """
    photos: dict[str, list[int]] = defaultdict(list)
    for number, names in enumerate(classes):
        for name in sorted(set(names)):
            if names.count(name) <= _MOST:
                photos[name].append(number)
    shared = sorted(name for name, numbers in photos.items() if len(numbers) > 1)
    rng = random.Random(f"mosaic {seed}")
    for _ in range(count if shared else 0):
        name = rng.choice(shared)
        first, second = rng.sample(photos[name], 2)
        yield first, second, name


def join_scenes(first: MosaicScene, second: MosaicScene, name: str, rng: random.Random) -> MosaicScene | None:
    """Both, side by side or one above the other, in a picture as large as the first; None where too little is left.

    Things of the class `name` stay in view. The same randomness gives the same.
    """
    height, width = first.image.shape[:2]
    beside = rng.random() < 0.7
    size = (height, width // 2) if beside else (height // 2, width)
    halves = [_window(scene, name, size, rng) for scene in (first, second)]
    image = np.concatenate([half.image for half in halves], axis=1 if beside else 0)
    things = tuple(
        replace(thing, mask=_placed(thing.mask, image.shape[:2], number, beside))
        for number, half in enumerate(halves)
        for thing in half.things
    )
    unsure = halves[0].unsure | halves[1].unsure
    shown = [any(thing.name == name and thing.mask.mean() >= 2 * SMALL for thing in half.things) for half in halves]
    return MosaicScene(image, things, unsure) if all(shown) and name not in unsure else None


def _window(scene: MosaicScene, name: str, size: tuple[int, int], rng: random.Random) -> MosaicScene:
    """As much of a scene as `size` shows, around its largest thing of the class `name`."""
    scale = max(size[0] / scene.image.shape[0], size[1] / scene.image.shape[1])
    image = cv2.resize(scene.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    centred = max((thing for thing in scene.things if thing.name == name), key=lambda thing: thing.share)
    left, top, across, down = (scale * side for side in bounding_box(centred.mask))
    x = _start(left + across / 2, size[1], image.shape[1], rng)
    y = _start(top + down / 2, size[0], image.shape[0], rng)
    view = slice(y, y + size[0]), slice(x, x + size[1])
    things, unsure = [], set(scene.unsure)
    for thing in scene.things:
        whole = _resized(thing.mask, (image.shape[1], image.shape[0]))
        mask = whole[view]
        if mask.sum() >= _SEEN * max(1, whole.sum()):
            things.append(replace(thing, mask=mask))
        elif mask.any():
            unsure.add(thing.name)
    return MosaicScene(np.asarray(image[view], dtype=np.uint8), tuple(things), frozenset(unsure))


def _start(centre: float, size: int, whole: int, rng: random.Random) -> int:
    """Where a window of `size` begins so that `centre` lies near its middle, within the `whole`."""
    aside = rng.uniform(-_ASIDE, _ASIDE) * size
    return round(min(max(0.0, centre - size / 2 + aside), whole - size))


def _placed(mask: Mask, shape: tuple[int, ...], number: int, beside: bool) -> Mask:
    canvas = np.zeros(shape, dtype=bool)
    height, width = mask.shape
    top, left = (0, number * width) if beside else (number * height, 0)
    canvas[top : top + height, left : left + width] = mask
    return canvas


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), dtype=bool)
