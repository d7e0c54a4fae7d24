"""Photos that are the same in every test."""

import numpy as np

from ris_core.inference.frame import Image


def photo(height: int, width: int, seed: int = 0) -> Image:
    """Noise, of another colour in its upper left quarter."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[: height // 2, : width // 2] = (200, 40, 90)
    return noise
