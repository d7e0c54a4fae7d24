"""The image encoder of Segment Anything (Kirillov et al. 2023, arXiv 2304.02643; Apache-2.0), three sizes."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ris_core.encoders.base import EncoderEntry, ImageEncoder
from ris_core.encoders.pixels import IMAGENET, Normalise, resized
from ris_core.encoders.weights import WEIGHTS, Official, Tensors, locate, misfits
from ris_core.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionEncoder

_FILE = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_{size}_{stamp}.pth"
_NECK = 256


class _Size(NamedTuple):
    """stamp: ends the file's name. ends: the blocks with global attention, each the last of a stage."""

    stamp: str
    digest: str
    width: int
    heads: int
    ends: tuple[int, ...]

    def config(self) -> SamVisionConfig:
        from transformers import SamVisionConfig  # noqa: PLC0415 - takes seconds

        return SamVisionConfig(
            hidden_size=self.width,
            num_attention_heads=self.heads,
            num_hidden_layers=self.ends[-1] + 1,
            global_attn_indexes=self.ends,
            initializer_range=0.02,  # its own, 1e-10, is so small that a processor slows down on the results
        )


_SIZES = {
    "b": _Size("01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 768, 12, (2, 5, 8, 11)),
    "l": _Size("0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1024, 16, (5, 11, 17, 23)),
    "h": _Size("4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 1280, 16, (7, 15, 23, 31)),
}

# Official name -> ours, below "image_encoder.".
_NAMES = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^blocks\.", "layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"^neck\.0\.", "neck.conv1."),
    (r"^neck\.1\.", "neck.layer_norm1."),
    (r"^neck\.2\.", "neck.conv2."),
    (r"^neck\.3\.", "neck.layer_norm2."),
)


class Sam(ImageEncoder):
    """Five levels, all at stride 16: after each block with global attention, then what SAM's own decoder reads.

    It learnt from square canvases of 1,024 px; on others its positions are interpolated.
    """

    square: ClassVar[bool] = True
    # SAM pads after normalisation, with zeros.
    fill: ClassVar[tuple[float, float, float]] = IMAGENET[0]
    strides = (16,) * 5
    pyramid = (1, 2, 3)

    def __init__(self, name: str, network: SamVisionEncoder) -> None:
        super().__init__()
        config = network.config
        self.name = name
        self.normalise = Normalise(*IMAGENET)
        # The projection alone: around it, the library insists on one size of canvas.
        self.patches = network.patch_embed.projection
        assert network.pos_embed is not None
        self.positions = network.pos_embed
        starts = [0, *(end + 1 for end in config.global_attn_indexes)]
        blocks = [_Blocks(network.layers[start:stop]) for start, stop in pairwise(starts)]
        self.stages = nn.ModuleList([*blocks, _Neck(network.neck)])
        self.channels = (*(config.hidden_size for _ in blocks), config.output_channels)
        self.requires_grad_(False).eval()

    @classmethod
    def load(cls, name: str, source: Official, config: SamVisionConfig) -> Sam:
        """From what `fetch` made of the source. Raises CheckpointError if that is missing or damaged."""
        from safetensors.torch import load_file  # noqa: PLC0415
        from transformers.models.sam.modeling_sam import SamVisionEncoder  # noqa: PLC0415 - takes seconds

        tensors = load_file(locate(name, source) / WEIGHTS)
        with torch.device("meta"):
            network = SamVisionEncoder(config)
        network.load_state_dict(tensors, assign=True)
        return cls(name, network)

    @classmethod
    def untrained(cls, name: str, config: SamVisionConfig) -> Sam:
        """The same network with random weights."""
        from transformers.models.sam.modeling_sam import SamVisionEncoder  # noqa: PLC0415 - takes seconds

        return cls(name, SamVisionEncoder(config))

    def stem(self, pixels: Tensor) -> Tensor:
        """The patches' map."""
        x: Tensor = self.patches(self.normalise(pixels).to(self.dtype))  # (B, C, H, W)
        return x + resized(self.positions.permute(0, 3, 1, 2), *x.shape[-2:])


class _Blocks(nn.Module):
    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


class _Neck(nn.Module):
    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 256, H, W)."""
        out: Tensor = self.neck(x.permute(0, 2, 3, 1))
        return out


def convert(tensors: Tensors, config: SamVisionConfig) -> Tensors:
    """An official checkpoint -> the tensors of a `SamVisionEncoder`, without those of its decoder.

    Raises CheckpointError if a name or a shape doesn't fit.
    """
    from transformers.models.sam.modeling_sam import SamVisionEncoder  # noqa: PLC0415 - takes seconds

    with torch.device("meta"):
        network = SamVisionEncoder(config)
    prefix = "image_encoder."
    converted = {_renamed(name.removeprefix(prefix)): tensors[name] for name in tensors if name.startswith(prefix)}
    if differences := misfits(converted, network.state_dict()):
        raise CheckpointError(f"The weights don't fit the network: {differences}.")
    return converted


def _renamed(name: str) -> str:
    for pattern, ours in _NAMES:
        name = re.sub(pattern, ours, name)
    return name


def _entry(name: str, size: str, variant: _Size) -> EncoderEntry[ImageEncoder]:
    url = _FILE.format(size=size, stamp=variant.stamp)
    source = Official(url, variant.digest, lambda tensors: convert(tensors, variant.config()))
    channels = (*(variant.width for _ in variant.ends), _NECK)
    return EncoderEntry(
        lambda: Sam.load(name, source, variant.config()),
        lambda: Sam.untrained(name, variant.config()),
        source,
        channels,
        Sam.strides,
    )


ENTRIES = {f"sam-vit-{size}": _entry(f"sam-vit-{size}", size, variant) for size, variant in _SIZES.items()}
