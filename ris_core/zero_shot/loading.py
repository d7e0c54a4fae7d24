"""From a pointer to a segmenter that answers: the fetched weights are checked against it, and put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ris_core import checkpoint_files
from ris_core.inference.choosing import Chooser
from ris_core.inference.predictor import Precision
from ris_core.models.base import best_device
from ris_core.zero_shot.clipseg import CLIPSeg
from ris_core.zero_shot.florence2 import Florence2
from ris_core.zero_shot.grounded import Grounded
from ris_core.zero_shot.grounding_dino import GroundingDino
from ris_core.zero_shot.network import ZeroShotNetwork
from ris_core.zero_shot.owlv2 import Owlv2
from ris_core.zero_shot.pointer import parts_of
from ris_core.zero_shot.sam import Sam
from ris_core.zero_shot.sam2 import Sam2
from ris_core.zero_shot.sam3 import Sam3
from ris_core.zero_shot.segmenter import ZeroShotSegmenter

# A network from the folders of its parts, by the names that the catalogue gives them; transformers is imported inside.
NETWORKS: dict[str, Callable[[Mapping[str, Path]], ZeroShotNetwork]] = {
    "grounding-dino+sam2": lambda parts: Grounded(GroundingDino.load(parts["detector"]), Sam2.load(parts["masks"])),
    "grounding-dino+sam": lambda parts: Grounded(GroundingDino.load(parts["detector"]), Sam.load(parts["masks"])),
    "owlv2+sam2": lambda parts: Grounded(Owlv2.load(parts["detector"]), Sam2.load(parts["masks"])),
    "sam3": lambda parts: Sam3.load(parts["model"]),
    "clipseg": lambda parts: CLIPSeg.load(parts["model"]),
    "florence-2": lambda parts: Florence2.load(parts["model"]),
}


def load_zero_shot(folder: Path, precision: Precision = "auto") -> ZeroShotSegmenter:
    """The segmenter that the pointer in a folder means. `precision`: of its weights; "auto" is half on a GPU.

    Raises CheckpointError if weights that it points to are missing, or others than they were when it was made.
    """
    parts, point = parts_of(folder), checkpoint_files.operating_point(folder)
    device = best_device()
    auto = torch.float16 if device.type == "cuda" else torch.float32
    network = NETWORKS[checkpoint_files.read_config(folder)["model"]](parts)
    network = network.to(device, auto if precision == "auto" else getattr(torch, precision))
    return ZeroShotSegmenter(network, point, checkpoint_files.version(folder), Chooser.shipped())
