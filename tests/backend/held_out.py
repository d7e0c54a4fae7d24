"""A snapshot whose photos are all held out, so that two versions can be compared on it."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
from annotated import CONFIG, absent, annotation, drawn, task, typed
from PIL import Image

from backend.datasets.annotations import Correction, read_corrections
from backend.datasets.snapshots import Snapshot, build_snapshot
from ris_core.data import split_of
from ris_core.files import sha256

PROJECT = 7
HEIGHT, WIDTH = 30, 40


@cache
def pictures() -> list[bytes]:
    """Six pictures that are held out."""
    found = []
    for shade in range(256):
        file = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT), (shade, 90, 120)).save(file, "PNG")
        if split_of(sha256(file.getvalue())) != "train":
            found.append(file.getvalue())
    return found[:6]


def snapshot(home: Path, photos: int = 6, sentence: str = "the cat") -> Snapshot:
    """The right half of each picture is what the sentence says; in the last one there is none."""
    half = np.zeros((HEIGHT, WIDTH), dtype=bool)
    half[:, WIDTH // 2 :] = True
    said = [[drawn("a", half, "cat", sentence)]] * (photos - 1) + [[typed(sentence), absent()]]
    tasks = [task(number, annotation(number, *result)) for number, result in enumerate(said, 1)]

    def fetch(correction: Correction) -> bytes:
        return pictures()[correction.task - 1]

    return build_snapshot(PROJECT, read_corrections(tasks, CONFIG), CONFIG, fetch, home)
