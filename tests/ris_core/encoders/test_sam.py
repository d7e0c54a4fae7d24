"""SAM's encoder against the authors' own package, from a checkpoint as that package saves it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import SamVisionConfig

from ris_core.encoders import IMAGE_ENCODERS, sam
from ris_core.encoders.fetch import fetch
from ris_core.encoders.sam import Sam, convert
from ris_core.encoders.weights import Official
from ris_core.errors import CheckpointError
from ris_core.files import sha256

NAME = "sam-vit-b"


def small() -> SamVisionConfig:
    """The size of `official_sam.py`."""
    return SamVisionConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=8,
        global_attn_indexes=(1, 3, 5, 7),
        image_size=256,
    )


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("official")
    script = Path(__file__).with_name("official_sam.py")
    subprocess.run([sys.executable, script, folder], check=True, timeout=200)
    return folder


@pytest.fixture(scope="module")
def features(official: Path) -> dict[str, Any]:
    made: dict[str, Any] = torch.load(official / "features.pt")
    return made


@pytest.fixture
def checkpoint(official: Path) -> Path:
    return official / "official.pth"


@pytest.fixture
def source(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Official:
    """The small official file, in the place of the real one."""
    monkeypatch.setenv("RIS_CACHE", str(tmp_path))
    source = Official("http://127.0.0.1:9/official.pth", sha256(checkpoint), partial(convert, config=small()))
    monkeypatch.setitem(IMAGE_ENCODERS, NAME, replace(IMAGE_ENCODERS[NAME], source=source))
    return source


def test_levels_equal_the_official_encoder(checkpoint: Path, source: Official, features: dict[str, Any]) -> None:
    fetch(NAME, checkpoint)
    levels = Sam.load(NAME, source, small())(features["photo"])
    assert len(levels) == len(features["levels"]) == 5
    for ours, theirs in zip(levels, features["levels"], strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", ["sam-vit-b", "sam-vit-l", "sam-vit-h"])
def test_every_size_fits_the_official_names_and_shapes(name: str, features: dict[str, Any]) -> None:
    shapes = features["shapes"][name.removeprefix("sam-").replace("-", "_")]
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = sam.ENTRIES[name].source.convert(tensors)
    assert len(converted) == sum(key.startswith("image_encoder.") for key in tensors)


def changed(checkpoint: Path, change: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = torch.load(checkpoint)
    if change == "missing":
        del tensors["image_encoder.blocks.3.attn.qkv.bias"]
    if change == "unknown":
        tensors["image_encoder.blocks.3.attn.extra"] = torch.ones(1)
    if change == "shape":
        tensors["image_encoder.neck.0.weight"] = torch.ones(256, 7, 1, 1)
    if change == "decoder alone":
        tensors = {name: each for name, each in tensors.items() if not name.startswith("image_encoder.")}
    return tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"don't fit the network: 1 tensors missing: layers\.3\.attn\.qkv\.bias\.$"),
        ("unknown", r"don't fit the network: 1 tensors unknown: layers\.3\.attn\.extra\.$"),
        (
            "shape",
            r"1 tensors of another shape: neck\.conv1\.weight is \(256, 7, 1, 1\), not \(256, 32, 1, 1\)\.$",
        ),
        ("decoder alone", r"\d+ tensors missing: layers\.0\.attn\.proj\.bias, layers\.0\..* and \d+ more\.$"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint: Path, change: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(changed(checkpoint, change), small())


def test_a_checkpoint_of_another_size_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="don't fit the network"):
        sam.ENTRIES["sam-vit-l"].source.convert(torch.load(checkpoint))


@pytest.mark.usefixtures("source")
def test_another_file_than_the_official_one_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save(torch.load(checkpoint) | {"one": torch.ones(1)}, other)
    with pytest.raises(CheckpointError, match=r"other\.pth isn't the published file"):
        fetch(NAME, other)
