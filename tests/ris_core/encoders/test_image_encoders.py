"""What every image encoder owes the models, held on tiny ones; and each against transformers on the same weights."""

from __future__ import annotations

import copy

import pytest
import torch
from encoders import tiny
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, SwinModel
from transformers.models.sam.modeling_sam import SamVisionEncoder

from ris_core.encoders import image_encoder
from ris_core.encoders.adapters import tune
from ris_core.encoders.base import ImageEncoder
from ris_core.encoders.pixels import CLIP, IMAGENET
from ris_core.encoders.sam import Sam
from ris_core.encoders.weights import pretrained
from ris_core.tuning import Tuning


@pytest.fixture(scope="module", params=tiny.IMAGE)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    return tiny.image(request.param, tmp_path_factory.mktemp(request.param))


def unlike(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [not torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 32), (160, 128)])
def test_levels_are_as_declared_on_any_canvas(encoder: ImageEncoder, size: tuple[int, int]) -> None:
    height, width = size
    levels = encoder(tiny.pixels(height, width))
    assert len(levels) == len(encoder.stages)
    for level, channels, stride in zip(levels, encoder.channels, encoder.strides, strict=True):
        assert level.shape == (2, channels, height // stride, width // stride)
        assert level.isfinite().all()


def test_a_small_canvas_leaves_nothing_behind(encoder: ImageEncoder) -> None:
    before = encoder(tiny.pixels(128, 128))
    encoder(tiny.pixels(32, 32))
    assert not any(unlike(before, encoder(tiny.pixels(128, 128))))


def test_photos_in_a_batch_are_encoded_alone(encoder: ImageEncoder) -> None:
    both, second = encoder(tiny.pixels()), encoder(tiny.pixels()[1:])
    assert not any(unlike([level[1:] for level in both], second))


def test_it_is_frozen_and_stays_in_evaluation(encoder: ImageEncoder) -> None:
    assert encoder.frozen == len(encoder.stages)
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert not any(module.training for module in encoder.train().modules())
    # All models of a process share it: nobody says of it what isn't so.
    with pytest.raises(AttributeError):
        encoder.frozen = 0


def test_the_pyramid_grows_coarser(encoder: ImageEncoder) -> None:
    shallow, middle, deep = encoder.pyramid
    assert shallow < middle < deep
    assert encoder.strides[shallow] <= encoder.strides[middle] <= encoder.strides[deep]


@pytest.mark.parametrize("frozen", [0, 1, 3])
def test_trunk_and_tail_make_the_whole(encoder: ImageEncoder, frozen: int) -> None:
    trained = copy.deepcopy(encoder)
    trained.stages[frozen:].requires_grad_(True)
    trunk = trained.trunk(tiny.pixels())
    assert len(trunk.levels) == frozen
    assert all(torch.equal(a, b) for a, b in zip(trained.tail(trunk), trained(tiny.pixels()), strict=True))


def test_adding_nothing_changes_nothing(encoder: ImageEncoder) -> None:
    levels = encoder(tiny.pixels(), enrich=lambda _, level: torch.zeros_like(level))
    assert all(torch.equal(a, b) for a, b in zip(levels, encoder(tiny.pixels()), strict=True))


def test_what_is_added_reaches_later_levels(encoder: ImageEncoder) -> None:
    def enrich(number: int, level: Tensor) -> Tensor:
        return level.flip(1) if number == 1 else torch.zeros_like(level)

    changed = unlike(encoder(tiny.pixels(), enrich), encoder(tiny.pixels()))
    assert changed == [False, *(True for _ in encoder.stages[1:])]


def test_it_runs_in_half_precision(encoder: ImageEncoder) -> None:
    expected = encoder(tiny.pixels())
    with torch.autocast("cpu", torch.bfloat16):
        levels = encoder(tiny.pixels())
    for level, exact in zip(levels, expected, strict=True):
        assert (level.float() - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("stages", [1, 2])
def test_adapters_learn_in_its_last_stages(encoder: ImageEncoder, stages: int) -> None:
    adapted = tune(encoder, Tuning("adapters", stages=stages, rank=2))
    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    before = adapted(tiny.pixels())
    assert not any(unlike(before, encoder(tiny.pixels())))
    optimizer = torch.optim.SGD(weights, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (adapted(tiny.pixels())[-1] - before[-1].detach() - 1).square().mean().backward()
        optimizer.step()
    assert weights
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)
    unchanged = len(encoder.stages) - stages
    assert unlike(adapted(tiny.pixels()), before)[:unchanged] == [False] * unchanged
    assert unlike(adapted(tiny.pixels()), before)[-1]


def normalised(pixels: Tensor, constants: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in constants)
    return (pixels - mean) / deviation


def test_constants_are_those_of_the_image_processors() -> None:
    from transformers.image_utils import (
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
        OPENAI_CLIP_MEAN,
        OPENAI_CLIP_STD,
    )

    theirs = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD), (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    for ours, published in zip((*IMAGENET, *CLIP), (*theirs[0], *theirs[1]), strict=True):
        assert [value / 255 for value in ours] == pytest.approx(published, abs=1e-9)


@pytest.mark.parametrize("variant", [0, 2])
def test_efficientnet_lite_equals_its_package(variant: int) -> None:
    network = tiny.published_efficientnet(variant)
    last, x = {}, (tiny.pixels(128, 128) - 127) / 128
    with torch.inference_mode():
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks:
            x = block(x)
            last[x.shape[-1]] = x  # of each grid, what its last block makes
        head = network._swish(network._bn1(network._conv_head(x)))
        levels = image_encoder(f"efficientnet-lite{variant}")(tiny.pixels(128, 128))
    _, *expected = [*last.values(), head]
    # Folding the normalisation rounds otherwise.
    for level, theirs in zip(levels, expected, strict=True):
        assert torch.allclose(level, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())


def test_swin_equals_transformers(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("swin")
    encoder = tiny.image("swin", folder)
    network = pretrained(SwinModel, folder)
    states = network(
        normalised(tiny.pixels(), IMAGENET),
        output_hidden_states=True,
        always_partition=True,
        output_hidden_states_before_downsampling=True,
    ).reshaped_hidden_states
    assert not any(unlike(encoder(tiny.pixels()), list(states[1:])))


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_clip_equals_transformers(tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int]) -> None:
    folder = tmp_path_factory.mktemp("clip")
    encoder = tiny.image("clip", folder)
    network = pretrained(CLIPVisionModel, folder)
    pixels = tiny.pixels(*size)
    states = network(normalised(pixels, CLIP), output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[
        1:
    ]
    maps = [state[:, 1:].transpose(1, 2).reshape(2, -1, size[0] // 16, size[1] // 16) for state in states]
    assert not any(unlike(encoder(pixels), maps))


def test_sam_equals_transformers() -> None:
    network = tiny.shaken(SamVisionEncoder(tiny.sam_config()))
    states = network(normalised(tiny.pixels(128, 128), IMAGENET), output_hidden_states=True)
    ends = [states.hidden_states[end + 1].permute(0, 3, 1, 2) for end in (1, 3, 5, 7)]
    assert not any(unlike(Sam("sam", network)(tiny.pixels(128, 128)), [*ends, states.last_hidden_state]))


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (64, 96)])
def test_sam_stretches_its_positions_over_the_canvas(size: tuple[int, int]) -> None:
    encoder = tiny.image("sam", None)
    grid = size[0] // 16, size[1] // 16
    state = encoder.stem(torch.zeros(1, 3, *size))
    patch = encoder.patches(encoder.normalise(torch.zeros(1, 3, 16, 16)))  # any: a black photo's are all alike
    stretched = F.interpolate(encoder.positions.permute(0, 3, 1, 2), grid, mode="bicubic")
    assert torch.allclose(state - patch, stretched, atol=1e-5)


def test_encoders_are_modules_that_move() -> None:
    encoder = tiny.image("sam", None)
    moved = encoder.to("meta")
    assert {tensor.device.type for tensor in [*moved.parameters(), *moved.buffers()]} == {"meta"}
