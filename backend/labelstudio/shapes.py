"""Drawings that no mask tag made, as the masks that they cover: for datasets, not for learning. Knows no HTTP.

A pixel is covered where its centre is. Rectangles turn around their upper left corner, ellipses around their centre,
clockwise by degrees, in pixels and not in percent: as the editor of Label Studio 1.23.2 draws them. What a tag
without labels draws (Polygon beside Labels, say) has its labels in a further region of the same id.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.errors import BrushError, RegionError
from backend.labelstudio.json_values import is_number
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.masks import Runs
from backend.labelstudio.masks.polygon import fill
from backend.labelstudio.regions import (
    Region,
    Tell,
    answer_of,
    decoded,
    image_size,
    noted_prompts,
    part_of,
    regions_of,
    shape_kind,
    strings_of,
)
from ris_core.masks import Mask

# A shape may run over the edge of its image, but not leave it far behind. In percent.
_FAR = 1000.0


@dataclass(frozen=True, eq=False)
class FilledShape:
    """A drawing and what it covers. kind: "rectangle", "ellipse", "polygon", "brush" or "bitmask"; mask: HxW bool.

    labels: as the interface calls them; none where it has none. prompts: the sentences that are noted on it.
    is_turned: its box isn't what was drawn.
    """

    region_id: str
    kind: str
    labels: tuple[str, ...]
    mask: Mask
    origin: str
    prompts: tuple[str, ...]
    score: float | None
    is_turned: bool


def filled_shapes(result: object, config: LabelConfig, tell: Tell) -> list[FilledShape]:
    """The drawings in an annotation's `result` that aren't read as masks, but cover something.

    tell: called with what is wrong with each that is left out: it is on another picture, of a tag that the interface
    hasn't, of one that people point with, a point or a line, or damaged. A drawing that repeats an answer whose mask is
    there too is passed over.
    """
    regions = regions_of(result)
    masks = {(control.name, control.type) for control in config.controls if control.kind != "rectangle"}
    answered = {answer_of(region) for region in regions if _tag(region) in masks} - {""}
    shapes = []
    for region in regions:
        if not shape_kind(region) or _tag(region) in masks or answer_of(region) in answered:
            continue
        region_id = str(region.get("id"))
        if objection := _objection(region, config):
            problem, reason = objection
            tell(problem, region_id, f"Region {region_id} is left out: {reason}.")
            continue
        try:
            shapes.append(_filled(region, regions, config))
        except (RegionError, BrushError) as error:
            tell("region", region_id, f"Region {region_id} can't be read. {error}")
    return shapes


def _tag(region: Region) -> tuple[str, str]:
    return str(region.get("from_name")), str(region.get("type"))


def _objection(region: Region, config: LabelConfig) -> tuple[str, str] | None:
    """The kind of problem, and why a drawing isn't taken."""
    name, kind = str(region.get("from_name")), shape_kind(region)
    if name not in config.tags:
        return "unknown tag", f'the interface has no tag "{name}"'
    if region.get("to_name") != config.image.name:
        return "region", f"it is on another picture ({region.get('to_name')})"
    if any(name == control.name for control in config.pointing):
        return "region", f'"{name}" is what people point with'
    if kind not in ("rectangle", "ellipse", "polygon", "brush", "bitmask"):
        return "region", f"a {kind} covers nothing"
    return None


def _filled(region: Region, regions: Sequence[Region], config: LabelConfig) -> FilledShape:
    kind, value = shape_kind(region), part_of(region, "value")
    height, width = image_size(region)
    if kind == "rectangle":
        mask = _rectangle(value, height, width)
    elif kind == "ellipse":
        mask = _ellipse(value, height, width)
    else:
        drawing = decoded(kind, region)
        mask = drawing.mask() if isinstance(drawing, Runs) else drawing
    origin = str(region.get("origin", "manual"))
    score = region.get("score")
    return FilledShape(
        region_id=str(region.get("id")),
        kind=kind,
        labels=tuple(_labels(region, regions, config)),
        mask=mask,
        origin=origin,
        prompts=tuple(noted_prompts(region)),
        score=score if is_number(score) and origin != "manual" else None,
        is_turned=kind in ("rectangle", "ellipse") and _numbers(value, "rotation") != [0.0],
    )


def _labels(region: Region, regions: Sequence[Region], config: LabelConfig) -> list[str]:
    """Its own labels, and those of a Labels tag that share its id."""
    own = [other for other in regions if other.get("id") == region.get("id")]
    stored = (name for other in own for name in strings_of(part_of(other, "value").get(str(other.get("type")))))
    return list(dict.fromkeys(config.label_value(name) for name in stored))


def _rectangle(value: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, across, down, rotation = _numbers(value, "x", "y", "width", "height", "rotation")
    turn = math.radians(rotation)
    right = np.array([math.cos(turn), math.sin(turn)]) * across * width / 100
    below = np.array([-math.sin(turn), math.cos(turn)]) * down * height / 100
    corner = np.array([x * width / 100, y * height / 100])
    return fill(np.array([corner, corner + right, corner + right + below, corner + below]), height, width)


def _ellipse(value: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, across, down, rotation = _numbers(value, "x", "y", "radiusX", "radiusY", "rotation")
    turn = math.radians(rotation)
    horizontal, vertical = across * width / 100, down * height / 100
    if horizontal <= 0 or vertical <= 0:
        raise RegionError("Its radius isn't above 0. Draw it again.")
    rows = np.arange(height)[:, None] + 0.5 - y * height / 100
    columns = np.arange(width)[None, :] + 0.5 - x * width / 100
    along = (columns * math.cos(turn) + rows * math.sin(turn)) / horizontal
    aside = (rows * math.cos(turn) - columns * math.sin(turn)) / vertical
    mask: Mask = along**2 + aside**2 <= 1
    return mask


def _numbers(value: Mapping[str, Any], *names: str) -> list[float]:
    """Fields of a drawing. Raises RegionError if one isn't a number near the image."""
    numbers = [value.get(name, 0 if name == "rotation" else None) for name in names]
    if not all(is_number(number) and abs(number) <= _FAR for number in numbers):
        raise RegionError(f"Its {', '.join(names)} aren't numbers that fit an image. Draw it again.")
    return [float(number) for number in numbers]
