"""Mask decoders beside the library's own one-shot pass."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import Sam2Model, SamModel, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
from zero_shot import tiny
from zero_shot.photos import photo

from ris_core.encoders.pixels import IMAGENET
from ris_core.errors import CheckpointError, OutOfMemory
from ris_core.zero_shot import mask_decoder
from ris_core.zero_shot.mask_decoder import MaskDecoder
from ris_core.zero_shot.network import Drawn, Pointed
from ris_core.zero_shot.pixels import normalised, resized
from ris_core.zero_shot.sam import Sam
from ris_core.zero_shot.sam2 import Sam2

DECODERS = {"sam": (Sam, tiny.sam, SamModel), "sam2": (Sam2, tiny.sam2, Sam2Model)}
SIZE = (60, 90)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
both = pytest.mark.parametrize("name", DECODERS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name, (_, make, _) in DECODERS.items():
        made[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        make(made[name])
    return made


@pytest.fixture(scope="module")
def decoders(folders: dict[str, Path]) -> dict[str, MaskDecoder]:
    return {name: kind.load(folders[name]).eval() for name, (kind, _, _) in DECODERS.items()}


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.inference_mode():
        yield


def at(*points: tuple[float, float, int], box: Any = None, mask: Any = None) -> Pointed:
    """Column, row and label of each."""
    places = torch.tensor([point[:2] for point in points]).reshape(-1, 2).float()
    labels = torch.tensor([point[2] for point in points], dtype=torch.long)
    return Pointed(places, labels, None if box is None else torch.tensor(box).float(), mask)


PRIOR = torch.linspace(-8, 8, 64 * 64).reshape(64, 64)
PROMPTS = {
    "a click": at((100, 80, 1)),
    "a click beside": at((100, 80, 0)),
    "clicks": at((100, 80, 1), (20, 30, 0), (50, 50, 1)),
    "a box": at(box=(10, 20, 150, 100)),
    "a box and clicks": at((100, 80, 1), (20, 30, 0), box=(10, 20, 150, 100)),
    "a mask": at(mask=PRIOR),
    "a click on a mask": at((100, 80, 1), mask=PRIOR),
}


def draw(decoder: MaskDecoder, *prompts: Pointed, size: tuple[int, int] = SIZE) -> list[Drawn]:
    [image] = decoder.encode([photo(*size)])
    return decoder.draw(image.levels[0], prompts)


def alike(one: Drawn, other: Drawn) -> None:
    torch.testing.assert_close(one.mask, other.mask, **CLOSE)
    assert one.quality == pytest.approx(other.quality, abs=1e-5)


def theirs(name: str, folder: Path, prompt: Pointed) -> Drawn:
    """By the whole network in one pass; the canvas of SAM by its processor, that of SAM 2 as its configuration says."""
    model = DECODERS[name][2].from_pretrained(folder).eval()
    if name == "sam":
        processor = SamImageProcessorPil(size={"longest_edge": 256}, pad_size={"height": 256, "width": 256})
        pixels = processor(photo(*SIZE), return_tensors="pt")["pixel_values"].float()
    else:
        pixels = normalised(resized(photo(*SIZE), (256, 256)), IMAGENET)[None]
    clicks = {"input_points": prompt.points[None, None], "input_labels": prompt.labels[None, None]}
    output = model(
        pixel_values=pixels,
        input_boxes=None if prompt.box is None else prompt.box[None, None],
        input_masks=None if prompt.mask is None else prompt.mask[None, None],
        multimask_output=prompt is PROMPTS["a click"],
        **(clicks if len(prompt.points) else {}),
    )
    best = int(output.iou_scores[0, 0].argmax())
    return Drawn(output.pred_masks[0, 0, best], float(output.iou_scores[0, 0, best]))


@both
@pytest.mark.parametrize("prompt", PROMPTS)
def test_draws_what_the_library_draws(
    folders: dict[str, Path], decoders: dict[str, MaskDecoder], name: str, prompt: str
) -> None:
    [own] = draw(decoders[name], PROMPTS[prompt])
    alike(own, theirs(name, folders[name], PROMPTS[prompt]))


@both
def test_prompts_together_as_alone_and_in_their_order(
    decoders: dict[str, MaskDecoder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = [at(box=(left, 10, left + 60, 90 + left)) for left in range(0, 180, 9)]
    asked = [prompt for pair in zip(boxes, list(PROMPTS.values()) * 3, strict=False) for prompt in pair]
    together = draw(decoders[name], *asked)
    assert len(together) == len(asked)
    for prompt, own in zip(asked, together, strict=True):
        alike(own, draw(decoders[name], prompt)[0])
    monkeypatch.setattr(mask_decoder, "_MASKS", 3)
    for own, chunked in zip(together, draw(decoders[name], *asked), strict=True):
        alike(own, chunked)


@both
def test_never_more_masks_at_once_than_bounded(
    decoders: dict[str, MaskDecoder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, decode = [], type(decoders[name]).decode

    def counted(self: MaskDecoder, embedding: Any, **prompts: Any) -> Any:
        counts.append(len(embedding[-1]))
        return decode(self, embedding, **prompts)

    monkeypatch.setattr(type(decoders[name]), "decode", counted)
    draw(decoders[name], *[at(box=(0, 0, 50, 50))] * 40)
    assert counts == [16, 16, 8]


@both
def test_photos_together_as_alone(decoders: dict[str, MaskDecoder], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskDecoder, "photos_together", 3)
    sizes = [(60, 90), (90, 60), (1, 1), (3, 200), (64, 64)]
    images = [photo(*size) for size in sizes]
    for image, size, prepared in zip(images, sizes, decoders[name].encode(images), strict=True):
        [alone] = decoders[name].encode([image])
        assert prepared.frame == alone.frame and prepared.frame.size == size
        for level, other in zip(prepared.levels[0], alone.levels[0], strict=True):
            torch.testing.assert_close(level, other, **CLOSE)
            # A photo that is forgotten frees its memory, whatever it was encoded with.
            assert level.untyped_storage().nbytes() == level.nbytes


def test_a_place_lands_where_the_processor_of_sam_puts_it(decoders: dict[str, MaskDecoder]) -> None:
    processor = SamProcessor(SamImageProcessorPil(size={"longest_edge": 256}, pad_size={"height": 256, "width": 256}))
    for size in [(60, 90), (90, 60), (333, 101)]:
        height, width = size
        inputs = processor(
            photo(*size), input_boxes=[[[0.25 * width, 0.5 * height, width, height]]], return_tensors="pt"
        )
        rows, columns = decoders["sam"].frame(photo(*size)).inner
        expected = [0.25 * columns, 0.5 * rows, columns, rows]
        torch.testing.assert_close(
            inputs["input_boxes"][0, 0].float(), torch.tensor(expected).float(), atol=0.6, rtol=0
        )


@both
def test_an_earlier_mask_of_another_grid(decoders: dict[str, MaskDecoder], name: str) -> None:
    fine = F.interpolate(PRIOR[None, None], scale_factor=2, mode="bilinear", align_corners=False)[0, 0]
    [own], [other] = draw(decoders[name], at(mask=fine)), draw(decoders[name], at(mask=PRIOR))
    torch.testing.assert_close(own.mask, other.mask, atol=0.05, rtol=0.01)


@both
def test_features_are_nothing_where_there_is_no_photo(decoders: dict[str, MaskDecoder], name: str) -> None:
    [wide] = decoders[name].encode([photo(60, 120)])
    features = decoders[name].features(wide)
    empty = (features == 0).all(dim=0)
    assert features.shape == (32, 16, 16)
    assert empty[8:].all() == (name == "sam") and not empty[:8].any()
    assert not (wide.levels[0][-1] == 0).all(dim=1).any()


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(folders: dict[str, Path], name: str, dtype: torch.dtype) -> None:
    decoder = DECODERS[name][0].load(folders[name]).eval()
    full = draw(decoder, *PROMPTS.values())
    for half, one in zip(draw(decoder.to(dtype), *PROMPTS.values()), full, strict=True):
        assert half.mask.dtype == torch.float32 and torch.isfinite(half.mask).all()
        assert ((half.mask > 0) == (one.mask > 0)).float().mean() > 0.95
        assert abs(half.quality - one.quality) < 0.2 * max(1, abs(one.quality))


@both
def test_less_memory_takes_smaller_steps_and_none_says_so(
    decoders: dict[str, MaskDecoder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, counts = type(decoders[name]).decode, []

    def limited(self: MaskDecoder, embedding: Any, most: int = 4, **prompts: Any) -> Any:
        counts.append(len(embedding[-1]))
        if len(embedding[-1]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, embedding, **prompts)

    monkeypatch.setattr(type(decoders[name]), "decode", limited)
    assert len(draw(decoders[name], *[at(box=(0, 0, 50, 50))] * 6)) == 6 and counts == [6, 3, 3]
    monkeypatch.setattr(type(decoders[name]), "decode", lambda self, embedding, **prompts: limited(self, embedding, 0))
    with pytest.raises(OutOfMemory, match="smaller model"):
        draw(decoders[name], at(box=(0, 0, 50, 50)))


@both
def test_damaged_files_are_refused(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    shutil.copytree(folders[name], tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="doesn't hold the weights"):
        DECODERS[name][0].load(tmp_path)
