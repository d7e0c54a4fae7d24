"""What leaves: each fault is named, and nothing passes that label-studio-sdk refuses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sdk

from backend.errors import RegionError
from backend.labelstudio import label_config, regions
from backend.labelstudio.region_checks import validate

XML = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="Big cat" alias="cat"/><Label value="dog"/></BrushLabels>'
    '<BitmaskLabels name="bits" toName="img"><Label value="Big cat"/></BitmaskLabels>'
    '<PolygonLabels name="poly" toName="img"><Label value="Big cat"/></PolygonLabels>'
    '<RectangleLabels name="box" toName="img"><Label value="Big cat"/></RectangleLabels>'
    '<Choices name="kind" toName="img"><Choice value="a"/></Choices></View>'
)
CONFIG = label_config.parse(XML)
BRUSH, BITS, POLY, BOX, PROMPT = range(5)

Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture(scope="module")
def label_studio_sdk() -> Iterator[sdk.Sdk]:
    with sdk.running() as process:
        yield process


def good() -> list[dict[str, Any]]:
    """One region for each tag, over the whole image: the numbers reach their limits."""
    mask = np.ones((30, 7), np.bool_)
    masks = regions.mask_regions(CONFIG, CONFIG.labels[0], mask, 1.0, "the cat")
    return [*masks, regions.prompt_region(CONFIG, (30, 7), "the cat")]


def value(number: int, **fields: Any) -> Change:
    return lambda result: result[number]["value"].update(fields)


def field(number: int, **fields: Any) -> Change:
    return lambda result: result[number].update(fields)


# What the SDK refuses as well.
BOTH: dict[str, tuple[Change, str]] = {
    "unknown tag": (field(BRUSH, from_name="brsh"), "no tag 'brsh'"),
    "unknown image": (field(BRUSH, to_name="image"), "drawn on 'image'"),
    "type of another tag": (field(BRUSH, type="polygonlabels"), "regions are of type brushlabels"),
    "unknown label": (value(BRUSH, brushlabels=["bird"]), "brush has no label 'bird'"),
    "value, where there is an alias": (value(BRUSH, brushlabels=["Big cat"]), "no label 'Big cat'"),
    "one unknown label of two": (value(POLY, polygonlabels=["Big cat", "x"]), "poly has no label 'x'"),
    "no label": (lambda result: result[BOX]["value"].pop("rectanglelabels"), "no label"),
    "no value": (lambda result: result[BOX].pop("value"), "no value"),
    "bytes over 255": (lambda result: result[BRUSH]["value"]["rle"].append(256), "from 0 to 255"),
    "no bytes": (value(BRUSH, rle=[]), "too few for its header"),
    "bits without picture": (value(BITS, imageDataURL=None), "data URL"),
    "a point beyond the image": (value(POLY, points=[[0, 0], [100.1, 0], [0, 9]]), "inside the image"),
    "a point that is no number": (value(POLY, points=[[0, 0], ["x", 0], [0, 9]]), "inside the image"),
    "half a point": (value(POLY, points=[[0, 0], [1], [0, 9]]), "inside the image"),
    "points nowhere": (value(POLY, points=[[0, 0], [math.nan, 0], [0, 9]]), "inside the image"),
    "too wide": (value(BOX, width=101), "rectangle isn't inside"),
    "no height": (lambda result: result[BOX]["value"].pop("height"), "rectangle isn't inside"),
    "height of nothing": (value(BOX, height=math.nan), "rectangle isn't inside"),
}
# What only the editor would trip over.
OURS: dict[str, tuple[Change, str]] = {
    "the same id twice": (lambda result: result[BITS].update(id=result[BRUSH]["id"]), "another region's, too"),
    "no id": (field(POLY, id=""), "no id"),
    "no size": (lambda result: result[POLY].pop("original_width"), "size of its image"),
    "another size": (field(POLY, original_width=8), "another size than the first"),
    "a mask of another size": (lambda result: [r.update(original_width=8) for r in result], "can't be read"),
    "a label that is no list": (value(BRUSH, brushlabels=""), "no label"),
    "an empty name of a label": (value(BRUSH, brushlabels=[""]), "no label"),
    "a score that JSON can't hold": (field(BRUSH, score=math.nan), "score is nan"),
    "a score above 1": (field(BRUSH, score=1.5), "score is 1.5"),
    "another format": (value(BRUSH, format="png"), "not 'rle'"),
    "left of the image": (value(POLY, points=[[-1, 0], [1, 1], [0, 9]]), "inside the image"),
    "an open outline": (value(POLY, closed=False), "isn't closed"),
    "two points": (value(POLY, points=[[0, 0], [1, 1]]), "three or more"),
    "a rectangle over the edge": (value(BOX, x=50), "rectangle isn't inside"),
    "a picture from elsewhere": (value(BITS, imageDataURL="http://example.com/a.png"), "data URL"),
    "no sentence": (value(PROMPT, text=[]), "list of sentences"),
}


def changed(change: Change) -> list[dict[str, Any]]:
    result = copy.deepcopy(good())
    change(result)
    return result


def test_what_is_built_passes() -> None:
    validate(good(), CONFIG)
    validate(regions.mask_regions(CONFIG, None, np.ones((30, 7), np.bool_), 1.0, "the cup"), CONFIG)
    validate([], CONFIG)


@pytest.mark.parametrize("name", [*BOTH, *OURS])
def test_each_fault_is_named(name: str) -> None:
    change, message = (BOTH | OURS)[name]
    with pytest.raises(RegionError, match="Nothing was sent") as caught:
        validate(changed(change), CONFIG)
    assert message in str(caught.value)


def test_the_sdk_refuses_no_more_than_we_do(label_studio_sdk: sdk.Sdk) -> None:
    cases = [good(), *(changed(change) for change, _ in BOTH.values())]
    passes, *refusals = label_studio_sdk.ask("validate", XML, cases)
    assert passes == []
    assert [name for name, complaints in zip(BOTH, refusals, strict=True) if not complaints] == []
