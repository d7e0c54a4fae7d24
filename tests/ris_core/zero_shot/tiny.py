"""Published models at a size that builds in no time, with random weights, in the files that the hub has of them.

What a network finds with such weights means nothing; whether it is what the library finds means all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from transformers import AutoTokenizer
from transformers.utils import logging
from zero_shot import tiny_whole
from zero_shot.tiny_parts import CLIP_TEXT, LETTERS, MASKS, MEMORY, PROMPTS, shaken

from ris_core import checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders.clip import letters
from ris_core.encoders.minilm import vocabulary
from ris_core.zero_shot.grounding_dino import GroundingDino
from ris_core.zero_shot.loading import NETWORKS, load_zero_shot
from ris_core.zero_shot.pointer import part_folder, write_pointer
from ris_core.zero_shot.segmenter import ZeroShotSegmenter
from ris_core.zero_shot.stand_in import make_clipseg
from ris_core.zero_shot_catalogue import CATALOGUE

logging.disable_progress_bar()
# Its canvas is no part of its configuration, and at the published size it would take seconds.
GroundingDino.shortest, GroundingDino.longest = 96, 160

_BACKBONE_2 = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 16,
    "num_attention_heads": 1,
    "image_size": [256, 256],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 7, 4],
    "global_attention_blocks": [3],
    "window_positional_embedding_background_size": [7, 7],
}
_VISION_2 = {
    "backbone_config": _BACKBONE_2,
    "backbone_channel_list": [128, 64, 32, 16],
    "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
    "fpn_hidden_size": 32,
}


def sam(folder: Path) -> None:
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 256,
        "window_size": 4,
        "global_attn_indexes": [1],
        "mlp_dim": 64,
        "num_pos_feats": 16,
        "initializer_range": 0.02,
    }
    prompts = PROMPTS | {"image_embedding_size": 16}
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=MASKS, initializer_range=0.02
    )
    shaken(transformers.SamModel(config), 0.2).save_pretrained(folder)


def sam2(folder: Path) -> None:
    """As the hub has it: with the memory for videos, which photos have no use for."""
    config = transformers.Sam2VideoConfig(
        vision_config=_VISION_2, prompt_encoder_config=PROMPTS, mask_decoder_config=MASKS, image_size=256, **MEMORY
    )
    shaken(transformers.Sam2VideoModel(config), 0.2).save_pretrained(folder)


def grounding_dino(folder: Path) -> None:
    """With the vocabulary of BERT that it was published with, which the package has."""
    backbone = {
        "model_type": "swin",
        "image_size": 64,
        "embed_dim": 12,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_features": ["stage2", "stage3", "stage4"],
    }
    text = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=20,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    shaken(transformers.GroundingDinoForObjectDetection(config), 0.1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(vocabulary()).save_pretrained(folder)


def owlv2(folder: Path) -> None:
    """Its tokenizer fills up with "!", as the published one does."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 16,
    }
    text = CLIP_TEXT | {"max_position_embeddings": 16, "pad_token_id": 0}
    # Its own, 1, makes all boxes dots in a corner.
    config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32, initializer_factor=0.2)
    shaken(transformers.Owlv2ForObjectDetection(config), 0.1).save_pretrained(folder)
    words = letters(LETTERS)
    words.pad_token = "!"
    words.save_pretrained(folder)


# What makes the files of a source of the catalogue, by its repository.
MAKERS: dict[str, Callable[[Path], None]] = {
    "IDEA-Research/grounding-dino-tiny": grounding_dino,
    "google/owlv2-base-patch16-ensemble": owlv2,
    "facebook/sam2.1-hiera-tiny": sam2,
    "facebook/sam-vit-base": sam,
    "facebook/sam3": tiny_whole.sam3,
    "CIDAS/clipseg-rd64": make_clipseg,
    "florence-community/Florence-2-base": tiny_whole.florence2,
}


def names() -> list[str]:
    """The names of the catalogue that can be loaded here."""
    return [name for name in CATALOGUE if name in NETWORKS]


def pointer(name: str, cache_dir: Path, point: OperatingPoint | None = None) -> Path:
    """The folder of a pointer to tiny weights, all laid below `cache_dir` where fetching lays them.

    While `RIS_CACHE` is that folder, it can be loaded by name.
    """
    entry = CATALOGUE[name]
    with mock.patch.dict(os.environ, RIS_CACHE=str(cache_dir)):
        revisions = {part: source.revision or "0" * 40 for part, source in entry.sources.items()}
        for part, source in entry.sources.items():
            folder = part_folder(source, revisions[part])
            if not folder.is_dir():
                _make(source.repo, folder)
        folder = checkpoint_files.pointer_folder(name)
        if not folder.is_dir():
            write_pointer(entry, revisions, point or OperatingPoint(), folder, f"# {name}, tiny\n")
    return folder


def _make(repo: str, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MAKERS[repo](folder)


def load(name: str, cache_dir: Path, precision: Any = "float32") -> ZeroShotSegmenter:
    """The segmenter of that name over tiny weights."""
    folder = pointer(name, cache_dir)
    with mock.patch.dict(os.environ, RIS_CACHE=str(cache_dir)):
        return load_zero_shot(folder, precision)
