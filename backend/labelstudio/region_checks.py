"""Regions checked against the labelling interface before they leave. Knows no HTTP.

One region that Label Studio refuses costs the whole batch, and one that its editor can't draw is invisible. The rules
are those of label-studio-sdk 2.1.2 (`LabelInterface._validate_region_logic` and the value classes of `control_tags`),
which Label Studio applies where its prediction validation is switched on. Stricter here: ids differ, sizes agree,
numbers are finite, labels are listed (none: people choose), nothing lies left of or above the image, a polygon is
closed and has three points, a brush mask is for an image of its region's size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backend.errors import BrushError, RegionError
from backend.labelstudio.json_values import is_number
from backend.labelstudio.label_config import LabelConfig, MaskControl, TextAreaControl
from backend.labelstudio.masks import bitmask, brush
from backend.labelstudio.regions import Region

# A side and a length, both rounded, may end just beyond the image.
_WHOLE = 100 + 1e-9


def validate(regions: Sequence[Region], config: LabelConfig) -> None:
    """Check the regions of one task's prediction. Raises RegionError, which says what is wrong with which."""
    tags: dict[str, MaskControl | TextAreaControl] = {tag.name: tag for tag in config.controls}
    tags |= {tag.name: tag for tag in config.areas}
    ids: set[str] = set()
    for number, region in enumerate(regions, start=1):
        fault = next(_faults(region, tags.get(str(region.get("from_name")))), None)
        if not fault and region["id"] in ids:
            fault = "its id is another region's, too"
        if not fault and _size(region) != _size(regions[0]):
            fault = "its image is of another size than the first region's"
        if fault:
            raise RegionError(
                f"Region {number} of a prediction (id {region.get('id')}) can't be shown: {fault}. Nothing was sent. "
                "This is a fault of ris-studio: please report it with the labelling interface."
            )
        ids.add(region["id"])


def _size(region: Region) -> tuple[object, object]:
    return region.get("original_height"), region.get("original_width")


def _faults(region: Region, tag: MaskControl | TextAreaControl | None) -> Iterator[str]:
    if tag is None:
        yield f"the labelling interface has no tag {region.get('from_name')!r} for it"
        return
    if region.get("to_name") != tag.to_name:
        yield f"it is drawn on {region.get('to_name')!r}, but {tag.name} is connected to {tag.to_name}"
    if region.get("type") != tag.type:
        yield f"its type is {region.get('type')!r}, but {tag.name}'s regions are of type {tag.type}"
    if not isinstance(region.get("id"), str) or not region["id"]:
        yield "it has no id"
    if not all(isinstance(side, int) and side > 0 for side in _size(region)):
        yield f"it doesn't say the size of its image, but {_size(region)}"
        return
    value = region.get("value")
    if not isinstance(value, dict):
        yield "it has no value"
    elif isinstance(tag, TextAreaControl):
        if not _are_strings(value.get("text")):
            yield "its text isn't a list of sentences"
    else:
        yield from _mask_faults(region, value, tag)


def _mask_faults(region: Region, value: Mapping[str, Any], control: MaskControl) -> Iterator[str]:
    if not _is_percent(region.get("score"), most=1):
        yield f"its score is {region.get('score')!r}, not a number from 0 to 1"
    labels = value.get(control.type)
    if not isinstance(labels, list) or not (labels == [] or _are_strings(labels)):
        yield "it has no labels"
        return
    if unknown := set(labels) - {label.stored for label in control.labels}:
        yield f"{control.name} has no label {min(unknown)!r}"
    if control.kind == "brush":
        yield from _brush_faults(value, region)
    elif control.kind == "bitmask" and not str(value.get("imageDataURL")).startswith(bitmask.PREFIX):
        yield "its mask isn't a PNG in a data URL"
    elif control.kind == "polygon" and not _is_polygon(value):
        yield "its outline isn't closed, with three or more points inside the image"
    elif control.kind == "rectangle" and not _is_rectangle(value):
        yield "its rectangle isn't inside the image"


def _brush_faults(value: Mapping[str, Any], region: Region) -> Iterator[str]:
    if value.get("format") != "rle":
        yield f"its format is {value.get('format')!r}, not 'rle'"
    try:
        brush.check(value.get("rle", ()), region["original_height"], region["original_width"])
    except BrushError as error:
        yield f"its mask can't be read ({error})"


def _is_polygon(value: Mapping[str, Any]) -> bool:
    points = value.get("points")
    if value.get("closed") is not True or not isinstance(points, list) or len(points) < 3:
        return False
    return all(isinstance(point, list) and len(point) == 2 and all(map(_is_percent, point)) for point in points)


def _is_rectangle(value: Mapping[str, Any]) -> bool:
    if not all(_is_percent(value.get(side)) for side in ("x", "y", "width", "height")):
        return False
    return bool(value["x"] + value["width"] <= _WHOLE and value["y"] + value["height"] <= _WHOLE)


def _is_percent(number: object, most: float = 100) -> bool:
    return is_number(number) and 0 <= number <= most


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)
