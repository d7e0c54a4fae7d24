"""CLIPSeg beside the library's own pipeline: processor and one forward pass."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPSegForImageSegmentation, CLIPSegProcessor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from zero_shot.photos import photo

from ris_core.errors import CheckpointError
from ris_core.zero_shot.clipseg import PROCESSOR, CLIPSeg
from ris_core.zero_shot.stand_in import make_clipseg

SENTENCES = ["the dog", "Two CATS on the left, behind it", "die Straße 犬 🐕", "x"]
CLOSE = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clipseg")
    torch.manual_seed(0)
    make_clipseg(made)
    return made


@pytest.fixture(scope="module")
def network(folder: Path) -> CLIPSeg:
    return CLIPSeg.load(folder).eval()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (80, 80), (1, 1), (3, 300)])
def test_finds_what_the_library_finds(folder: Path, network: CLIPSeg, size: tuple[int, int]) -> None:
    processor = CLIPSegProcessor(ViTImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    images = [Image.fromarray(photo(*size))] * len(SENTENCES)
    inputs = processor(text=SENTENCES, images=images, padding=True, return_tensors="pt")
    theirs = CLIPSegForImageSegmentation.from_pretrained(folder).eval()(**inputs).logits
    [image] = network.encode([photo(*size)])
    assert image.frame.size == size and image.frame.canvas == theirs.shape[1:]
    for own, logits in zip(network.find(image, SENTENCES, 0.9), theirs, strict=True):
        torch.testing.assert_close(own.masks, logits[None], **CLOSE)
        surest = float(logits.max().sigmoid())
        assert [own.presence, *own.scores.tolist(), *own.qualities.tolist()] == pytest.approx([surest] * 3)
        assert not own.apart
    assert (theirs[0] - theirs[1]).abs().max() > 1e-4


def test_of_too_long_a_sentence_the_first_words_are_read(network: CLIPSeg) -> None:
    [image] = network.encode([photo(60, 90)])
    long, longer = network.find(image, ["x " * 75, "x " * 250], 0.0)
    assert torch.equal(long.masks, longer.masks)


def test_photos_together_as_alone_and_no_more_is_kept_than_is_read(network: CLIPSeg) -> None:
    images = [photo(60, 90), photo(5, 200), photo(1, 1)]
    for image, together in zip(images, network.encode(images), strict=True):
        [alone] = network.encode([image])
        assert together.frame == alone.frame and len(together.levels[0]) == 3
        for one, other in zip(together.levels[0], alone.levels[0], strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
            assert one.untyped_storage().nbytes() == one.nbytes


def test_features_lie_where_the_photo_has_them(network: CLIPSeg) -> None:
    image = photo(96, 96)
    image[:] = 0
    image[:16, 80:] = 255
    [prepared] = network.encode([image])
    features = network.features(prepared)
    assert features.shape == (32, 6, 6)
    unlike = (features - features.flatten(1).median(dim=1).values[:, None, None]).norm(dim=0)
    assert divmod(int(unlike.argmax()), 6) == (0, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folder: Path, network: CLIPSeg, dtype: torch.dtype) -> None:
    answers = []
    for own in (CLIPSeg.load(folder).eval().to(dtype), network):
        [image] = own.encode([photo(60, 90)])
        answers.append(own.find(image, SENTENCES, 0.0))
    for half, full in zip(*answers, strict=True):
        assert half.masks.dtype == torch.float32
        torch.testing.assert_close(half.masks, full.masks, atol=0.05, rtol=0.05)


def _with_processor(folder: Path, tmp_path: Path, text: str | None) -> Path:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / PROCESSOR).unlink()
    if text is not None:
        (tmp_path / PROCESSOR).write_text(text)
    return tmp_path


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"size": {}}', '{"size": 80, "image_mean": 3}'])
def test_a_damaged_processor_is_refused(folder: Path, tmp_path: Path, text: str | None) -> None:
    with pytest.raises(CheckpointError, match=PROCESSOR):
        CLIPSeg.load(_with_processor(folder, tmp_path, text))


def test_photos_are_taken_as_the_processor_says(folder: Path, tmp_path: Path) -> None:
    says = {"size": 48, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
    own = CLIPSeg.load(_with_processor(folder, tmp_path, json.dumps(says))).eval()
    [image] = own.encode([photo(60, 90)])
    assert image.frame.canvas == (48, 48) and own.find(image, ["x"], 0.0)[0].masks.shape == (1, 48, 48)
    processor = ViTImageProcessorPil(**says | {"size": {"height": 48, "width": 48}})
    [theirs] = processor(photo(60, 90))["pixel_values"]
    np.testing.assert_allclose(own._pixels(photo(60, 90)).numpy(), theirs, atol=5e-6)
