"""JSON Schemas (2020-12) of what Label Studio 1.23.2 sends to the backend, and of what that answers.

The fields that the backend reads are required and narrow; of the others the kind is given that Label Studio sends. The
requests that `tests/fixtures` holds were recorded from it, and are held to these schemas.
"""

from __future__ import annotations

from typing import Any

from rq.job import JobStatus

from backend.labelstudio.webhooks import ACTIONS
from backend.web.ml_backend import LAST_PROJECT, NEW_TASKS

Schema = dict[str, Any]

DAY = "2026-11-21T02:02:23.852858Z"


def ref(name: str) -> Schema:
    """A reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, required: tuple[str, ...] = (), description: str = "") -> Schema:
    schema: Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema | ({"description": description} if description else {})


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _optional(kind: str, description: str) -> Schema:
    return {"type": [kind, "null"], "description": description}


def _many(items: Schema, description: str, **more: Any) -> Schema:
    return {"type": "array", "items": items, "description": description, **more}


def _event(actions: tuple[str, ...], properties: Schema, description: str) -> Schema:
    project = ref("EventProject")
    action = {"type": "string", "enum": list(actions)}
    named = {"action": action, "project": project, **properties}
    return _object(named, ("action", "project", *properties), description)


_ID = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_INTERFACE = "The labelling interface, as XML."
_NOT_BLANK = r"\S"
_CHANGES = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
_PIXELS = {"type": "integer", "minimum": 1, "description": "Of the picture as it is shown, turned by its EXIF."}

REQUESTS: dict[str, Schema] = {
    "ProjectStamp": {
        "type": "string",
        "pattern": r"^[1-9][0-9]{0,9}(\.[0-9]{1,20})?$",
        "description": f"The project's number, up to {LAST_PROJECT}, and when it was made, in seconds of the epoch.",
        "examples": ["7.1795226436"],
    },
    "Setup": _object(
        {
            "project": ref("ProjectStamp"),
            "schema": _text(_INTERFACE, pattern=_NOT_BLANK),
            "hostname": _text("Where Label Studio believes that it is. Not used."),
            "access_token": _text("A token of the project's owner. Neither used nor kept."),
            "extra_params": {"description": "What was typed into the field of that name. Not used."},
        },
        ("project", "schema"),
        "What Label Studio sends when it checks the backend: as it is connected, and before each prediction.",
    ),
    "Predict": _object(
        {
            "tasks": _many(ref("Task"), "One where somebody waits in the editor; else any number.", minItems=1),
            "project": ref("ProjectStamp"),
            "label_config": _text(_INTERFACE, pattern=_NOT_BLANK),
            "params": _object(
                {
                    "login": _optional("string", "User name for pictures behind a password."),
                    "password": _optional("string", "Its password."),
                    "context": {
                        "anyOf": [ref("Context"), {"type": "null"}],
                        "description": "What somebody has just typed or drawn in the editor; null in a batch.",
                    },
                }
            ),
        },
        ("tasks", "project", "label_config"),
    ),
    "Task": _object(
        {
            "id": _ID,
            "data": _object({}, description="What was imported; the picture's address among it."),
            "annotations": _many({"type": "object"}, "What was submitted."),
            "predictions": _many({"type": "object"}, "What was answered before, in the editor."),
            "drafts": _many({"type": "object"}, "What isn't submitted yet, in the editor."),
        },
        ("id", "data"),
        "A task as Label Studio's API gives it.",
    ),
    "Context": _object(
        {"result": _many(ref("SentRegion"), "All regions of the kind that was drawn last; none after a deletion.")}
    ),
    "SentRegion": _object(
        {
            "id": {"type": "string"},
            "from_name": _text("The tag that it was drawn or typed with."),
            "to_name": _text("The Image tag."),
            "type": _text("The kind of that tag, such as keypointlabels or textarea."),
            "original_width": _PIXELS,
            "original_height": _PIXELS,
            "image_rotation": {"type": "number"},
            "is_positive": {"type": ["boolean", "integer"], "description": "Of a click: whether the thing is there."},
            "value": _object({}, description="Positions in percent of the picture, or `text`, or `rle`."),
        },
        ("value",),
    ),
    "EventProject": _object(
        {
            "id": {"type": "integer", "minimum": 1, "maximum": LAST_PROJECT},
            "label_config": _text(_INTERFACE),
            "title": {"type": "string"},
        },
        ("id",),
        "The project as Label Studio's API gives it.",
    ),
    "EventAnnotation": _object(
        {
            "id": _ID,
            "task": _ID,
            "updated_at": _text("ISO 8601, in UTC.", format="date-time", examples=[DAY]),
            "was_cancelled": {"type": "boolean", "description": "Whether the task was skipped."},
            "result": _many({"type": "object"}, "The regions. They are read from Label Studio later."),
        },
        ("id", "task", "updated_at", "was_cancelled"),
    ),
    "AnnotationEvent": _event(_CHANGES, {"annotation": ref("EventAnnotation")}, "An annotation was saved."),
    "ImportEvent": _event(
        ("ANNOTATIONS_CREATED",),
        {"annotation": _many(ref("EventAnnotation"), "All of them.")},
        "Annotations were imported.",
    ),
    "DeletionEvent": _event(
        ("ANNOTATIONS_DELETED",),
        {"annotations": _many(_object({"id": _ID}, ("id",)), "Their numbers.")},
        "Annotations were deleted.",
    ),
    "TasksDeletedEvent": _event(
        ("TASKS_DELETED",), {"tasks": _many(_object({"id": _ID}, ("id",)), "Their numbers.")}, "Tasks were deleted."
    ),
    "TasksCreatedEvent": _event(
        (NEW_TASKS,),
        {"tasks": _many(ref("Task"), "The new tasks.", minItems=1)},
        "Tasks were imported: pre-labelled where RIS_PRELABEL_NEW says so.",
    ),
    "StartTraining": _event(("START_TRAINING",), {}, "Somebody pressed *Start Training*."),
    "OtherEvent": _object(
        {"action": {"type": "string", "pattern": _NOT_BLANK, "not": {"enum": sorted({*ACTIONS, NEW_TASKS})}}},
        ("action",),
        "Any other event, such as PROJECT_UPDATED: ignored.",
    ),
}
EVENTS = (
    "AnnotationEvent",
    "ImportEvent",
    "DeletionEvent",
    "TasksDeletedEvent",
    "TasksCreatedEvent",
    "StartTraining",
    "OtherEvent",
)
REQUESTS["Event"] = {"oneOf": [ref(name) for name in EVENTS]}

_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_TIME = _optional("string", "ISO 8601, in UTC; null while that hasn't happened.")

ANSWERS: dict[str, Schema] = {
    "Health": _object({"status": {"const": "UP"}, "model_class": {"const": "RISModel"}}, ("status", "model_class")),
    "Ready": _object(
        {
            "ready": {"const": True},
            "serving": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "The version that serves a project, by its number; `others`: all that have none.",
            },
        },
        ("ready", "serving"),
    ),
    "Version": _object(
        {"model_version": _text("Of the weights and of what the project asks. Predictions bear the same.")},
        ("model_version",),
    ),
    "Versions": _object({"versions": _many({"type": "string"}, "Oldest first.", minItems=1)}, ("versions",)),
    "Predictions": _object(
        {
            "results": _many(
                {"anyOf": [ref("Prediction"), {"type": "array", "maxItems": 0}]},
                "One a task, in their order. An empty list: there is nothing to store, ask again.",
                minItems=1,
            )
        },
        ("results",),
    ),
    "Prediction": _object(
        {
            "result": _many(ref("Region"), "Empty: nothing was asked, or what was asked for isn't there."),
            "score": {**_SCORE, "description": "The confidence in the least sure answer. Lowest: label it next."},
            "model_version": _text("With #failed at its end: this task can't be answered, the log says why."),
        },
        ("result", "score", "model_version"),
    ),
    "Region": _object(
        {
            "id": {"type": "string"},
            "from_name": _text("The tag that shows it."),
            "to_name": _text("The Image tag."),
            "type": {"enum": ["brushlabels", "bitmasklabels", "polygonlabels", "rectanglelabels", "textarea"]},
            "origin": {"type": "string"},
            "readonly": {"type": "boolean"},
            "original_width": _PIXELS,
            "original_height": _PIXELS,
            "image_rotation": {"const": 0},
            "score": {**_SCORE, "description": "Of a mask: the IoU to expect of it."},
            "value": _object({}, description="`rle`, `imageDataURL`, `points`, a box, or `text`; and labels."),
            "meta": _object({}, description="`text`: the sentence that it answers, and remarks."),
        },
        ("id", "from_name", "to_name", "type", "original_width", "original_height", "value"),
    ),
    "EventReceipt": {
        "oneOf": [
            _object({"ignored": _text("The action of an event that means nothing here.")}, ("ignored",)),
            _object(
                {
                    "logged": {"type": "integer", "minimum": 0, "description": "Events that weren't known before."},
                    "degraded": {"const": True, "description": "Kept in a file, as Valkey is away."},
                    "job": _text("The fine-tuning that is due."),
                    "new": {"type": "boolean", "description": "Whether it was queued by this event."},
                },
                ("logged",),
            ),
            _object(
                {
                    "batch": _text("The batch that pre-labels the new tasks."),
                    "new": {"type": "integer", "minimum": 0, "description": "Tasks that weren't in a batch before."},
                },
                ("batch", "new"),
            ),
        ]
    },
    "Job": _object(
        {
            "id": {"type": "string"},
            "status": {"enum": [status.value for status in JobStatus]},
            "function": {"type": "string"},
            "arguments": _many({}, "What it was queued with."),
            "progress": {
                "anyOf": [
                    _object({"stage": {"type": "string"}, "share": _SCORE}, ("stage", "share")),
                    {"type": "null"},
                ]
            },
            "result": {"description": "What came of it."},
            "error": {"anyOf": [_object({"code": {"type": "string"}}, ("code",)), {"type": "null"}]},
            "queued": _TIME,
            "started": _TIME,
            "ended": _TIME,
        },
        ("id", "status"),
    ),
}
