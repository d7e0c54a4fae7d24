"""Tiny published models that are one network each, as `tiny` makes the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from zero_shot.tiny_parts import CLIP_TEXT, LETTERS, MASKS, MEMORY, PROMPTS, shaken

from ris_core.encoders.clip import letters
from ris_core.zero_shot.florence2 import Florence2

# Neither is part of its configuration.
Florence2.side, Florence2.most_words = 96, 24

SIDE_3 = 224
_LAYERS = {"num_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def _vision_3() -> dict[str, Any]:
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE_3,
        "patch_size": 14,
        "window_size": 8,
        "global_attn_indexes": [1],
        "pretrain_image_size": 112,
    }
    return {
        "model_type": "sam3_vision_model",
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
        "backbone_config": backbone,
    }


def sam3_config() -> Any:
    """Of both halves, as the hub has it."""
    text = CLIP_TEXT | {"model_type": "clip_text_model", "projection_dim": 16, "max_position_embeddings": 32}
    detector = {
        "vision_config": _vision_3(),
        "text_config": text | {"pad_token_id": LETTERS + 1, "hidden_act": "gelu"},
        "geometry_encoder_config": _LAYERS,
        "detr_encoder_config": _LAYERS,
        "detr_decoder_config": _LAYERS | {"num_layers": 2, "num_queries": 10},
        "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2, "num_upsampling_stages": 3},
    }
    tracker = {
        "vision_config": _vision_3(),
        "image_size": SIDE_3,
        "prompt_encoder_config": PROMPTS | {"image_size": SIDE_3, "patch_size": 14},
        "mask_decoder_config": MASKS,
        **MEMORY,
    }
    return transformers.Sam3VideoConfig(detector_config=detector, tracker_config=tracker)


def sam3(folder: Path) -> None:
    config = sam3_config()
    network = shaken(transformers.Sam3VideoModel(config), 0.2)
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    # In 5.23.0 `save_pretrained` would name the tracker's tensors wrongly.
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    letters(LETTERS).save_pretrained(folder)


def florence2(folder: Path) -> None:
    """It writes little but places: with other words as likely, a polygon would never be heard of."""
    alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    words = transformers.RobertaTokenizer(vocab={word: number for number, word in enumerate(alphabet)}, merges=[])
    words.add_tokens([AddedToken(word, normalized=False) for word in places()])
    text = {
        "model_type": "bart",
        "vocab_size": len(words),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
    vision = {
        "depths": [1, 1, 1, 1],
        "embed_dim": [8, 16, 16, 32],
        "num_heads": [1, 1, 2, 2],
        "num_groups": [1, 1, 2, 2],
        "window_size": 4,
        "projection_dim": 32,
        "drop_path_rate": 0.0,
    }
    config = transformers.Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    shaken(transformers.Florence2ForConditionalGeneration(config), 0.3).save_pretrained(folder)
    words.save_pretrained(folder)


def places() -> list[str]:
    """The words that Florence-2 has beside those of language."""
    return [*(f"<loc_{number}>" for number in range(1000)), "<sep>", "<poly>", "</poly>"]
