"""A zero-shot segmenter of a few bytes: its files, a pointer to them, and a network that goes by brightness."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from ris_core import checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.inference.frame import Frame, Image
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot import loading
from ris_core.zero_shot.network import Drawn, Found, Pointed, ZeroShotNetwork
from ris_core.zero_shot.pointer import part_folder, write_pointer
from ris_core.zero_shot_catalogue import CATALOGUE, Source

REVISION = "ab" * 20
# Of pixels, as a mean over colours.
BRIGHT = 150


class BrightNetwork(ZeroShotNetwork):
    """Finds what is bright unless a sentence says nothing, draws boxes, and squares around clicks."""

    clickable = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        """Photos are kept as they are."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return [
            PreparedImage([(torch.from_numpy(image.copy()),)], Frame(size, size, size))
            for image, size in zip(images, sizes, strict=True)
        ]

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        """One mask a sentence."""
        return [self._found(image, "nothing" not in sentence) for sentence in sentences]

    def _found(self, image: PreparedImage, finds: bool) -> Found:
        bright = _grey(image) > BRIGHT
        if not finds or not bright.any():
            return Found(torch.zeros(0, *bright.shape), torch.zeros(0), torch.zeros(0), 0.1)
        return Found(torch.where(bright, 8.0, -8.0)[None], torch.tensor([0.9]), torch.ones(1), 0.9)

    def features(self, image: PreparedImage) -> Tensor:
        """Brightness, where cells are pixels."""
        return _grey(image)[None]

    def draw(self, image: PreparedImage, pointed: Sequence[Pointed]) -> list[Drawn]:
        """The box, else a square of nine pixels around the first point."""
        drawn = []
        for one in pointed:
            mask = torch.full(image.frame.canvas, -8.0)
            if one.box is None:
                column, row = (int(value) for value in one.points[0])
                sides = max(0, column - 4), max(0, row - 4), column + 5, row + 5
            else:
                sides = tuple(int(side) for side in one.box)
            left, top, right, bottom = sides
            mask[top:bottom, left:right] = 8.0
            drawn.append(Drawn(mask, 0.8))
        return drawn


def _grey(image: PreparedImage) -> Tensor:
    pixels: Tensor = image.levels[0][0]
    return pixels.float().mean(dim=2)


def make_commit(source: Source, folder: Path, size: int = 3) -> Path:
    """A commit of a few bytes: weights that are safetensors, of `size` numbers, and words beside them."""
    folder.mkdir(parents=True)
    save_file({"a": np.arange(size, dtype=np.float32)}, folder / source.file)
    for name in source.beside:
        (folder / name).write_text(f"{source.repo} {name}")
    return folder


def fake_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pointers of that name loaded as `BrightNetwork`."""

    def build(parts: Mapping[str, Path]) -> ZeroShotNetwork:
        assert parts.keys() == CATALOGUE[name].sources.keys()
        return BrightNetwork()

    monkeypatch.setitem(loading.NETWORKS, name, build)


def fake_files(name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of all parts below `cache`, from where weights are taken from then on."""
    monkeypatch.setenv("RIS_CACHE", str(cache))
    for source in CATALOGUE[name].sources.values():
        folder = part_folder(source, REVISION)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (source.file, *source.beside):
            (folder / file).write_text(f"{source.repo} {file}")


def fake_pointer(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, point: OperatingPoint | None = None, card: str = "# Fake"
) -> Path:
    """As fetching leaves it: the files, the pointer in its place, and a network that answers by brightness."""
    fake_files(name, cache, monkeypatch)
    fake_network(name, monkeypatch)
    folder = checkpoint_files.pointer_folder(name)
    shutil.rmtree(folder, ignore_errors=True)
    entry = CATALOGUE[name]
    write_pointer(entry, dict.fromkeys(entry.sources, REVISION), point or OperatingPoint(), folder, card)
    return folder
