"""The interactive decoder: what each kind of prompt does to the answer, and what must make no difference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models.encoders import Small
from torch import Tensor

from ris_core.models.interactive import InteractiveDecoder, InteractiveOutput, VisualPrompts
from ris_core.models.layers import rebuild

CHANNELS, STRIDES = (8, 16, 24, 32, 40), (4, 8, 16, 32, 32)
HEIGHT, WIDTH = 64, 96


def decoder() -> InteractiveDecoder:
    torch.manual_seed(0)
    return InteractiveDecoder(CHANNELS, STRIDES).eval()


def levels(photos: int = 2, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(photos, channels, HEIGHT // stride, WIDTH // stride, generator=generator)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


def prompts(count: int = 1) -> VisualPrompts:
    """A click in the middle each."""
    return VisualPrompts(
        torch.tensor([[[50.0, 30.0]]]).repeat(count, 1, 1),
        torch.ones(count, 1, dtype=torch.long),
        torch.full((count, 4), float("nan")),
        torch.zeros(count, 1, HEIGHT // 4, WIDTH // 4),
    )


@torch.inference_mode()
def answer(asked: VisualPrompts, valid: Tensor | None = None, read: list[Tensor] | None = None) -> InteractiveOutput:
    network, read = decoder(), read or levels()
    valid = torch.ones(len(read[0]), 1, HEIGHT, WIDTH) if valid is None else valid
    index = torch.zeros(len(asked), dtype=torch.long)
    output: InteractiveOutput = network(network.read_levels(read, valid), asked, index)
    return output


def test_a_mask_at_a_quarter_of_the_canvas_and_a_quality_each() -> None:
    output = answer(prompts(3))
    assert output.mask.shape == (3, 1, HEIGHT // 4, WIDTH // 4)
    assert output.quality.shape == (3,)


@pytest.mark.parametrize(
    "change",
    [
        {"points": torch.tensor([[[10.0, 10.0]]])},
        {"labels": torch.zeros(1, 1, dtype=torch.long)},
        {"labels": torch.full((1, 1), -1)},
        {"boxes": torch.tensor([[20.0, 10.0, 70.0, 50.0]])},
        {"mask": torch.full((1, 1, HEIGHT // 4, WIDTH // 4), 4.0)},
    ],
    ids=["elsewhere", "beside", "no click", "box", "earlier mask"],
)
def test_everything_that_is_pointed_at_counts(change: dict[str, Tensor]) -> None:
    assert not torch.allclose(answer(prompts()).mask, answer(replace(prompts(), **change)).mask, atol=1e-4)


def test_a_prompt_is_answered_alike_beside_others_with_more_clicks() -> None:
    alone, other = prompts(), prompts()
    together = VisualPrompts(
        torch.cat([torch.cat([alone.points, torch.zeros(1, 2, 2)], dim=1), torch.rand(1, 3, 2) * 60]),
        torch.tensor([[1, -1, -1], [1, 0, 1]]),
        torch.cat([alone.boxes, torch.tensor([[20.0, 10.0, 70.0, 50.0]])]),
        torch.cat([alone.mask, other.mask + 3.0]),
    )
    assert torch.allclose(answer(alone).mask[0], answer(together).mask[0], atol=1e-5)


def test_the_order_of_clicks_makes_no_difference() -> None:
    points, labels = torch.tensor([[[50.0, 30.0], [10.0, 10.0], [80.0, 50.0]]]), torch.tensor([[1, 0, 1]])
    asked = replace(prompts(), points=points, labels=labels)
    turned = replace(asked, points=points.flip(1), labels=labels.flip(1))
    assert torch.allclose(answer(asked).mask, answer(turned).mask, atol=1e-5)


def test_what_lies_beside_the_photo_makes_no_difference() -> None:
    valid = torch.ones(1, 1, HEIGHT, WIDTH)
    valid[..., 64:] = 0
    one, other = levels(1), levels(1, seed=1)
    for level, changed, stride in zip(one, other, STRIDES, strict=True):
        changed[..., : 64 // stride] = level[..., : 64 // stride]
    assert torch.equal(answer(prompts(), valid, one).mask, answer(prompts(), valid, other).mask)


def test_each_prompt_is_about_its_own_photo() -> None:
    network, valid = decoder(), torch.ones(2, 1, HEIGHT, WIDTH)
    with torch.inference_mode():
        embedding = network.read_levels(levels(), valid)
        both = network(embedding, prompts(2), torch.tensor([1, 0])).mask
        second = [rebuild(level, [part[1:] for part in level]) for level in embedding]
        alone = network(second, prompts(), torch.tensor([0])).mask
    assert torch.allclose(both[:1], alone, atol=1e-5)
    assert not torch.allclose(both[1:], alone, atol=1e-3)


def test_a_quality_that_learns_leaves_the_mask_alone() -> None:
    network = decoder()
    embedding = network.read_levels(levels(), torch.ones(2, 1, HEIGHT, WIDTH))
    network(embedding, prompts(), torch.tensor([0])).quality.sum().backward()
    moved = {name.split(".")[0] for name, weight in network.named_parameters() if weight.grad is not None}
    assert moved == {"quality"}


def test_an_encoder_of_one_coarse_grid_is_upscaled() -> None:
    encoder = Small()
    network = InteractiveDecoder(encoder.channels, encoder.strides).eval()
    valid = torch.ones(1, 1, HEIGHT, WIDTH)
    read = encoder(torch.rand(1, 3, HEIGHT, WIDTH) * 255)
    output = network(network.read_levels(read, valid), prompts(), torch.tensor([0]))
    assert output.mask.shape == (1, 1, HEIGHT // 4, WIDTH // 4)
