"""Parts that decoders share: normalised convolutions, coordinates, masked pooling, the presence head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolution(inputs: int, outputs: int, size: int = 3, dilation: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, group normalisation, GELU. Group normalisation: no statistics to keep, alike on every device."""
    padding = dilation * (size // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, groups=groups, bias=False),
        nn.GroupNorm(8, outputs),
        nn.GELU(),
    )


def coordinates(like: Tensor) -> Tensor:
    """(B, _, H, W) -> (B, 2, H, W): each cell's column and row, from -1 to 1."""
    batch, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    grid = torch.stack([columns.expand(height, width), rows.unsqueeze(1).expand(height, width)])
    return grid.expand(batch, 2, height, width)


def pool(features: Tensor, weights: Tensor) -> Tensor:
    """Mean of (B, C, H, W) over the cells, weighted by (B, 1, H, W) -> (B, C)."""
    total = weights.sum(dim=(2, 3)).clamp_min(1e-6)
    return torch.einsum("bchw,bhw->bc", features, weights.squeeze(1)) / total


def valid_cells(valid: Tensor, like: Tensor) -> Tensor:
    """(B, 1, H, W) of a canvas, 1 where there is photo, -> the same at the grid of `like`: 1 where over half is."""
    return (F.adaptive_avg_pool2d(valid, (like.shape[-2], like.shape[-1])) > 0.5).to(like.dtype)


def upsample(features: Tensor, like: Tensor) -> Tensor:
    """Bilinear to the grid of `like`."""
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)


class PresenceHead(nn.Module):
    """Is the thing there at all? A logit from pooled features, the strongest evidence and the sentence. Ours."""

    def __init__(self, features: int, evidence: int, sentence: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * features + evidence + sentence, width),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(width, 1),
        )

    def forward(self, features: Tensor, mask: Tensor, valid: Tensor, evidence: Tensor, sentence: Tensor) -> Tensor:
        """features (N, C, H, W), mask logits and valid (N, 1, H, W), evidence (N, E), sentence (N, D) -> (N,)."""
        inside = pool(features, torch.sigmoid(mask.detach()) * valid)
        everywhere = pool(features, valid)
        logits: Tensor = self.layers(torch.cat([inside, everywhere, evidence, sentence], dim=1))
        return logits.squeeze(1)
