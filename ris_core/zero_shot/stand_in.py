"""A zero-shot segmenter of the published build with random weights: to show the way where nothing can be fetched.

What it finds means nothing, and its card says so. It is never put where a fetched one would be looked for.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ris_core.checkpoint_files import CONFIG, OperatingPoint
from ris_core.encoders.clip import letters
from ris_core.encoders.weights import quiet
from ris_core.files import atomic_dir
from ris_core.zero_shot.pointer import part_folder, write_pointer
from ris_core.zero_shot_catalogue import find_zero_shot

# The side of its canvas, in pixels.
SIDE = 96
_NAME, _REVISION = "clipseg", "0" * 40
# Words of its tokenizer, letters alone; the two after them start and end a text.
_LETTERS = 512
_CARD = "# A stand-in for CLIPSeg\n\nIts weights are random: what it finds means nothing.\n"


def stand_in(folder: Path) -> Path:
    """The pointer at `folder` to random weights below `RIS_CACHE`; both are made where they aren't there yet."""
    entry = find_zero_shot(_NAME)
    [part] = entry.sources
    entry = replace(entry, sources={part: replace(entry.sources[part], repo="stand-in/clipseg")})
    weights = part_folder(entry.sources[part], _REVISION)
    if not weights.is_dir():
        with atomic_dir(weights) as temporary:
            make_clipseg(temporary)
    if not (folder / CONFIG).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        # It is sure of nothing: whatever it finds is shown.
        write_pointer(entry, {part: _REVISION}, OperatingPoint(presence=0.0), folder, _CARD)
    return folder


def make_clipseg(folder: Path) -> None:
    """Write a CLIPSeg of a hundred thousand random numbers to `folder`, in the files that the hub has of one.

    It is read at another side than its positions were made for, as the published one is.
    """
    import transformers  # noqa: PLC0415 - takes seconds

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    ends = {"vocab_size": _LETTERS + 2, "bos_token_id": _LETTERS, "eos_token_id": _LETTERS + 1}
    config = transformers.CLIPSegConfig(
        text_config={**sizes, **ends, "num_hidden_layers": 2, "pad_token_id": _LETTERS + 1},
        vision_config={**sizes, "num_hidden_layers": 5, "image_size": 64, "patch_size": 16},
        projection_dim=24,
        extract_layers=[1, 2, 3],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    # Always the same numbers: a version names them by their digest.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = transformers.CLIPSegForImageSegmentation(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            # Positions and biases start at zero, and would let every sentence mean the same.
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
        # Otherwise it is sure of everything.
        network.decoder.transposed_convolution.weight.mul_(0.02)
    with quiet():
        network.eval().save_pretrained(folder)
        letters(_LETTERS).save_pretrained(folder)
    processor = {"size": {"height": SIDE, "width": SIDE}, "resample": 2}
    scale = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | scale), encoding="utf-8")
