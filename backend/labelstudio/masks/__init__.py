"""Label Studio's three ways to store a mask, both ways, and what two of them share."""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ris_core.masks import Mask, encode_runs


class Runs(NamedTuple):
    """A mask as its runs, each from a start up to its stop, counted row by row: rising, none empty or overlapping."""

    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    height: int
    width: int

    @classmethod
    def of(cls, mask: Mask) -> Self:
        """The runs of HxW bool."""
        edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False, append=False))
        return cls(edges[0::2], edges[1::2], *mask.shape)

    def mask(self) -> Mask:
        """HxW bool."""
        return paint(*self)

    def rle(self) -> dict[str, Any]:
        """COCO's compressed run lengths."""
        return encode_runs(*self)


def paint(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], height: int, width: int) -> Mask:
    """HxW bool, True from each start up to its stop, both counted row by row."""
    mask = np.zeros(height * width, dtype=np.bool_)
    # Drawn things are few, long runs: a slice for each is quicker than visiting every pixel.
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        mask[start:stop] = True
    return mask.reshape(height, width)
