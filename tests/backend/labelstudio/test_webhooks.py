"""What Label Studio's recorded webhooks say, and what is none of them."""

from __future__ import annotations

from typing import Any

import pytest
from recorded import recorded

from backend.errors import BadRequest
from backend.labelstudio.webhooks import CREATED, START_TRAINING, UPDATED, Event, read_events


def test_what_label_studio_sends_becomes_ids_and_times_alone() -> None:
    body = recorded("webhook-annotation-created")["body"]
    assert read_events(body) == [Event(CREATED, 1, 1, "2026-11-21T02:02:23.852900Z")]
    assert read_events(recorded("webhook-annotation-updated")["body"])[0].action == UPDATED
    assert read_events(recorded("webhook-annotations-deleted")["body"]) == [Event("ANNOTATIONS_DELETED", annotation=1)]
    assert read_events(recorded("webhook-start-training")["body"]) == [Event(START_TRAINING)]
    many = body | {"action": "ANNOTATIONS_CREATED", "annotation": [body["annotation"], {**body["annotation"], "id": 9}]}
    assert [event.annotation for event in read_events(many)] == [1, 9]
    assert read_events({"action": "TASKS_DELETED", "tasks": [{"id": 4}]}) == [Event("TASKS_DELETED", task=4)]
    skip = {**body["annotation"], "was_cancelled": True}
    assert read_events(body | {"annotation": skip})[0].cancelled
    assert read_events(recorded("webhook-project-updated")["body"]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"annotation": None},
        {"annotation": {}},
        {"annotation": {"id": 1, "task": 1, "was_cancelled": False, "updated_at": "yesterday"}},
        {"annotation": {"id": 1, "task": 1, "was_cancelled": False, "updated_at": ""}},
        {"annotation": {"id": "1", "task": 1, "was_cancelled": False, "updated_at": "2026-11-21T02:02:23Z"}},
        {"annotation": {"id": 1, "task": True, "was_cancelled": False, "updated_at": "2026-11-21T02:02:23Z"}},
        {"action": "ANNOTATIONS_DELETED", "annotations": 3},
        {"action": "TASKS_DELETED"},
        {"action": "TASKS_DELETED", "tasks": {}},
        {"action": "ANNOTATIONS_CREATED", "annotation": ""},
    ],
    ids=["none", "empty", "no time", "no date", "id as text", "id as truth", "no list", "missing", "object", "text"],
)
def test_an_event_of_somebody_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="lacks the ids or times"):
        read_events(recorded("webhook-annotation-created")["body"] | change)
