"""The decoder that MARIS and HARIS share: what is masked changes nothing, what is seen does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ris_core.models.layers import grid_encoding
from ris_core.models.query_decoder import QueryDecoder

WIDTH = 32


@pytest.fixture
def decoder() -> QueryDecoder:
    torch.manual_seed(5)
    return QueryDecoder(WIDTH, steps=2).eval()


@pytest.fixture
def seen() -> dict[str, Tensor]:
    """Two photos' cells and two sentences' words: two words are padding, the last column of the first photo is bare."""
    random = torch.Generator().manual_seed(7)
    word_padding_mask = torch.zeros(2, 5, dtype=torch.bool)
    word_padding_mask[1, 3:] = True
    valid = torch.ones(2, 1, 3, 4)
    valid[0, :, :, 3] = 0
    features = torch.randn(2, WIDTH, 3, 4, generator=random)
    return {
        "query": torch.randn(2, 1, WIDTH, generator=random),
        "words": torch.randn(2, 5, WIDTH, generator=random),
        "features": features,
        "positional_encoding": grid_encoding(features),
        "word_padding_mask": word_padding_mask,
        "valid": valid,
    }


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_shapes(steps: int, seen: dict[str, Tensor]) -> None:
    decoder = QueryDecoder(WIDTH, steps)
    mask, upscaled, query = decoder(**seen)
    assert mask.shape == (2, 1, 3 * 2**steps, 4 * 2**steps)
    assert upscaled.shape == (2, decoder.width, *mask.shape[2:])
    assert query.shape == (2, WIDTH)


def test_the_mask_is_the_product_of_the_query_with_the_upscaled_cells(
    decoder: QueryDecoder, seen: dict[str, Tensor]
) -> None:
    mask, upscaled, query = decoder(**seen)
    kernel = decoder.to_kernel(query)
    for number in range(2):
        product = kernel[number, :-1] @ upscaled[number].flatten(1) + kernel[number, -1]
        assert torch.allclose(mask[number].flatten(), product, atol=1e-5)


def test_masked_words_change_nothing(decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    noisy = torch.where(seen["word_padding_mask"].unsqueeze(2), 100.0, seen["words"])
    same(decoder(**seen), decoder(**{**seen, "words": noisy}))


def test_masked_cells_change_nothing(decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    noisy = torch.where(seen["valid"] == 0, 100.0, seen["features"])
    same(decoder(**seen), decoder(**{**seen, "features": noisy}))


@pytest.mark.parametrize("part", ["query", "words", "features", "positional_encoding"])
def test_everything_that_is_seen_changes_the_mask(part: str, decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    other = seen[part].roll(1, dims=-1)
    assert not torch.allclose(decoder(**seen)[0], decoder(**{**seen, part: other})[0], atol=1e-3)


def test_the_query_is_seen_even_when_there_is_no_word(decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    none = {**seen, "words": seen["words"][:, :0], "word_padding_mask": seen["word_padding_mask"][:, :0]}
    all_masked = {**seen, "word_padding_mask": torch.ones_like(seen["word_padding_mask"])}
    assert all(part.isfinite().all() for part in decoder(**none))
    same(decoder(**none), decoder(**all_masked))
    # The cells see it too: what they become depends on it.
    other = decoder(**{**none, "query": none["query"].roll(1, dims=2)})
    assert not torch.allclose(decoder(**none)[1], other[1], atol=1e-3)


def test_the_order_of_words_is_theirs_to_say(decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    """The decoder adds no positions to words: what it is given in another order, it reads alike."""
    order = torch.tensor([4, 2, 0, 1, 3])
    other = {**seen, "words": seen["words"][:, order], "word_padding_mask": seen["word_padding_mask"][:, order]}
    same(decoder(**seen), decoder(**other))


def test_gradients_reach_every_weight_and_every_input(decoder: QueryDecoder, seen: dict[str, Tensor]) -> None:
    for part in ("query", "words", "features"):
        seen[part].requires_grad_(True)
    mask, upscaled, query = decoder(**seen)
    (mask.square().mean() + upscaled.mean() + query.square().mean()).backward()
    assert [name for name, weight in decoder.named_parameters() if weight.grad is None] == []
    for part, masked in (("words", seen["word_padding_mask"]), ("features", seen["valid"][:, 0] == 0)):
        gradient = seen[part].grad.abs().sum(dim=2 if part == "words" else 1)
        assert (gradient[~masked] > 0).all()
        assert (gradient[masked] == 0).all()


def same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
