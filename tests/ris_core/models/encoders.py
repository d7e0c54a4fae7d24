"""An image encoder small enough to build in any test, whose levels share one stride, as a plain transformer's do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ris_core.encoders.base import ImageEncoder


class Small(ImageEncoder):
    """Four levels at stride 16 out of random convolutions, the same in every test; all its stages are frozen."""

    name = "small"
    channels = (16, 24, 24, 32)
    strides = (16, 16, 16, 16)
    pyramid = (0, 1, 3)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.patches = nn.Conv2d(3, 16, 16, stride=16)
            widths = (16, *self.channels)
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GELU())
                for inputs, outputs in zip(widths, self.channels, strict=False)
            )
            for stage in self.stages:
                nn.init.kaiming_normal_(stage[0].weight)
        self.requires_grad_(False)
        self.eval()

    def stem(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.patches((pixels / 64 - 2).to(self.dtype))
        return x
