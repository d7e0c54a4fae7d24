"""Labelling interfaces: those that work, those that can't, and those that attack the parser."""

from __future__ import annotations

import time

import pytest

from backend.errors import ConfigError
from backend.labelstudio import config

RECORDED = (
    '<View><Image name="img" value="$image" zoom="true"/><TextArea name="prompt" toName="img" editable="true" '
    'rows="1" maxSubmissions="1"/><BrushLabels name="brush" toName="img" smart="true">'
    '<Label value="Thing" background="#f00"/><Label value="Stuff"/></BrushLabels>'
    '<KeyPointLabels name="kp" toName="img" smart="true"><Label value="Thing"/></KeyPointLabels></View>'
)
IMAGE = '<Image name="img" value="$image"/>'
BRUSH = '<BrushLabels name="brush" toName="img"><Label value="cat"/></BrushLabels>'


def test_recorded_interface() -> None:
    parsed = config.parse(RECORDED)
    assert parsed.image == config.ImageObject("img", "image")
    assert (parsed.brush.name, parsed.brush.to_name) == ("brush", "img")
    assert [(label.value, dict(label.attributes)) for label in parsed.brush.labels] == [
        ("Thing", {"background": "#f00"}),
        ("Stuff", {}),
    ]
    assert parsed.prompt == config.TextAreaControl("prompt", "img")
    assert hash(parsed) == hash(config.parse(RECORDED))
    assert parsed == config.parse(RECORDED)


def test_labels_are_found_by_what_is_stored() -> None:
    labels = '<Label value="Big cat" alias="c" hint="fur"/>'
    brush = config.parse(f'<View>{IMAGE}<BrushLabels name="b" toName="img">{labels}</BrushLabels></View>').brush
    label = brush.label("c")
    assert label is not None
    assert (label.value, label.alias, label.stored) == ("Big cat", "c", "c")
    assert label.attributes["hint"] == "fur"
    assert brush.label("Big cat") is label
    assert brush.label("dog") is None


@pytest.mark.parametrize(
    ("areas", "name"),
    [
        ("", None),
        ('<TextArea name="note" toName="img"/>', "note"),
        ('<TextArea name="note" toName="img"/><TextArea name="prompt" toName="img"/>', "prompt"),
        ('<TextArea name="a" toName="img"/><TextArea name="b" toName="img"/>', "a"),
        ('<Text name="t" value="$t"/><TextArea name="prompt" toName="t"/>', None),
    ],
)
def test_prompt_text_area(areas: str, name: str | None) -> None:
    prompt = config.parse(f"<View>{IMAGE}{areas}{BRUSH}</View>").prompt
    assert (prompt.name if prompt else None) == name


def test_the_image_is_the_one_with_the_brush() -> None:
    xml = f'<View><Image name="guide" value="$guide"/><View>{IMAGE}</View><!-- hi -->{BRUSH}</View>'
    assert config.parse(xml).image == config.ImageObject("img", "image")


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "isn't valid XML"),
        ("<View>", "isn't valid XML"),
        ("<View>\0</View>", "isn't valid XML"),
        ("<View>\ud800</View>", "isn't valid XML"),
        ("<View/>", "no Image tag: add <Image"),
        (
            f"<View>{IMAGE}</View>",
            'no BrushLabels tag connected to an Image: add <BrushLabels name="brush" toName="img">',
        ),
        (
            f'<View>{IMAGE}<BrushLabels name="b" toName="other"><Label value="a"/></BrushLabels></View>',
            "no BrushLabels",
        ),
        (f'<View>{IMAGE}<BrushLabels name="b" toName="img"/></View>', '"b" has no labels'),
        (
            f'<View>{IMAGE}<BrushLabels name="b" toName="img"><Label/></BrushLabels></View>',
            '"b" has no labels',
        ),
        (f'<View>{IMAGE}<BrushLabels toName="img"><Label value="a"/></BrushLabels></View>', "has no name"),
        (f'<View><Image name="img"/>{BRUSH}</View>', "which task data"),
        (f'<View><Image name="img" valueList="$images"/>{BRUSH}</View>', "which task data"),
    ],
)
def test_what_is_missing_is_named(xml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(xml)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "xml",
    [
        '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa">'
        + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + f"]><View>{IMAGE}{BRUSH}&i;</View>",
        f'<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>{IMAGE}{BRUSH}&x;</View>',
        f'<!DOCTYPE v SYSTEM "http://127.0.0.1:1/evil.dtd"><View>{IMAGE}{BRUSH}</View>',
        f'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE v><View>{IMAGE}{BRUSH}</View>',
    ],
)
def test_declarations_are_refused_at_once(xml: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError):
        config.parse(xml)
    assert time.perf_counter() - start < 0.5


def test_deep_nesting_is_harmless() -> None:
    depth = 20_000
    assert config.parse("<View>" * depth + IMAGE + BRUSH + "</View>" * depth).image.name == "img"
