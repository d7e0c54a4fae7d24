"""What tiny published models have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Of CLIP's tokenizer without merges: letters alone; the two words after them start and end a text.
LETTERS = 512
CLIP_TEXT = {
    "vocab_size": LETTERS + 2,
    "bos_token_id": LETTERS,
    "eos_token_id": LETTERS + 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PROMPTS = {"hidden_size": 32, "image_size": 256, "patch_size": 16, "mask_input_channels": 4}
MASKS = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
    "attention_downsample_rate": 2,
}
MEMORY = {
    "memory_attention_hidden_size": 32,
    "memory_attention_num_layers": 1,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_feed_forward_hidden_size": 32,
    "memory_attention_rope_feat_sizes": [16, 16],
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "mask_downsampler_embed_dim": 32,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32,
    "memory_fuser_num_layers": 1,
}


def shaken(network: nn.Module, much: float = 0.05, seed: int = 1) -> Any:
    """With every weight away from where it starts: positions and biases start at zero, and would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=much)
    return network.eval()
