"""Label Studio's ML backend contract: JSON in, JSON out, as Label Studio 1.23.2 speaks it. Knows no HTTP.

/setup and /webhook must answer within seconds, whatever else runs: neither touches the model or calls Label Studio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest, TooLarge
from backend.jobs.queue import JobQueue
from backend.labelstudio.config import parse
from backend.labelstudio.images import Credentials
from backend.prelabel import Prelabeller
from backend.registry import Registry

Json = dict[str, Any]

# After any of these there may be something to learn; what exactly changed is read from Label Studio.
LEARNING_EVENTS = frozenset(
    {
        "START_TRAINING",
        "ANNOTATION_CREATED",
        "ANNOTATION_UPDATED",
        "ANNOTATIONS_CREATED",
        "ANNOTATIONS_DELETED",
    }
)


@dataclass(frozen=True)
class Contract:
    """Answers to Label Studio. Every method raises BadRequest where the request isn't one of Label Studio's."""

    registry: Registry
    prelabeller: Prelabeller
    queue: JobQueue
    max_tasks: int = 250

    def setup(self, body: object) -> Json:
        """The version in production. Raises ConfigError if the labelling interface can't carry masks."""
        request = _object(body)
        parse(_text(request, "schema"))
        return {"model_version": self.registry.current(_project(request.get("project"))).name}

    def predict(self, body: object) -> Json:
        """One prediction a task. Raises TooLarge for too many tasks, and what `Prelabeller.predict` raises."""
        request = _object(body)
        tasks = self._tasks(request)
        config = parse(_text(request, "label_config"))
        params = _object(request.get("params") or {})
        context = params.get("context")
        predictions = self.prelabeller.predict(
            tasks,
            config,
            _project(request.get("project")),
            context=None if context is None else _object(context),
            credentials=_credentials(params),
        )
        return {"results": predictions}

    def webhook(self, body: object) -> Json:
        """Queue learning where an event calls for it. Raises Unavailable if the queue can't be reached."""
        request = _object(body)
        action = _text(request, "action")
        if action not in LEARNING_EVENTS:
            return {"ignored": action}
        ticket = self.queue.learn(_project(_object(request.get("project")).get("id")))
        return {"job": ticket.job, "new": ticket.new}

    def versions(self) -> Json:
        """All versions of all projects: Label Studio doesn't say which project it asks for."""
        own = (version for project in self.registry.projects() for version in self.registry.versions(project))
        names = dict.fromkeys([self.registry.base.name, *(version.name for version in own)])
        return {"versions": list(names)}

    def job(self, job_id: str) -> Json:
        """How a job goes. Raises NotFound."""
        return self.queue.describe(job_id)

    def _tasks(self, request: Json) -> Sequence[Json]:
        tasks = request.get("tasks")
        if not isinstance(tasks, list) or not tasks:
            raise BadRequest('The request has no tasks: "tasks" should be a list with at least one.')
        if len(tasks) > self.max_tasks:
            raise TooLarge(
                f"{len(tasks)} tasks were sent at once, more than {self.max_tasks}. "
                "Select fewer, or raise RIS_MAX_TASKS."
            )
        return [_object(task) for task in tasks]


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise BadRequest(f"The request holds {type(value).__name__} where Label Studio sends an object.")
    return value


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f'The request has no "{key}", which Label Studio always sends.')
    return value


def _project(value: object) -> int:
    """Label Studio calls a project `<id>.<time of creation>` in its requests, and `<id>` in its events."""
    identity = str(value).partition(".")[0]
    if not identity.isdecimal() or not identity.isascii():
        raise BadRequest(f"The request names the project {str(value)[:40]!r}, not <number>.<time>.")
    return int(identity)


def _credentials(params: Mapping[str, Any]) -> Credentials | None:
    login, password = params.get("login"), params.get("password")
    return (str(login), str(password or "")) if login else None
