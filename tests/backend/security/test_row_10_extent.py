"""Row 10, limits: what is large is done in time that grows with it, or refused by a sentence. Times are generous.

And row 12, webhooks: events in thousands are logged at once.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image
from ports import free_port
from recorded import HOOK, recorded, with_images
from recorded import send as send_recorded
from redis import Redis

from backend.errors import ConfigError
from backend.labelstudio.label_config import (
    MAX_ATTRIBUTE,
    MAX_CHARACTERS,
    MAX_CONTROLS,
    MAX_DEPTH,
    MAX_LABELS,
    MAX_TAGS,
    parse,
)
from backend.learning.events import MAX_EVENTS, EventLog
from backend.prompts.text import clean
from backend.queue.queue import connect
from ris_core.errors import ImageError
from ris_core.images import MAX_SIDE, read_image


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def many_created(count: int) -> dict[str, Any]:
    body = recorded("webhook-annotation-created")["body"]
    kept = {name: body["annotation"][name] for name in ("updated_at", "was_cancelled")}
    rows = [{**kept, "id": number, "task": number} for number in range(1, count + 1)]
    return {**body, "action": "ANNOTATIONS_CREATED", "annotation": rows}


def many_deleted(count: int) -> dict[str, Any]:
    body = recorded("webhook-annotations-deleted")["body"]
    return {**body, "annotations": [{"id": number} for number in range(1, count + 1)]}


@pytest.mark.parametrize("make", [many_created, many_deleted])
def test_a_webhook_of_150000_annotations_is_acknowledged(
    client: FlaskClient, redis: Redis, make: Callable[[int], dict[str, Any]]
) -> None:
    """It took half a minute; of those that can't be kept the last are logged."""
    with within(8):
        answer = client.post("/webhook", json=make(150_000), headers=HOOK)
    assert answer.json["logged"] == MAX_EVENTS
    assert redis.hexists("ris:events:1:newest", "150000")
    assert not redis.hexists("ris:events:1:newest", "1")


def test_a_webhook_of_a_thousand_annotations_is_acknowledged_in_time(client: FlaskClient, redis: Redis) -> None:
    """A second is what Label Studio allows."""
    with within(1):
        answer = client.post("/webhook", json=many_created(1000), headers=HOOK)
    assert answer.json["logged"] == 1000
    assert answer.json["new"] is True


def test_the_same_thousand_events_are_news_once(client: FlaskClient, redis: Redis) -> None:
    body = many_created(1000)
    client.post("/webhook", json=body, headers=HOOK)
    body["annotation"].append({**body["annotation"][0], "id": 1001})
    assert client.post("/webhook", json=body, headers=HOOK).json["logged"] == 1


def test_without_valkey_thousands_of_events_are_spooled_at_once(tmp_path: Path, redis_url: str, redis: Redis) -> None:
    from backend.labelstudio.webhooks import read_events

    events = read_events(many_created(5000))
    away = EventLog(connect(f"redis://127.0.0.1:{free_port()}/0"), tmp_path)
    with within(5):
        assert away.append_all(1, events) == ["spooled"] * 5000
    log = EventLog(connect(redis_url), tmp_path)
    assert log.unspool() == 5000
    assert log.changes(1).fresh == 5000


def interface(inside: str = "", labels: str = '<Label value="Thing"/>') -> str:
    tags = '<Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    return f'<View>{tags}<BrushLabels name="brush" toName="img">{labels}</BrushLabels>{inside}</View>'


def many_labels(count: int) -> str:
    return interface(labels="".join(f'<Label value="thing {number}"/>' for number in range(count)))


BRUSH = '<BrushLabels name="b{}" toName="img"><Label value="a"/></BrushLabels>'
TOO_LARGE = {
    "10,000 labels": (many_labels(10_000), "10,000 labels"),
    "a label of 10 MB": (interface(labels=f'<Label value="{"a b " * 2_500_000}"/>'), "characters, more than"),
    "a long label": (interface(labels=f'<Label value="{"a b " * 10_000}"/>'), "characters in one attribute"),
    "one label too many": (many_labels(MAX_LABELS + 1), "2,001 labels"),
    "one tag too many": (interface("<View/>" * MAX_TAGS), "tags, more than 10,000"),
    "tags within tags": (interface("<View>" * 1000 + "</View>" * 1000), "tags within each other"),
    "repeaters within repeaters": (interface("<Repeater>" * 4000 + "</Repeater>" * 4000), "tags within each other"),
    "answers within answers": (
        interface('<BrushLabels name="c" toName="img">' * 60 + "</BrushLabels>" * 60),
        "tags that show answers",
    ),
    "many tags for answers": (interface("".join(map(BRUSH.format, range(MAX_CONTROLS)))), "tags that show answers"),
    "many characters": (interface(" " * MAX_CHARACTERS), "characters, more than 1,000,000"),
    "deeper than Python's stack": (interface("<View>" * 120_000 + "</View>" * 120_000), "characters, more than"),
}


@pytest.mark.parametrize(("xml", "said"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_an_interface_that_nobody_could_label_with_is_refused(client: FlaskClient, xml: str, said: str) -> None:
    with within(2), pytest.raises(ConfigError, match=said):
        parse(xml)
    with within(4):
        answer = send_recorded(client, "setup", recorded("setup")["body"] | {"schema": xml})
    assert (answer.status_code, answer.json["code"]) == (422, "bad_labelling_interface")


LARGEST = {
    "labels": many_labels(MAX_LABELS),
    "tags": interface("<View/>" * (MAX_TAGS - 5)),
    "depth": interface("<View>" * (MAX_DEPTH - 2) + "</View>" * (MAX_DEPTH - 2)),
    "attribute": interface(labels=f'<Label value="a" predicted_values="{"a," * (MAX_ATTRIBUTE // 2)}"/>'),
    "controls": interface("".join(map(BRUSH.format, range(MAX_CONTROLS - 1)))),
}


@pytest.mark.parametrize("xml", LARGEST.values(), ids=LARGEST.keys())
def test_the_largest_interface_is_answered(client: FlaskClient, xml: str) -> None:
    with within(2):
        assert send_recorded(client, "setup", recorded("setup")["body"] | {"schema": xml}).status_code == 200
    body = with_images("predict-interactive-text") | {"label_config": xml}
    with within(20):
        answer = send_recorded(client, "predict-interactive-text", body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("size", [(1, 100_000_000), (100_000_000, 1), (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1)])
def test_a_picture_that_is_a_line_is_refused(size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    with within(1), pytest.raises(ImageError, match="on a side"):
        read_image(file.getvalue())


def test_the_longest_picture_is_read() -> None:
    file = io.BytesIO()
    Image.new("L", (1, MAX_SIDE)).save(file, "PNG")
    with within(5):
        assert read_image(file.getvalue()).shape == (MAX_SIDE, 1, 3)


@pytest.mark.parametrize("text", ["!" * 1_000_000, "a" + "!" * 1_000_000, "! " * 500_000])
def test_punctuation_without_end_is_cleaned_in_time(text: str) -> None:
    with within(5):
        assert clean(text) in ("", "a")


@pytest.mark.parametrize("sentence", ["a" + " " * 300_000 + "b", " ;" * 100_000, "; not " * 50_000, "?" * 300_000])
def test_a_draft_of_any_length_costs_no_click(client: FlaskClient, sentence: str) -> None:
    body = with_images("predict-interactive-keypoint")
    prompt = {"id": "a", "from_name": "prompt", "to_name": "img", "type": "textarea", "value": {"text": [sentence]}}
    body["tasks"][0]["drafts"] = [{"id": 1, "updated_at": "2026-11-21T02:02:23.852900Z", "result": [prompt]}]
    with within(5):
        answer = send_recorded(client, "predict-interactive-keypoint", body)
    assert answer.status_code in (200, 422), answer.text
