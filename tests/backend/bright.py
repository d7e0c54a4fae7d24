"""A zero-shot segmenter for tests: it finds what is bright; "the dark ..." is never there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ris_core.checkpoint_files import OperatingPoint, pointer_folder
from ris_core.inference.frame import Frame, Image
from ris_core.inference.segmenter import PreparedImage
from ris_core.zero_shot import loading
from ris_core.zero_shot.network import Drawn, Found, Pointed, ZeroShotNetwork
from ris_core.zero_shot.pointer import part_folder, write_pointer
from ris_core.zero_shot_catalogue import find_zero_shot

NAME = "grounding-dino+sam2"
_REVISION = "0" * 40


class _Level(NamedTuple):
    logits: Tensor
    valid: Tensor


class BrightNetwork(ZeroShotNetwork):
    """Bright pixels are the thing; a click gives them, too."""

    clickable = True
    encoded = 0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, images: Sequence[Image]) -> list[PreparedImage]:
        BrightNetwork.encoded += len(images)
        prepared = []
        for image in images:
            height, width = image.shape[:2]
            bright = torch.tensor(image).float().mean(dim=2)[None, None]
            logits = ((bright - 130) / 8).to(self.dtype)
            frame = Frame((height, width), (height, width), (height, width))
            prepared.append(PreparedImage((_Level(logits, torch.ones_like(logits)),), frame))
        return prepared

    def find(self, image: PreparedImage, sentences: Sequence[str], least: float) -> list[Found]:
        logits = image.levels[0][0][0]
        nothing = Found(logits[:0], torch.zeros(0), torch.zeros(0), 0.02)
        found = Found(logits, torch.tensor([0.97]), torch.tensor([0.97]), 0.97)
        return [nothing if "dark" in sentence else found for sentence in sentences]

    def features(self, image: PreparedImage) -> Tensor:
        return image.levels[0][0][0]

    def draw(self, image: PreparedImage, pointed: Sequence[Pointed]) -> list[Drawn]:
        return [Drawn(image.levels[0][0][0, 0], 0.97) for _ in pointed]


def install(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """Have it fetched -> its pointer. The weights are files of a few bytes."""
    monkeypatch.setenv("RIS_CACHE", str(cache))
    monkeypatch.setitem(loading.NETWORKS, NAME, _build)
    entry = find_zero_shot(NAME)
    revisions = {part: source.revision or _REVISION for part, source in entry.sources.items()}
    for part, source in entry.sources.items():
        folder = part_folder(source, revisions[part])
        folder.mkdir(parents=True)
        for file in (source.file, *source.beside):
            (folder / file).write_text(f"{part} {file}")
    folder = pointer_folder(NAME)
    write_pointer(entry, revisions, OperatingPoint(side=1024), folder, "# A segmenter for tests\n")
    return folder


def _build(parts: Mapping[str, Path]) -> ZeroShotNetwork:
    assert set(parts) == {"detector", "masks"}
    return BrightNetwork()
