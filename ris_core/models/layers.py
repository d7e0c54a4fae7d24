"""Parts that the four designs share: convolutions, attention, positional encodings, pooling, heads."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# A design's level: a named tuple of tensors, see `base.ImageEmbedding`.
LevelT = TypeVar("LevelT", bound=tuple[Tensor, ...])


def pick(level: LevelT, index: Tensor) -> LevelT:
    """Repeat photos so that there is one for each sentence: each part (B, ...), index (N,) -> each part (N, ...)."""
    if len(level[0]) == 1:
        # All sentences are about one photo: nothing needs copying.
        return rebuild(level, [part.expand(len(index), *part.shape[1:]) for part in level])
    return rebuild(level, [part[index] for part in level])


def rebuild(level: LevelT, parts: Sequence[Tensor]) -> LevelT:
    """A named tuple of the same kind, with other tensors."""
    make: Callable[[Sequence[Tensor]], LevelT] = level._make  # type: ignore[attr-defined]
    return make(parts)


def split_photos(embedding: Sequence[LevelT], count: int) -> list[tuple[LevelT, ...]]:
    """Levels of `count` photos -> those of each photo."""
    return [
        tuple(rebuild(level, [part[number : number + 1] for part in level]) for level in embedding)
        for number in range(count)
    ]


def join_photos(embeddings: Sequence[Sequence[LevelT]]) -> Sequence[LevelT]:
    """Levels of single photos, of one canvas -> levels of all of them."""
    if len(embeddings) == 1:
        return embeddings[0]
    levels = zip(*embeddings, strict=True)
    return tuple(rebuild(same[0], [torch.cat(parts) for parts in zip(*same, strict=True)]) for same in levels)


def convolution(inputs: int, outputs: int, size: int = 3, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, group normalisation, GELU. Group normalisation: no statistics to keep, alike on every device."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, groups=groups, bias=False),
        nn.GroupNorm(8, outputs),
        nn.GELU(),
    )


def linear_norm(inputs: int, outputs: int) -> nn.Sequential:
    """Linear map, layer normalisation: encoders differ in how long their vectors are, so words start out alike."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs))


def coordinates(like: Tensor) -> Tensor:
    """(B, _, H, W) -> (B, 2, H, W): each cell's column and row, from -1 to 1."""
    batch, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    grid = torch.stack([columns.expand(height, width), rows.unsqueeze(1).expand(height, width)])
    return grid.expand(batch, 2, height, width)


def project_level(project: nn.Module, level: Tensor, valid: Tensor) -> Tensor:
    """(B, C, H, W) and its cells' coordinates through `project` -> (B, C', H, W), 0 where there is no photo."""
    # What lies beside the photo is taken away first, or normalisation would read it.
    level = level * valid
    projected: Tensor = project(torch.cat([level, coordinates(level)], dim=1)) * valid
    return projected


def sinusoids(length: int, width: int, device: torch.device) -> Tensor:
    """(length, width): the positional encoding of a row, sines and cosines of geometrically falling frequency
    (Vaswani et al. 2017).
    """
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angles = torch.arange(length, device=device)[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_encoding(like: Tensor) -> Tensor:
    """The positional encoding of a grid: (B, C, H, W), C a multiple of 4 -> (1, HW, C).

    Half of the channels tell the row, half the column.
    """
    _, width, rows, columns = like.shape
    down = sinusoids(rows, width // 2, like.device)[:, None].expand(rows, columns, -1)
    across = sinusoids(columns, width // 2, like.device)[None].expand(rows, columns, -1)
    return torch.cat([down, across], dim=2).flatten(0, 1)[None].to(like.dtype)


def tokens(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, HW, C)."""
    return features.flatten(2).transpose(1, 2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(N, K, C) -> (N, heads, K, C / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(N, heads, K, C / heads) -> (N, K, C)."""
    return x.transpose(1, 2).flatten(2)


def grid(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, HW, C) -> (B, C, H, W), H and W those of `like`."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *like.shape[-2:])


def pool(features: Tensor, weights: Tensor) -> Tensor:
    """Mean of (B, C, H, W) over the cells, weighted by (B, 1, H, W) -> (B, C)."""
    # Divided first: the sum over a large grid doesn't fit half precision.
    shares = weights / weights.sum(dim=(2, 3), keepdim=True, dtype=torch.float32).clamp_min(1e-6)
    return torch.einsum("bchw,bhw->bc", features, shares.squeeze(1).to(features.dtype))


def unit(vectors: Tensor, dim: int) -> Tensor:
    """At unit length along `dim`, measured in float32: half precision has no length short enough for none."""
    return F.normalize(vectors.float(), dim=dim).to(vectors.dtype)


def valid_cells(valid: Tensor, like: Tensor) -> Tensor:
    """(B, 1, H, W) of a canvas, 1 where there is photo -> the same at the grid of `like`: 1 where half or more is.

    A photo too thin for that keeps the cells that hold most of it, so that none is left without a cell.
    """
    share = F.adaptive_avg_pool2d(valid, (like.shape[-2], like.shape[-1]))
    return (share >= share.amax(dim=(2, 3), keepdim=True).clamp(max=0.5)).to(like.dtype)


def padding_cells(valid: Tensor) -> Tensor:
    """(B, 1, H, W), 1 where there is photo -> the cells' key padding mask (B, HW), True where there is none."""
    return tokens(valid).squeeze(2) == 0


def upsample(features: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the grid of `like`."""
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) in which keys under the mask get exactly zero weight."""

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, key_padding_mask: Tensor) -> Tensor:
        """(N, Q, C), (N, K, C), (N, K, C) -> (N, Q, C).

        key_padding_mask: (N, K), True where a key isn't to be seen; never all of a row.
        """
        q, k, v = (
            split_heads(part, self.heads)  # (N, heads, Q or K, C / heads)
            for part in (self.query(queries), self.key(keys), self.value(values))
        )
        seen = ~key_padding_mask[:, None, None]
        out: Tensor = self.out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)))
        return out


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between, over the last dimension; the inner width is twice the outer."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class Upscale(nn.Module):
    """Doubles the grid `steps` times by transposed convolutions, as SAM's mask decoder does; channels halve each time.

    Attributes:
        width: channels that come out.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        widths = [max(16, width >> step) for step in range(steps + 1)]
        self.width = widths[-1]
        self.steps = nn.Sequential(
            *(
                nn.Sequential(nn.ConvTranspose2d(one, other, 2, stride=2), nn.GroupNorm(8, other), nn.GELU())
                for one, other in pairwise(widths)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H * 2^steps, W * 2^steps)."""
        out: Tensor = self.steps(x)
        return out


class Heads(nn.Module):
    """Presence: is the thing there at all? Quality: the IoU that the mask will have. Both ours.

    They read features pooled inside the mask and everywhere, the sentence, and what the design offers as evidence.
    """

    def __init__(self, features: int, evidence: int, sentence: int, width: int = 128) -> None:
        super().__init__()
        inputs = 2 * features + evidence + sentence
        self.presence, self.quality = _head(inputs, width), _head(inputs + 2, width)

    def forward(
        self, features: Tensor, mask: Tensor, valid: Tensor, evidence: Tensor, sentence: Tensor
    ) -> tuple[Tensor, Tensor]:
        """features (N, C, H, W), mask logits (N, 1, H, W), evidence (N, E), sentence (N, D) -> two logits (N,).

        valid: (N, 1, h, w) at any grid, 1 where there is photo.
        """
        valid = F.interpolate(valid, size=mask.shape[-2:])
        probability = torch.sigmoid(mask.detach()) * valid
        pooled = [pool(features, probability), pool(features, valid), evidence, sentence]
        presence = self.presence(torch.cat(pooled, dim=1))
        # What quality learns is kept from the mask's features: it is to judge them, not to please itself.
        judged = [part.detach() for part in pooled]
        quality = self.quality(torch.cat([*judged, certainty(probability)], dim=1))
        return presence.squeeze(1), quality.squeeze(1)


def _head(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, 1))


def certainty(probability: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 2): the IoU to expect if the probabilities are right, and the share of cells in the mask."""
    inside = (probability > 0.5).to(probability.dtype)
    # In float32: half precision counts no further than 65,504 cells.
    overlap, union = (
        part.sum(dim=(2, 3), dtype=torch.float32) for part in (probability * inside, torch.maximum(probability, inside))
    )
    return torch.cat([(overlap / union.clamp_min(1e-6)).to(inside.dtype), inside.mean(dim=(2, 3))], dim=1)


def steps_to_quarter(stride: int) -> int:
    """How often a grid of that stride has to double to reach stride 4, at which masks are predicted."""
    return max(0, round(math.log2(stride / 4)))


def level_widths(strides: Sequence[int], width: int) -> list[int]:
    """Channels of levels of these strides: `width` from 16 on, half at 8, a quarter at 4."""
    # Fine grids have many cells and little meaning: fewer channels there keep a prompt cheap.
    return [max(16, width // {4: 4, 8: 2}.get(stride, 1)) for stride in strides]
