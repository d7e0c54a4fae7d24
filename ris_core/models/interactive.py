"""Interactive segmentation: clicks, a box and an earlier mask -> the mask of the thing meant, whatever it is called.

One decoder serves all four designs, since it reads the image encoder's levels before a design does. That clicks are
drawn as maps, that the last answer is read with them, and that training clicks where that answer was most wrong, is
after RITM (Sofiiuk, Petrov, Konushin 2021) and the work that it builds on; that words come in as an earlier mask, the
maps over several distances, the likeness of cells to what was clicked, and the layers are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_core.models.layers import (
    Upscale,
    certainty,
    convolution,
    pick,
    pool,
    project_level,
    steps_to_quarter,
    upsample,
    valid_cells,
)

# The logit of a cell that an earlier mask of yes and no has; one that it hasn't has the negative.
SURE = 4.0
# Pixels of the canvas over which a click fades, besides a cell of each grid.
_REACH = (24.0, 96.0)
_KEY = 16
# For a click of each kind: its cell and as far as it reaches. For a box: inside, and near its edge. The earlier mask.
_MAPS = 2 * (1 + len(_REACH)) + 2 + 1
# How like a cell is to what was clicked on, to what was clicked beside, and to what is in the box or the earlier mask.
_LIKENESS = 3
# By stride; coarse grids see far, fine ones are thin.
_WIDTHS = {4: 24, 8: 48}
_WIDTH = 96


class InteractiveLevel(NamedTuple):
    """The part of a level that needs no prompt. features: (B, C, H, W). keys: (B, K, H, W), of unit length.
    valid: (B, 1, H, W), 1 where there is photo.
    """

    features: Tensor
    keys: Tensor
    valid: Tensor


@dataclass(frozen=True)
class VisualPrompts:
    """N prompts, in pixels of the canvas.

    points: (N, P, 2), column and row of each click. labels: (N, P), 1 on the thing, 0 beside it, -1 where there is no
    click. boxes: (N, 4) left, top, right, bottom; where there is none, all NaN. mask: (N, 1, H/4, W/4), the logits of
    an earlier answer, 0 throughout where there is none.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def of_masks(cls, mask: Tensor) -> VisualPrompts:
        """An earlier answer alone, (N, 1, H/4, W/4), to be made better."""
        count = len(mask)
        labels = torch.full((count, 1), -1, device=mask.device)
        return cls(mask.new_zeros(count, 1, 2), labels, mask.new_full((count, 4), float("nan")), mask)


class InteractiveOutput(NamedTuple):
    """Logits. mask: (N, 1, H/4, W/4). quality: (N,), the mask's IoU."""

    mask: Tensor
    quality: Tensor


class InteractiveDecoder(nn.Module):
    """Levels from the coarsest up, each joined by the prompt's maps at its own grid."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        """`channels` and `strides` of the image encoder's levels, fine to coarse."""
        super().__init__()
        self.strides = tuple(strides)
        widths = [_WIDTHS.get(stride, _WIDTH) for stride in strides]
        self.project = nn.ModuleList(
            convolution(one + 2, width, size=1) for one, width in zip(channels, widths, strict=True)
        )
        self.key = nn.ModuleList(nn.Conv2d(one, _KEY, 1, bias=False) for one in channels)
        self.prompt = nn.ModuleList(nn.Conv2d(_MAPS + _LIKENESS, width, 3, padding=1) for width in widths)
        self.descend = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.refine = nn.ModuleList(_Refine(width, stride) for width, stride in zip(widths, strides, strict=True))
        self.upscale = Upscale(widths[0], steps_to_quarter(strides[0]))
        self.to_mask = nn.Conv2d(self.upscale.width, 1, 1)
        self.quality = nn.Sequential(nn.Linear(2 * self.upscale.width + 2, 64), nn.GELU(), nn.Linear(64, 1))

    def read_levels(self, levels: Sequence[Tensor], valid: Tensor) -> list[InteractiveLevel]:
        """The image encoder's levels (B, C_l, H/s_l, W/s_l) and (B, 1, H, W), 1 where there is photo -> what is kept.

        Computed once a photo.
        """
        read = []
        for level, project, key in zip(levels, self.project, self.key, strict=True):
            cells = valid_cells(valid, level)
            features, keys = project_level(project, level, cells), F.normalize(key(level * cells), dim=1, eps=1e-3)
            read.append(InteractiveLevel(features, keys, cells))
        return read

    def forward(
        self, embedding: Sequence[InteractiveLevel], prompts: VisualPrompts, index: Tensor
    ) -> InteractiveOutput:
        """Answer N prompts; `index`: (N,) the photo of each, in [0, B)."""
        x = prompts.mask
        for number in range(len(embedding) - 1, -1, -1):
            level, stride = pick(embedding[number], index), self.strides[number]
            maps = torch.cat([_draw(prompts, level.keys, stride), _likeness(prompts, level, stride)], dim=1)
            joined = level.features + self.prompt[number](maps)
            if number < len(embedding) - 1:
                joined = joined + upsample(self.descend[number](x), joined)
            x = self.refine[number](joined, level.valid)
        x = self.upscale(x)
        mask = self.to_mask(x)
        return InteractiveOutput(mask, self._judge(x, mask, F.interpolate(level.valid, size=mask.shape[-2:])))

    def _judge(self, features: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
        # It is to judge the mask, not to change it.
        features, probability = features.detach(), torch.sigmoid(mask.detach()) * valid
        measured = certainty(probability)
        # Objects are small: the root of their share tells them apart better.
        measures = [measured[:, :1], measured[:, 1:].sqrt()]
        judged: Tensor = self.quality(torch.cat([pool(features, probability), pool(features, valid), *measures], dim=1))
        return judged.squeeze(1)


class _Refine(nn.Module):
    """Two convolutions; on coarse grids the second is dilated, and the whole picture joins in."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        # The finest grid has most of the cells: one is enough there.
        self.second = convolution(width, width, dilation=2 if stride > 8 else 1) if stride > 4 else nn.Identity()
        self.picture = nn.Linear(width, width) if stride > 8 else None

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape; valid (N, 1, H, W)."""
        x = self.first(x)
        if self.picture is not None:
            x = x + self.picture(pool(x, valid))[:, :, None, None]
        refined: Tensor = x + self.second(x)
        return refined


def _draw(prompts: VisualPrompts, like: Tensor, stride: int) -> Tensor:
    """The prompts' maps on the grid of `like` (N, _, H, W), whose cells are `stride` pixels wide: (N, _MAPS, H, W)."""
    columns, rows = _centres(like, stride)
    maps = []
    across = (columns - prompts.points[..., 0, None, None]) ** 2  # (N, P, 1, W)
    down = (rows - prompts.points[..., 1, None, None]) ** 2  # (N, P, H, 1)
    for label in (1, 0):
        other = (prompts.labels != label)[..., None, None] * 1e8
        nearest = (across + (down + other)).amin(dim=1, keepdim=True).sqrt()
        maps += [torch.exp(-((nearest / stride) ** 2)), *(torch.exp(-nearest / reach) for reach in _REACH)]
    left, top, right, bottom = (side[:, None, None, None] for side in prompts.boxes.unbind(1))
    # Pixels to the nearest edge of the box, below 0 outside; NaN where there is no box.
    depth = torch.minimum(torch.minimum(columns - left, right - columns), torch.minimum(rows - top, bottom - rows))
    maps += [(depth / stride).clamp(-1, 1), torch.exp(-depth.abs() / _REACH[0])]
    maps.append(torch.tanh(_shrink(prompts.mask, stride) / 2))
    return torch.cat(maps, dim=1).nan_to_num(0.0).to(like.dtype)


def _likeness(prompts: VisualPrompts, level: InteractiveLevel, stride: int) -> Tensor:
    """(N, _LIKENESS, H, W): how like each cell is to those that the prompts point at, -1 to 1; 0 where they don't."""
    keys = level.keys
    height, width = keys.shape[-2:]
    column, row = prompts.points.unbind(2)
    at = torch.stack([column / (width * stride), row / (height * stride)], dim=2) * 2 - 1
    # In float32: half precision can't tell where a click is.
    sampled = F.grid_sample(keys.float(), at[:, :, None], align_corners=False)[..., 0]  # (N, K, P)
    likeness = torch.einsum("nkp,nkhw->nphw", sampled.to(keys.dtype), keys)
    maps = []
    for label in (1, 0):
        of = prompts.labels == label
        best = likeness.masked_fill(~of[..., None, None], -1.0).amax(dim=1, keepdim=True)
        maps.append(best * of.any(dim=1)[:, None, None, None])
    weights = _inside(prompts, keys, stride) * level.valid
    inside = torch.einsum("nk,nkhw->nhw", pool(keys, weights), keys).unsqueeze(1)
    return torch.cat([*maps, inside], dim=1)


def _inside(prompts: VisualPrompts, like: Tensor, stride: int) -> Tensor:
    """(N, 1, H, W): 1 in the box, or as sure as the earlier mask is; 0 where there is neither."""
    columns, rows = _centres(like, stride)
    left, top, right, bottom = (side[:, None, None, None] for side in prompts.boxes.unbind(1))
    in_box = (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
    earlier = _shrink(prompts.mask, stride)
    known = prompts.mask.flatten(1).any(dim=1)[:, None, None, None]
    return torch.where(in_box, 1.0, torch.sigmoid(earlier) * known).to(like.dtype)


def _shrink(mask: Tensor, stride: int) -> Tensor:
    """Logits at stride 4 -> their means at the grid of another stride."""
    return F.avg_pool2d(mask, stride // 4) if stride > 4 else mask


def _centres(like: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Columns (1, 1, 1, W) and rows (1, 1, H, 1) of the cells' centres, in pixels of the canvas."""
    height, width = like.shape[-2:]
    columns = (torch.arange(width, device=like.device) + 0.5) * stride
    rows = (torch.arange(height, device=like.device) + 0.5) * stride
    return columns[None, None, None], rows[None, None, :, None]
