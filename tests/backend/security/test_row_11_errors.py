"""Row 11, errors: whatever a request holds, the answer is a sentence and no 500; of many tasks, a bad one costs itself.

Requests are Label Studio's recorded ones, with odd values in odd places.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recorded import BASIC, HOOK, recorded, with_images
from werkzeug.test import TestResponse

HUGE = 10**400
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 1e308, HUGE, -HUGE),
    *("", " ", "a" * 10_000, "\ud800", "a\udfffb", "\0", "\r\nSet-Cookie: a=b", "9" * 4000, "NaN"),
    *("s3://bucket/\ud800.png", "s3://bucket/a.png", "gs://", "azure-blob://a", "http://[::1", "http://\udcff/", "//a"),
    *("http://a:99999999/", "data:image/png;base64,!!", "data:image/png;base64,", "/data/upload/\ud800", "upload/../x"),
    *("http://127.0.0.1:9/a.png", "/data/local-files/?d=\0", "/tasks/7/resolve/?fileuri=%ff", "http://xn--\u2603/"),
    *([], {}, [[]], [None], [1], ["a"], [{}], {"": None}, {"text": ["x"]}, [[[[[]]]]]),
]
odd = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def send(client: FlaskClient, path: str, body: object, headers: dict[str, str] = BASIC) -> TestResponse:
    """As a client writes it that doesn't care: NaN, lone surrogates and all."""
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    return client.post(path, data=content, headers={"Content-Type": "application/json", **headers})


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something can be put in place of something else."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        # One number of a mask's thousands is like the next.
        if not (isinstance(name, int) and name > 3):
            yield from places(child, (*path, name))


def replaced(body: Any, path: tuple[Any, ...], value: object) -> Any:
    body = copy.deepcopy(body)
    parent = body
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return body


PREDICTIONS = tuple(
    f"predict-{name}"
    for name in ("batch", *(f"interactive-{kind}" for kind in ("keypoint", "points", "rectangle", "selected", "text")))
)
REQUESTS: list[tuple[str, dict[str, str], Any]] = [
    *(("/predict", BASIC, with_images(name)) for name in PREDICTIONS),
    ("/setup", BASIC, recorded("setup")["body"]),
    *(
        ("/webhook", HOOK, recorded(f"webhook-{name}")["body"])
        for name in ("annotation-created", "annotation-updated", "annotations-deleted", "start-training")
    ),
]
# What Label Studio's own requests hold little of: drafts, annotations and predictions with regions of all kinds.
for _, _, body in REQUESTS[:6]:
    regions = recorded("webhook-annotation-created")["body"]["annotation"]["result"]
    polygon = {
        **regions[0],
        "type": "polygonlabels",
        "value": {"points": [[0, 0], [50, 0], [50, 50]], "closed": True, "polygonlabels": ["Thing"]},
    }
    rows = [{"id": 1, "updated_at": "2026-11-21T02:02:23.852900Z", "result": [*regions, polygon]}]
    body["tasks"][0] |= {"drafts": rows, "annotations": rows, "predictions": rows}


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, dict[str, str], Any]:
    path, headers, body = draw(st.sampled_from(REQUESTS))
    for _ in range(draw(st.integers(1, 3))):
        body = replaced(body, draw(st.sampled_from(list(places(body)))), draw(odd))
    return path, headers, body


def assert_is_an_answer(answer: TestResponse) -> None:
    # Label Studio isn't there, which is said as such.
    is_label_studios = answer.status_code == 502 and answer.json["code"] == "label_studio_unreachable"
    assert answer.status_code < 500 or answer.status_code == 503 or is_label_studios, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code >= 400:
        assert answer.json.keys() == {"code", "message", "request_id"}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_any_value_in_any_place_is_answered(client: FlaskClient, request_: tuple[str, dict[str, str], Any]) -> None:
    path, headers, body = request_
    assert_is_an_answer(send(client, path, body, headers))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["/predict", "/setup", "/webhook"]), st.binary(max_size=60))
@example("/predict", b"[" * 100_000)
@example("/predict", b'{"a":' * 100_000)
@example("/webhook", b'{"action": "START_TRAINING", "project": {"id": ' + b"9" * 10_000 + b"}}")
@example("/setup", b"\xff\xfe{\x00}\x00")
def test_any_bytes_are_answered(client: FlaskClient, path: str, content: bytes) -> None:
    assert_is_an_answer(client.post(path, data=content, headers=BASIC))


@pytest.mark.parametrize("result", [5, True, float("nan"), "text", {"a": 1}, [5], None, HUGE])
def test_an_odd_result_of_the_editor_asks_for_nothing(client: FlaskClient, result: object) -> None:
    body = replaced(with_images("predict-interactive-text"), ("params", "context", "result"), result)
    answer = send(client, "/predict", body)
    assert answer.status_code == 200, answer.text
    assert answer.json["results"][0]["result"] == []


BAD_TASKS = [
    (("id",), "seven"),
    (("id",), 10**30),
    (("id",), {"a": 1}),
    (("data", "image"), HUGE),
    (("data", "image"), "http://[::1"),
    (("data",), [1]),
    (("data",), {"prompt": "\ud800", "image": "/data/local-files/?d=\0"}),
]


@pytest.mark.parametrize(("path", "value"), BAD_TASKS)
def test_in_a_batch_a_bad_task_costs_itself(client: FlaskClient, path: tuple[str, ...], value: object) -> None:
    body = with_images("predict-batch")
    good = {**body["tasks"][0], "id": 8}
    good["data"] = {**good["data"], "prompt": "a red thing"}
    bad = replaced({**good, "id": 9}, path, value)
    answer = send(client, "/predict", {**body, "tasks": [good, bad, {**good, "id": 10}]})
    assert answer.status_code == 200, answer.text
    versions = [result["model_version"] for result in answer.json["results"]]
    assert [version.endswith("#failed") for version in versions] == [False, True, False]


def test_a_prompt_with_half_a_character_is_a_prompt(client: FlaskClient) -> None:
    body = with_images("predict-interactive-text")
    body["params"]["context"]["result"][0]["value"]["text"] = ["the \ud800 car"]
    assert send(client, "/predict", body).status_code == 200


@pytest.mark.parametrize(
    "number", [0, -1, 1.5, True, None, "", "0", "-1", "1.x", "a", "9" * 4000, HUGE, 2**31, [1], {}]
)
@pytest.mark.parametrize("name", ["webhook-start-training", "webhook-annotation-created", "predict-batch", "setup"])
def test_what_is_no_project_number_is_refused(client: FlaskClient, name: str, number: object) -> None:
    request = recorded(name)
    place = ("project", "id") if name.startswith("webhook") else ("project",)
    answer = send(client, request["path"], replaced(request["body"], place, number))
    assert answer.status_code == 422, answer.text
    assert answer.json["code"] == "bad_request"


@pytest.mark.parametrize("number", [1, 2**31 - 1])
def test_the_first_and_the_last_project_number_are_taken(client: FlaskClient, number: int) -> None:
    body = replaced(recorded("webhook-start-training")["body"], ("project", "id"), number)
    assert send(client, "/webhook", body).status_code == 200
    body = {**recorded("setup")["body"], "project": f"{number}.1795225310"}
    assert send(client, "/setup", body).status_code == 200


@pytest.mark.parametrize("address", ["0", "-1", "1.5", "2147483648", "9" * 4000, "%ff", "1%00"])
def test_addresses_of_what_is_no_project_lead_nowhere(client: FlaskClient, address: str) -> None:
    answer = send(client, f"/projects/{address}/webhook", recorded("webhook-start-training")["body"])
    assert answer.status_code in (404, 414)
