"""Image tags that point into a task's data, as Label Studio 1.23.2 accepts them."""

from __future__ import annotations

from typing import Any

import pytest

from backend.errors import BadRequest, ConfigError
from backend.labelstudio.label_config import parse
from backend.labelstudio.task_data import image_address, look_up

URL = "/data/upload/1/ab-cup.png"
BRUSH = '<BrushLabels name="b" toName="image"><Label value="cup"/></BrushLabels>'


def address(value: str, data: Any) -> str:
    interface = f'<View><Image name="image" value="{value}"/>{BRUSH}</View>'
    return image_address({"id": 9, "data": data}, parse(interface))


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ("$image", {"image": URL}),
        ("$image", {"image": f"  {URL}\r\n"}),
        ("$photo.url", {"photo": {"url": URL}}),
        ("$photo.url", {"photo.url": URL, "photo": {"url": "another"}}),
        ("$images[0]", {"images": [URL, "another"]}),
        ("$images[1]", {"images": ["another", URL]}),
        ("$images.0", {"images": [URL, "another"]}),
        ("$pages[0].photo.url", {"pages": [{"photo": {"url": URL}}]}),
        # Layers of one picture: the editor shows the first.
        ("$images", {"images": [URL, "another"]}),
    ],
)
def test_the_image_is_found_as_the_editor_finds_it(value: str, data: Any) -> None:
    assert address(value, data) == URL


@pytest.mark.parametrize(
    ("value", "data", "message"),
    [
        ("$image", {"url": URL, "n": 1}, r'Task 9 has no "image", its image; its data has "url", "n"\. Import it'),
        ("$image", {"image": ""}, 'Task 9 has no "image"'),
        ("$images[2]", {"images": [URL]}, r'no "images\[2\]", its image; its data has "images"'),
        ("$image", None, "its data has nothing"),
        ("$images", {"images": []}, 'no "images"'),
        ("$photo", {"photo": {"url": URL}}, r"is an object of 'url', not the address of an image"),
        ("$image", {"image": 3}, "is a int"),
    ],
)
def test_a_task_without_one_says_what_it_has(value: str, data: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        address(value, data)
    assert "delete" not in str(caught.value)


def test_look_up_steps_only_where_there_is_something() -> None:
    assert look_up({"a": {"b": [1, 2]}}, "a.b[1]") == 2
    for path in ("a.c", "a.b[5]", "a.b.c", "x", "a.b[-1]", "a.b[0].c"):
        assert look_up({"a": {"b": [1, 2]}}, path) is None


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (f'<Image name="image" valueList="$images"/>{BRUSH}', "valueList"),
        (
            '<Repeater on="$document" indexFlag="{{idx}}" mode="pagination">'
            '<Image name="page_{{idx}}" value="$document[{{idx}}].page"/>'
            '<BrushLabels name="labels_{{idx}}" toName="page_{{idx}}"><Label value="cup"/></BrushLabels></Repeater>',
            "Repeater",
        ),
    ],
)
def test_several_pictures_a_task_are_refused_with_the_reason(image: str, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"\({word}\): several pictures a task aren't supported"):
        parse(f"<View>{image}</View>")


def test_a_repeater_beside_the_image_is_let_be() -> None:
    repeater = '<Repeater on="$notes"><Text name="t_{{idx}}" value="$notes[{{idx}}]"/></Repeater>'
    assert parse(f'<View>{repeater}<Image name="image" value="$image"/>{BRUSH}</View>').image.key == "image"
