"""Binary masks and the forms that COCO gives them: run lengths, polygons, boxes. Sources: COCO's data format page."""

from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from ris_core.errors import DatasetError

Mask: TypeAlias = NDArray[np.bool_]

# Characters; pycocotools holds a run in 32 bits.
_LONGEST_RUN = 7


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
    """COCO run lengths, compressed or not, -> HxW bool. Raises DatasetError if they aren't of a mask of that size.

    Read here, and not by pycocotools, which writes past its memory where compressed ones are damaged.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = np.asarray(counts, dtype=np.int64) if isinstance(counts, list) else _uncompressed(counts)
        pixels = height * width
        if runs.ndim != 1 or min(height, width) < 0 or not ((runs >= 0) & (runs <= pixels)).all():
            raise ValueError("a run that no image has")
        if (covered := int(runs.sum())) != pixels:
            raise DatasetError(f"A mask's runs cover {covered} pixels, not {height} x {width}.")
        values = np.arange(len(runs)) % 2 == 1
        return np.repeat(values, runs).reshape((height, width), order="F")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"A mask isn't COCO run lengths: {error!r:.200}.") from None


def _uncompressed(counts: str | bytes) -> NDArray[np.int64]:
    """The runs that pycocotools' rleToString writes: 5 bits a character, the lowest first, and one for "more follows".

    From the fourth on each is the difference to the last but one. Raises ValueError or TypeError for anything else.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    ends = np.flatnonzero(digits & 32 == 0)
    if ((digits < 0) | (digits > 63)).any() or digits[-1] & 32:
        raise ValueError("characters that it has not, or none at its end")
    starts = np.concatenate(([0], ends[:-1] + 1))
    places = np.arange(len(digits)) - np.repeat(starts, ends - starts + 1)
    if places.max() >= _LONGEST_RUN:
        raise ValueError("a run longer than any image")
    values = np.add.reduceat((digits & 31) << 5 * places, starts)
    values -= np.where(digits[ends] & 16, 1 << 5 * (places[ends] + 1), 0)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> Mask:
    """Any COCO `segmentation`: run lengths, a list of them (REFER's ReferIt), or of polygons -> HxW bool.

    Overlapping polygons of one object are united. Raises DatasetError if run lengths are of another size.
    """
    if isinstance(segmentation, dict):
        # Before anything of that size is made.
        size = segmentation.get("size")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise DatasetError(f"A mask is {_by(size)}, its image {height} x {width}.")
        return decode_rle(segmentation)
    if any(isinstance(part, dict) for part in segmentation):
        masks = [segmentation_to_mask(part, height, width) for part in segmentation]
        return np.asarray(np.any(masks, axis=0), dtype=bool)
    # A polygon needs three points; shorter ones occur in the wild and enclose nothing.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))), dtype=bool)


def _by(size: object) -> str:
    return " x ".join(f"{side!r:.20}" for side in size) if isinstance(size, list | tuple) else "of no size"


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
