"""Run by itself: a checkpoint as the authors' own package saves it, and what their encoder makes of one photo.

    python official_sam.py FOLDER

writes FOLDER/official.pth, shaped like theirs with a small width, and FOLDER/features.pt. Their package imports
torchvision for what isn't needed here; a process of its own can do without.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

torch.set_num_threads(1)
for _name, _needed in {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}.items():
    _module = ModuleType(_name)
    for _function in _needed:
        setattr(_module, _function, None)
    sys.modules[_name] = _module

from segment_anything import sam_model_registry  # noqa: E402
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer  # noqa: E402

WIDTH, HEADS, ENDS = 32, 2, (1, 3, 5, 7)


def build(side: int) -> Sam:
    grid = side // 16
    return Sam(
        image_encoder=ImageEncoderViT(
            depth=ENDS[-1] + 1,
            embed_dim=WIDTH,
            img_size=side,
            mlp_ratio=4,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=HEADS,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=ENDS,
            window_size=14,
            out_chans=256,
        ),
        prompt_encoder=PromptEncoder(256, (grid, grid), (side, side), 16),
        mask_decoder=MaskDecoder(transformer_dim=256, transformer=TwoWayTransformer(2, 256, 8, 64)),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ).eval()


def levels(sam: Sam, pixels: Tensor) -> list[Tensor]:
    """(1, 3, H, W) RGB in [0, 255] -> after each block with global attention, and what the decoder gets."""
    kept: list[Tensor] = []
    for end in ENDS:
        sam.image_encoder.blocks[end].register_forward_hook(lambda *call: kept.append(call[2].permute(0, 3, 1, 2)))
    last = sam.image_encoder(sam.preprocess(pixels))
    return [*kept, last]


def main(folder: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    sam = build(256)
    with torch.inference_mode():
        for weight in sam.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
        photo = torch.rand(1, 3, 256, 256, generator=generator) * 255
        made = levels(sam, photo)
    torch.save(sam.state_dict(), folder / "official.pth")
    with torch.device("meta"):
        shapes = {
            name: {key: tuple(value.shape) for key, value in sam_model_registry[name]().state_dict().items()}
            for name in ("vit_b", "vit_l", "vit_h")
        }
    torch.save({"photo": photo, "levels": [each.clone() for each in made], "shapes": shapes}, folder / "features.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
