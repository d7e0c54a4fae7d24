"""Labelling interfaces: those that work, those that can't, and those that attack the parser."""

from __future__ import annotations

import time

import pytest

from backend.errors import ConfigError
from backend.labelstudio import label_config

RECORDED = (
    '<View><Image name="img" value="$image" zoom="true"/><TextArea name="prompt" toName="img" editable="true" '
    'rows="1" maxSubmissions="1"/><BrushLabels name="brush" toName="img" smart="true">'
    '<Label value="Thing" background="#f00"/><Label value="Stuff"/></BrushLabels>'
    '<KeyPointLabels name="kp" toName="img" smart="true"><Label value="Thing"/></KeyPointLabels></View>'
)
IMAGE = '<Image name="img" value="$image"/>'
POLYGON = '<PolygonLabels name="poly" toName="img"><Label value="cat"/></PolygonLabels>'
BITMASK = '<BitmaskLabels name="bits" toName="img"><Label value="dog"/></BitmaskLabels>'
RECTANGLE = '<RectangleLabels name="box" toName="img"><Label value="dog"/></RectangleLabels>'
BRUSH = '<BrushLabels name="brush" toName="img"><Label value="cat"/></BrushLabels>'


def test_recorded_interface() -> None:
    parsed = label_config.parse(RECORDED)
    assert parsed.image == label_config.ImageObject("img", "image")
    assert [(tag.kind, tag.name, tag.to_name, tag.type) for tag in parsed.controls] == [
        ("brush", "brush", "img", "brushlabels")
    ]
    assert [(label.value, dict(label.attributes)) for label in parsed.labels] == [
        ("Thing", {"background": "#f00"}),
        ("Stuff", {}),
    ]
    assert parsed.prompt == label_config.TextAreaControl("prompt", "img")
    assert hash(parsed) == hash(label_config.parse(RECORDED))
    assert parsed == label_config.parse(RECORDED)


def test_labels_are_found_by_what_is_stored() -> None:
    labels = '<Label value="Big cat" alias="c" hint="fur"/>'
    parsed = label_config.parse(f'<View>{IMAGE}<BrushLabels name="b" toName="img">{labels}</BrushLabels></View>')
    label = parsed.label("c")
    assert label is not None
    assert (label.value, label.alias, label.stored) == ("Big cat", "c", "c")
    assert label.attributes["hint"] == "fur"
    assert parsed.label("Big cat") == label
    assert parsed.controls[0].label("c") == label
    assert parsed.label("dog") is None


def test_every_tag_that_can_show_an_answer_is_a_control() -> None:
    parsed = label_config.parse(f"<View>{IMAGE}{POLYGON}{BITMASK}{RECTANGLE}{BRUSH}</View>")
    assert [tag.kind for tag in parsed.controls] == ["polygon", "bitmask", "rectangle", "brush"]
    assert [tag.type for tag in parsed.controls] == [
        "polygonlabels",
        "bitmasklabels",
        "rectanglelabels",
        "brushlabels",
    ]


@pytest.mark.parametrize("tag", [POLYGON, BITMASK, RECTANGLE, BRUSH, POLYGON.replace("PolygonL", "POLYGONl")])
def test_one_such_tag_is_enough(tag: str) -> None:
    (control,) = label_config.parse(f"<View>{IMAGE}{tag}</View>").controls
    assert control.type in tag.lower()


def test_labels_of_all_tags_count_once_and_keep_what_any_says_of_them() -> None:
    brush = '<Label value="cat" prompt="a cat"/><Label value="dog"/>'
    polygon = '<Label value="cup"/><Label value="cat" alias="c" prompt="the cat" negative="the tail"/>'
    parsed = label_config.parse(
        f'<View>{IMAGE}<BrushLabels name="b" toName="img">{brush}</BrushLabels>'
        f'<PolygonLabels name="p" toName="img">{polygon}</PolygonLabels></View>'
    )
    assert [(label.value, label.alias) for label in parsed.labels] == [("cat", "c"), ("dog", None), ("cup", None)]
    assert dict(parsed.labels[0].attributes) == {"prompt": "a cat", "negative": "the tail"}
    # Each tag still writes what it calls the label itself.
    assert [tag.label("cat").stored for tag in parsed.controls] == ["cat", "c"]  # type: ignore[union-attr]


def test_a_smart_rectangle_beside_a_mask_is_for_pointing() -> None:
    smart = RECTANGLE.replace("<RectangleLabels ", '<RectangleLabels smart="true" ')
    assert [tag.kind for tag in label_config.parse(f"<View>{IMAGE}{smart}{BRUSH}</View>").controls] == ["brush"]
    assert [tag.kind for tag in label_config.parse(f"<View>{IMAGE}{smart}</View>").controls] == ["rectangle"]


def test_tags_of_another_image_are_left_alone() -> None:
    other = '<Image name="other" value="$other"/>' + POLYGON.replace('"img"', '"other"')
    parsed = label_config.parse(f"<View>{IMAGE}{RECTANGLE}{BRUSH}{other}</View>")
    assert (parsed.image.name, [tag.kind for tag in parsed.controls]) == ("img", ["rectangle", "brush"])


def test_a_tag_says_how_answers_look_in_it() -> None:
    tag = POLYGON.replace("<PolygonLabels ", '<PolygonLabels objects="each" tolerance="2.5" smallest="0.01" ')
    parsed = label_config.parse(f"<View>{IMAGE}{tag}{BRUSH}</View>", label_config.Defaults(tolerance=0.5, smallest=0.0))
    shown = [(tag.objects, tag.tolerance, tag.smallest) for tag in parsed.controls]
    assert shown == [("each", 2.5, 0.01), ("one", 0.5, 0.0)]


@pytest.mark.parametrize(
    ("attribute", "advice"),
    [
        ('objects="many"', "one, each or instances"),
        ('tolerance="wide"', "from 0 to 100"),
        ('tolerance="-1"', "from 0 to 100"),
        ('tolerance="nan"', "from 0 to 100"),
        ('smallest="2"', "from 0 to 1"),
        ('smallest=""', "from 0 to 1"),
    ],
)
def test_an_attribute_that_makes_no_sense_is_named(attribute: str, advice: str) -> None:
    tag = POLYGON.replace("<PolygonLabels ", f"<PolygonLabels {attribute} ")
    with pytest.raises(ConfigError, match=f'"poly" has {attribute}') as caught:
        label_config.parse(f"<View>{IMAGE}{tag}</View>")
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("areas", "name"),
    [
        ("", None),
        # Neither named so, nor smart, nor with data to show: for remarks.
        ('<TextArea name="note" toName="img"/>', None),
        ('<TextArea name="note" toName="img"/><TextArea name="prompt" toName="img"/>', "prompt"),
        ('<TextArea name="a" toName="img" smart="False"/><TextArea name="b" toName="img" smart="true"/>', "b"),
        ('<TextArea name="a" toName="img"/><TextArea name="b" toName="img" value="$caption"/>', "b"),
        ('<TextArea name="a" toName="img" value="$x"/><TextArea name="b" toName="img" smart="TRUE"/>', "b"),
        ('<Text name="t" value="$t"/><TextArea name="prompt" toName="t"/>', None),
    ],
)
def test_prompt_text_area(areas: str, name: str | None) -> None:
    prompt = label_config.parse(f"<View>{IMAGE}{areas}{BRUSH}</View>").prompt
    assert (prompt.name if prompt else None) == name


def test_the_prompt_box_can_be_chosen() -> None:
    xml = f'<View>{IMAGE}<TextArea name="prompt" toName="img"/><TextArea name="ask" toName="img"/>{BRUSH}</View>'
    config = label_config.parse(xml, label_config.Defaults(prompt_box="ask"))
    assert (config.prompt and config.prompt.name, len(config.areas)) == ("ask", 2)
    with pytest.raises(ConfigError, match=r'"notes".*has prompt, ask.*--prompt-box'):
        label_config.parse(xml, label_config.Defaults(prompt_box="notes"))


def test_the_choice_for_what_is_absent() -> None:
    choices = '<Choices name="absent" toName="{}"><Choice value="Nicht da"/></Choices>'
    assert label_config.parse(f"<View>{IMAGE}{choices.format('img')}{BRUSH}</View>").absent == "absent"
    for other in ("", choices.format("text"), choices.format("img").replace("absent", "quality")):
        assert label_config.parse(f"<View>{IMAGE}{other}{BRUSH}</View>").absent is None


def test_the_image_is_the_one_with_the_brush() -> None:
    xml = f'<View><Image name="guide" value="$guide"/><View>{IMAGE}</View><!-- hi -->{BRUSH}</View>'
    assert label_config.parse(xml).image == label_config.ImageObject("img", "image")


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
            'RectangleLabels tag connected to an Image: add <BrushLabels name="brush" toName="img">',
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
        (f'<View><Image name="img" valueList="$images"/>{BRUSH}</View>', "several pictures a task"),
    ],
)
def test_what_is_missing_is_named(xml: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        label_config.parse(xml)
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
        label_config.parse(xml)
    assert time.perf_counter() - start < 0.5


def test_deep_nesting_is_harmless() -> None:
    depth = 90
    assert label_config.parse("<View>" * depth + IMAGE + BRUSH + "</View>" * depth).image.name == "img"
    depth = 20_000
    with pytest.raises(ConfigError, match="tags within each other"):
        label_config.parse("<View>" * depth + IMAGE + BRUSH + "</View>" * depth)


def test_the_box_for_answers_is_never_the_prompts() -> None:
    def areas(*tags: str) -> label_config.LabelConfig:
        boxes = "".join(f'<TextArea toName="img" {tag}/>' for tag in tags)
        return label_config.parse(
            f'<View>{boxes}<Image name="img" value="$image"/>'
            '<BrushLabels name="brush" toName="img"><Label value="cat"/></BrushLabels></View>'
        )

    both = areas('name="ris_answer" smart="true"', 'name="ask" value="$caption"')
    assert both.prompt is not None
    assert both.answer is not None
    assert (both.prompt.name, both.answer.name) == ("ask", "ris_answer")
    alone = areas('name="ris_answer" smart="true"')
    assert (alone.prompt, areas('name="prompt"').answer) == (None, None)
    assert alone.prompt_place == "Prompts can't be typed: it has no TextArea."
