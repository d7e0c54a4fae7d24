"""JSON Schemas (2020-12) of what Label Studio 1.23.2 sends to the backend, and of what that answers.

Of a request, what the backend needs is required, and what it would refuse is excluded; what it doesn't read, or reads
past where it is of another kind, may be anything. The requests in `tests/fixtures` were recorded from Label Studio, and
are held to these schemas.
"""

from __future__ import annotations

from typing import Any

from rq.job import JobStatus

from backend.labelstudio.webhooks import ACTIONS
from backend.web.ml_backend import LAST_PROJECT, NEW_TASKS

Schema = dict[str, Any]

DAY = "2026-11-21T02:02:23.852858Z"
INTERFACE = (
    "<View><Image name='img' value='$image'/><TextArea name='prompt' toName='img'/>"
    "<BrushLabels name='brush' toName='img'><Label value='cat'/></BrushLabels></View>"
)
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)


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


def _any(description: str) -> Schema:
    return {"description": description}


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
            "schema": _text(_INTERFACE, pattern=_NOT_BLANK, examples=[INTERFACE]),
            "hostname": _any("Where Label Studio believes that it is. Not used."),
            "access_token": _any("A token of the project's owner. Neither used nor kept."),
            "extra_params": _any("What was typed into the field of that name. Not used."),
        },
        ("project", "schema"),
        "What Label Studio sends when it checks the backend: as it is connected, and before each prediction.",
    ),
    "Predict": _object(
        {
            "tasks": _many(ref("Task"), "One where somebody waits in the editor; else any number.", minItems=1),
            "project": ref("ProjectStamp"),
            "label_config": _text(_INTERFACE, pattern=_NOT_BLANK, examples=[INTERFACE]),
            "params": _object(
                {
                    "login": _any("User name for pictures behind a password."),
                    "password": _any("Its password."),
                    "context": {
                        "anyOf": [ref("Context"), {"type": "null"}],
                        "description": "What somebody has just typed or drawn in the editor; null in a batch.",
                    },
                }
            )
            | {"type": ["object", "null"]},
        },
        ("tasks", "project", "label_config"),
    ),
    "Task": _object(
        {
            "id": _any("A number. A task without one costs itself alone, as one without data."),
            "data": _any("What was imported; the picture's address among it.") | {"examples": [{"image": PICTURE}]},
            "annotations": _any("What was submitted."),
            "predictions": _any("What was answered before, in the editor."),
            "drafts": _any("What isn't submitted yet, in the editor."),
        },
        description="A task as Label Studio's API gives it.",
    ),
    "Context": _object(
        {
            "result": _any(
                "A list of all regions of the kind that was drawn last; empty after a deletion. See SentRegion."
            )
        }
    ),
    "SentRegion": _object(
        {
            "id": _any("Text."),
            "from_name": _any("The tag that it was drawn or typed with."),
            "to_name": _any("The Image tag."),
            "type": _any("The kind of that tag, such as keypointlabels or textarea."),
            "original_width": _any("Of the picture in pixels, as it is shown, turned by its EXIF."),
            "original_height": _any("As `original_width`."),
            "image_rotation": _any("Degrees by which somebody has turned it in the editor."),
            "is_positive": _any("Of a click, true or false, 1 or 0: whether the thing is there."),
            "value": _any("Positions in percent of the picture, or `text`, or `rle`."),
        },
        description="What somebody drew or typed. What isn't of a tag of the interface is passed over.",
    ),
    "EventProject": _object(
        {
            "id": {"type": "integer", "minimum": 1, "maximum": LAST_PROJECT},
            "label_config": _any("The labelling interface, as XML. Needed with new tasks."),
        },
        ("id",),
        "The project as Label Studio's API gives it.",
    ),
    "EventAnnotation": _object(
        {
            "id": _ID,
            "task": _ID,
            "updated_at": _text("ISO 8601, in UTC.", format="date-time", examples=[DAY]),
            "was_cancelled": _any("Whether the task was skipped."),
            "result": _any("The regions. They are read from Label Studio later."),
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
        (NEW_TASKS,), {}, "Tasks were imported: pre-labelled where RIS_PRELABEL_NEW says so, else ignored."
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
# Needed only where new tasks are pre-labelled.
REQUESTS["TasksCreatedEvent"]["properties"]["tasks"] = _any("The new tasks.")
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
