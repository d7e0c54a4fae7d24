"""What holds for every design alike."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch
from models.encoders import Small
from torch import Tensor

from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.inference.prediction import RawPrediction
from ris_core.inference.predictor import Predictor
from ris_core.models import MODELS, OPTIONS
from ris_core.models.base import Canvas, RISModel
from ris_core.models.layers import valid_cells

SENTENCES = ["the cat", "a red cup on the table"]


def build(name: str, **options: object) -> RISModel:
    torch.manual_seed(5)
    encoders = image_encoder("efficientnet-lite0"), text_encoder("minilm")
    return MODELS[name](*encoders, OPTIONS[name](width=32, **options)).eval()


@pytest.mark.parametrize("name", MODELS)
def test_every_switch_is_documented_in_a_line_of_its_own(name: str) -> None:
    documented = re.findall(r"(?:^|\. )\s*(\w+): ", OPTIONS[name].__doc__ or "", flags=re.MULTILINE)
    assert set(documented) >= {field.name for field in fields(OPTIONS[name])}


@pytest.mark.parametrize("name", MODELS)
def test_sixteen_threads_give_the_serial_results(name: str) -> None:
    predictor = Predictor(build(name), OperatingPoint(side=64), "test")
    random = np.random.default_rng(0)
    work = [
        (random.integers(0, 255, (32 + 3 * number, 60, 3), dtype=np.uint8), [f"thing {number}", "the cat on the left"])
        for number in range(16)
    ]

    def answer(item: tuple[np.ndarray, list[str]], by: Predictor = predictor) -> list[RawPrediction]:
        return by.predict_raw([(by.embed(item[0]), item[1])])

    with ThreadPoolExecutor(16) as pool:
        threaded = list(pool.map(answer, work))
    serial = [answer(item, Predictor(predictor.model, predictor.point, "test")) for item in work]
    for expected, found in zip(serial, threaded, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert np.allclose(one.probability, other.probability, atol=1e-4)
            assert one[1:4] == pytest.approx(other[1:4], abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_levels_may_share_a_stride(name: str) -> None:
    torch.manual_seed(5)
    model = MODELS[name](Small(), text_encoder("minilm"), OPTIONS[name](width=32)).eval()
    with torch.inference_mode():
        photos = model.encode_image(torch.rand(1, 3, 64, 96) * 255, torch.ones(1, 1, 64, 96))
        output = model(photos, model.encode_text(SENTENCES), torch.tensor([0, 0]))
    assert output.mask.shape == (2, 1, 16, 24)
    assert output.presence.shape == output.quality.shape == (2,)


DEEP = [(name, {}) for name in MODELS] + [
    ("haris", {"order": "shallow first"}),
    ("haris", {"hierarchical": False}),
    ("maris", {"enhancement": False}),
    ("vipa", {"fusion": "none"}),
    ("vipa", {"fusion": "early"}),
]


@pytest.mark.parametrize(("name", "options"), DEEP)
def test_the_deepest_features_are_those_of_the_encoders_deep_level(name: str, options: dict[str, object]) -> None:
    model = build(name, **options)
    shallow, _, deep = model.image_encoder.pyramid
    pixels, valid = torch.rand(2, 3, 64, 96) * 255, torch.ones(2, 1, 64, 96)
    valid[1, :, 32:] = 0

    def deepest(changed: int | None = None) -> Tensor:
        """Of a photo, one level of the encoder taken away."""
        if changed is None:
            return model.deepest(model.encode_image(pixels, valid))
        levels = model.image_encoder(pixels * valid)
        levels[changed] = torch.zeros_like(levels[changed])
        return model.deepest_level(model.read_levels(levels, valid))

    with torch.inference_mode():
        plain, without_shallow, without_deep = deepest(), deepest(shallow), deepest(deep)
    cells = valid_cells(valid, plain)
    assert plain.shape[:2] == (2, 32) and plain.shape[-1] in {3, 6, 12}
    assert not (plain * (1 - cells)).any() and plain[1].any()
    assert torch.equal(plain, without_shallow)
    assert not torch.allclose(plain[0], without_deep[0], atol=1e-3)


def test_only_early_fusion_keeps_pixels() -> None:
    image = np.zeros((40, 60, 3), dtype=np.uint8)
    for name in MODELS:
        levels = Predictor(build(name), OperatingPoint(side=64), "").embed(image).levels
        assert not any(isinstance(level, Canvas) for level in levels)
    early = Predictor(build("vipa", fusion="early"), OperatingPoint(side=64), "").embed(image)
    assert [type(level) for level in early.levels] == [Canvas]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_cpu_and_gpu_agree(name: str) -> None:
    model = build(name)
    pixels, valid = torch.rand(1, 3, 64, 96) * 255, torch.ones(1, 1, 64, 96)

    def answer(device: str) -> list[Tensor]:
        with torch.inference_mode():
            model.place(torch.device(device))
            photos = model.encode_image(pixels.to(device), valid.to(device))
            index = torch.zeros(2, dtype=torch.long, device=device)
            output = model(photos, model.encode_text(SENTENCES), index)
        return [part.cpu() for part in output[:3]]

    try:
        for one, other in zip(answer("cpu"), answer("cuda"), strict=True):
            assert torch.allclose(one, other, atol=1e-2)
    finally:
        model.place(torch.device("cpu"))


@pytest.mark.parametrize("thin", [(3, 64), (64, 2), (1, 1), (32, 32)])
def test_every_photo_has_a_cell(thin: tuple[int, int]) -> None:
    valid = torch.zeros(1, 1, 64, 64)
    valid[..., : thin[0], : thin[1]] = 1
    for side in (16, 4, 2):
        cells = valid_cells(valid, torch.zeros(1, 1, side, side))
        assert cells.sum() >= 1
        assert set(cells.unique().tolist()) <= {0.0, 1.0}
