"""What image encoders share at their beginning: normalised pixels, and learnt positions on a canvas of any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Mean and standard deviation of red, green and blue in [0, 255].
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLIP = (122.7709383, 116.7460125, 104.09373615), (68.5005327, 66.6321579, 70.32316305)


class Normalise(nn.Module):
    """(B, 3, H, W) RGB in [0, 255] -> zero mean and unit deviation over the photos that an encoder learnt from."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> the same shape."""
        return (pixels - self.mean) / self.deviation


def resized(positions: Tensor, height: int, width: int) -> Tensor:
    """Positions (1, C, h, w) that were learnt on one grid -> (1, C, height, width), interpolated in float32."""
    if positions.shape[-2:] == (height, width):
        return positions
    at_grid = F.interpolate(positions.float(), size=(height, width), mode="bicubic", align_corners=False)
    return at_grid.to(positions.dtype)
