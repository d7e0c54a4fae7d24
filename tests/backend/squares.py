"""A project to learn from: dark photos with a bright square in each."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from annotated import absent, annotation, drawn, task, typed
from PIL import Image
from studio import Studio

from ris_core.data import split_of
from ris_core.files import sha256

SENTENCE = "the bright square"
HEIGHT, WIDTH = 48, 64


def picture(seed: int) -> tuple[bytes, np.ndarray]:
    """A dark photo with a bright square, and the square's mask."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    top, left = rng.integers(0, [16, 32])
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[top : top + 32, left : left + 32] = True
    pixels[mask] += 150
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), mask


@cache
def pictures() -> list[tuple[bytes, np.ndarray]]:
    """Eight pictures that the hash puts into the training split, then four that it holds out."""
    kept: dict[bool, list[tuple[bytes, np.ndarray]]] = {True: [], False: []}
    for found in map(picture, range(60)):
        kept[split_of(sha256(found[0])) == "train"].append(found)
    return kept[True][:8] + kept[False][:4]


def correction(number: int, mask: np.ndarray | None) -> dict[str, Any]:
    result = [typed(SENTENCE), absent()] if mask is None else [drawn("a", mask, "cat", SENTENCE)]
    return task(number, annotation(number, *result))


def annotated_studio() -> Studio:
    """Eight annotated photos to train on, four that are held out; the square is in all of them."""
    found = dict(enumerate(pictures(), 1))
    tasks = [correction(number, mask) for number, (_, mask) in found.items()]
    uploads = {entry["data"]["image"]: found[entry["id"]][0] for entry in tasks}
    return Studio(tasks, uploads)
