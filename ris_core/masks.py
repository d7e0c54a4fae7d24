"""Binary masks and the forms that COCO gives them: run lengths, polygons, boxes. Sources: COCO's data format page."""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from ris_core.errors import DatasetError

Mask: TypeAlias = NDArray[np.bool_]


def encode_rle(mask: Mask) -> dict[str, Any]:
    """HxW bool -> COCO's compressed run lengths `{"size": [h, w], "counts": str}`; lossless, ready for JSON."""
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_runs(starts: NDArray[np.int64], stops: NDArray[np.int64], height: int, width: int) -> dict[str, Any]:
    """The runs of a mask, row by row, -> what `encode_rle` makes of it, without visiting its pixels.

    starts, stops: of each run, counted from the first row's first pixel; by rising start, none overlapping. COCO goes
    column by column, and a run of its ends where a pixel differs from the one above: between the ends of runs, sorted,
    of two rows that follow each other. Above the first row of a column lies the last one of the column before.
    """
    first, last = starts // width, (stops - 1) // width
    pieces = last - first + 1
    run = np.repeat(np.arange(len(starts)), pieces)
    row = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces - first, pieces)
    left = np.maximum(starts[run] - row * width, 0)
    right = np.minimum(stops[run] - row * width, width)
    # Each end counts for its own row and for the one below, where that of the last row is the first of the next column.
    below, shift = (row + 1) % height, (row == height - 1).astype(np.int64)
    edges = np.concatenate(
        [row * (width + 2) + side for side in (left, right)]
        + [below * (width + 2) + side + shift for side in (left, right)]
    )
    edges.sort()
    begin, end = edges[0::2], edges[1::2]
    lengths = end - begin
    place = np.repeat(begin, lengths) + np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    column, row = place % (width + 2), place // (width + 2)
    changes = np.sort(column[column < width] * height + row[column < width])
    counts = np.diff(changes, prepend=0, append=height * width)
    rle = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: dict[str, Any]) -> Mask:
    """COCO run lengths, compressed or not, -> HxW bool. Raises DatasetError if they aren't of a mask of that size."""
    try:
        height, width = (int(side) for side in rle["size"])
        if not isinstance(rle["counts"], list):
            return np.asarray(coco.decode(rle), dtype=bool)
        if sum(rle["counts"]) != height * width:
            raise DatasetError(f"A mask's runs cover {sum(rle['counts'])} pixels, not {height} x {width}.")
        return np.asarray(coco.decode(coco.frPyObjects(rle, height, width)), dtype=bool)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DatasetError(f"A mask isn't COCO run lengths: {error!r}.") from None


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> Mask:
    """Any COCO `segmentation`: run lengths, a list of them (REFER's ReferIt), or of polygons -> HxW bool.

    Overlapping polygons of one object are united. Raises DatasetError if run lengths are of another size.
    """
    if isinstance(segmentation, dict):
        mask = decode_rle(segmentation)
        if mask.shape != (height, width):
            raise DatasetError(f"A mask is {mask.shape[0]} x {mask.shape[1]}, its image {height} x {width}.")
        return mask
    if any(isinstance(part, dict) for part in segmentation):
        masks = [segmentation_to_mask(part, height, width) for part in segmentation]
        return np.asarray(np.any(masks, axis=0), dtype=bool)
    # A polygon needs three points; shorter ones occur in the wild and enclose nothing.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))), dtype=bool)


def bounding_box(mask: Mask) -> list[float]:
    """HxW bool -> `[x, y, width, height]` in pixels; four zeros for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    return [float(left), float(top), float(right - left), float(bottom - top)]


def depth(mask: Mask) -> NDArray[np.float64]:
    """HxW bool -> how far each of its pixels is from its edge, that of the picture among them; 0 beside it."""
    padded = np.pad(mask.astype(np.uint8), 1)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1], dtype=np.float64)


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union of two masks of one shape, in [0, 1]; two empty masks give 1."""
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0
