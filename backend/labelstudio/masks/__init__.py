"""Label Studio's three ways to store a mask, both ways, and what two of them share."""

import numpy as np
import numpy.typing as npt

from ris_core.masks import Mask


def paint(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], height: int, width: int) -> Mask:
    """HxW bool, True from each start up to its stop, both counted row by row."""
    mask = np.zeros(height * width, dtype=np.bool_)
    # Drawn things are few, long runs: a slice for each is quicker than visiting every pixel.
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        mask[start:stop] = True
    return mask.reshape(height, width)
