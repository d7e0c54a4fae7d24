"""The webhooks of Label Studio 1.23.2: the header that proves whose they are, and the events of annotations in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.json_values import is_id

SECRET_HEADER = "X-RIS-Webhook-Secret"  # noqa: S105 - its name, not its value

START_TRAINING = "START_TRAINING"
CREATED, UPDATED = "ANNOTATION_CREATED", "ANNOTATION_UPDATED"
_MANY_CREATED, _DELETED, TASKS_DELETED = "ANNOTATIONS_CREATED", "ANNOTATIONS_DELETED", "TASKS_DELETED"
ACTIONS = frozenset({START_TRAINING, CREATED, UPDATED, _MANY_CREATED, _DELETED, TASKS_DELETED})

# After every other time in microseconds, and exact in Lua's numbers.
_FOREVER = 1 << 52


@dataclass(frozen=True)
class Event:
    """Something that was done in a project. updated: the annotation's `updated_at`; cancelled: it is a skip."""

    action: str
    task: int | None = None
    annotation: int | None = None
    updated: str = ""
    cancelled: bool = False

    @property
    def stamp(self) -> int:
        """The time of the update in microseconds since 1970; of a deletion, later than any."""
        if not self.updated:
            return _FOREVER
        return round(datetime.fromisoformat(self.updated).timestamp() * 1_000_000)


def read_events(request: Mapping[str, Any]) -> list[Event]:
    """The events of a webhook of Label Studio 1.23.2; none where its action is none of ACTIONS.

    Raises BadRequest if it lacks what Label Studio always sends.
    """
    action = request.get("action")
    try:
        if action == START_TRAINING:
            return [Event(START_TRAINING)]
        if action in (CREATED, UPDATED):
            return [_of_annotation(UPDATED if action == UPDATED else CREATED, request["annotation"])]
        if action == _MANY_CREATED:
            return [_of_annotation(CREATED, annotation) for annotation in _rows(request["annotation"])]
        if action == _DELETED:
            return [Event(_DELETED, annotation=_id(annotation["id"])) for annotation in _rows(request["annotations"])]
        if action == TASKS_DELETED:
            return [Event(TASKS_DELETED, task=_id(task["id"])) for task in _rows(request["tasks"])]
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BadRequest(f"The event {action} lacks the ids or times that Label Studio sends with it.") from None
    return []


def _of_annotation(action: str, annotation: Mapping[str, Any]) -> Event:
    updated = str(annotation["updated_at"])
    event = Event(action, _id(annotation["task"]), _id(annotation["id"]), updated, bool(annotation["was_cancelled"]))
    if not updated or not 0 < event.stamp < _FOREVER:
        raise ValueError(updated)
    return event


def _rows(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _id(value: object) -> int:
    if not is_id(value):
        raise TypeError(value)
    return value
