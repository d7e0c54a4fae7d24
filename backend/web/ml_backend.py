"""Label Studio's ML backend contract: JSON in, JSON out, as Label Studio 1.23.2 speaks it. Knows no HTTP.

/setup and /webhook must answer within seconds, whatever else runs: neither touches the model or calls Label Studio.
/versions doesn't say which project it asks for, so each project has an address of its own; `project` is the one whose
address was called, None at the address that all share.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from backend import services
from backend.batches.service import BatchService, Receipt
from backend.batches.store import BatchSpec
from backend.errors import BadRequest, TooLarge, Unavailable
from backend.inference.model_pool import ModelBusy
from backend.inference.predict import Prelabeller
from backend.inference.project_model import ProjectModel, ProjectModels
from backend.labelstudio.images import Credentials
from backend.labelstudio.json_values import is_id
from backend.labelstudio.responses import Json
from backend.labelstudio.webhooks import ACTIONS, read_events
from backend.learning.events import EventLog
from backend.learning.triggers import Reconciler
from backend.queue.allow_list import sign_jobs
from backend.queue.queue import JobQueue, connect
from backend.settings import Settings

NEW_TASKS = "TASKS_CREATED"
# Of Label Studio's database, the largest number that a row can have.
LAST_PROJECT = 2147483647

_PROJECT = re.compile(r"([1-9][0-9]{0,9})(\.[0-9]{1,20})?")


class InBackground(Unavailable, code="in_background"):
    """It is being done, only not within the request."""


@dataclass(frozen=True)
class MLBackend:
    """Answers to Label Studio.

    Every method raises BadRequest where the request isn't one of Label Studio's, or is about another project than the
    one whose address was called.

    max_tasks: in one request. wants_new: whether a project's new tasks are to be pre-labelled as they come in.
    """

    project_models: ProjectModels
    prelabeller: Prelabeller
    queue: JobQueue
    reconciler: Reconciler
    batches: BatchService
    max_tasks: int = 10_000
    wants_new: Callable[[int], bool] = lambda project: False

    def setup(self, body: object, project: int | None = None) -> Json:
        """The version string of a batch's answers. Raises ConfigError if the labelling interface can't carry masks."""
        request = _object(body)
        schema, project = _text(request, "schema"), _project(request.get("project"), project)
        name = self.project_models.of_interface(project, schema).name
        self.project_models.note_interface(project, schema)
        return {"model_version": name}

    def predict(self, body: object, project: int | None = None) -> Json:
        """One prediction a task; or, for more tasks than there is time for, a batch in the background.

        That one answers 503. Label Studio 1.23.2 stores nothing then, and tells the person in either
        case that it has retrieved predictions; with an empty prediction of another version a task, each task would
        show that as its prediction, and each repetition would add one.

        Raises InBackground then, TooLarge for too many tasks even for that, and what `Prelabeller.predict` raises.
        """
        request = _object(body)
        tasks, project = self._tasks(request), _project(request.get("project"), project)
        config = self.project_models.parse_interface(project, _text(request, "label_config"))
        params = {} if request.get("params") is None else _object(request["params"])
        context = params.get("context")
        if context is not None:
            return {"results": self.prelabeller.predict(tasks, config, project, _object(context), _credentials(params))}
        with suppress(ModelBusy):
            if self.prelabeller.fits(len(tasks)):
                return {"results": self.prelabeller.predict(tasks, config, project, None, _credentials(params))}
        batch = self._submit(tasks, self.project_models.of(project, config), "predict").batch
        what = "1 task is" if len(tasks) == 1 else f"{len(tasks)} tasks are"
        raise InBackground(f"{what} being pre-labelled in the background as batch {batch}: reload in a minute.")

    def webhook(self, body: object, project: int | None = None) -> Json:
        """Log an event about annotations, and queue learning if it is time; pre-label new tasks where the project
        wants that. All other events are ignored.

        Label Studio sends an event once: where Valkey is away it is kept in a file ("degraded"), and not refused.
        """
        request = _object(body)
        action = _text(request, "action")
        if action == NEW_TASKS:
            return self._new_tasks(request, project)
        if action not in ACTIONS:
            return {"ignored": action}
        project = _project(_object(request.get("project")).get("id"), project)
        events = read_events(request)
        if not events:
            return {"ignored": action}
        receipt = self.reconciler.receive(project, events)
        job = {"job": receipt.ticket.job, "new": receipt.ticket.new} if receipt.ticket else {}
        return {"logged": receipt.logged, **({"degraded": True} if receipt.degraded else job)}

    def versions(self, project: int | None = None) -> Json:
        """The version strings of the project; of all projects at the address that they share."""
        return {"versions": self.project_models.versions(project)}

    def job(self, job_id: str) -> Json:
        """How a job goes. Raises NotFound."""
        return self.queue.describe(job_id)

    def _new_tasks(self, request: Json, addressed: int | None) -> Json:
        description = _object(request.get("project"))
        project = _project(description.get("id"), addressed)
        if not self.wants_new(project):
            return {"ignored": NEW_TASKS}
        project_model = self.project_models.of_interface(project, _text(description, "label_config"))
        receipt = self._submit(self._tasks(request), project_model, "webhook")
        return {"batch": receipt.batch, "new": receipt.new}

    def _submit(self, tasks: Sequence[Json], project_model: ProjectModel, origin: str) -> Receipt:
        spec = BatchSpec(project_model.project, project_model.version.name, project_model.name, origin=origin)
        return self.batches.submit_missing(spec, [_id(task) for task in tasks])

    def _tasks(self, request: Json) -> Sequence[Json]:
        tasks = request.get("tasks")
        if not isinstance(tasks, list) or not tasks:
            raise BadRequest('The request has no tasks: "tasks" should be a list with at least one.')
        if len(tasks) > self.max_tasks:
            what = f"{len(tasks)} tasks were sent at once, more than {self.max_tasks}."
            raise TooLarge(f"{what} Select fewer, run `ris prelabel`, or raise RIS_MAX_TASKS.")
        return [_object(task) for task in tasks]


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise BadRequest(f"The request holds {type(value).__name__} where Label Studio sends an object.")
    return value


def _id(task: Json) -> int:
    identity = task.get("id")
    if not is_id(identity):
        raise BadRequest(f"The request has a task whose id is {identity!r:.40}, not a number.")
    return identity


def _text(request: Mapping[str, Any], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f'The request has no "{key}", which Label Studio always sends.')
    return value


def _project(value: object, addressed: int | None) -> int:
    """Label Studio calls a project `<id>.<time of creation>` in its requests, and `<id>`, a number, in its events."""
    named = _PROJECT.fullmatch(value) if isinstance(value, str) else None
    project = int(named[1]) if named else value
    if not isinstance(project, int) or isinstance(project, bool) or not 0 < project <= LAST_PROJECT:
        shown = "a huge number" if isinstance(value, int) and value > LAST_PROJECT else repr(value)[:40]
        raise BadRequest(f"The request names the project {shown}, not <number>.<time>, a number from 1 to 2147483647.")
    if addressed not in (None, project):
        raise BadRequest(
            f"The request is about project {project}, but this is the address of project {addressed}. "
            f"Connect that project by itself: ris connect --project {project}"
        )
    return project


def _credentials(params: Mapping[str, Any]) -> Credentials | None:
    login, password = params.get("login"), params.get("password")
    return (str(login), str(password or "")) if login else None


def build(settings: Settings) -> MLBackend:
    """What answers Label Studio; the shipped model begins to load. Raises SettingsError for a missing secret."""
    services.follow_store(settings)
    model_pool, project_models = services.model_pool(settings), services.project_models(settings)
    connection = connect(settings.secret("redis_url"))
    jobs = JobQueue(connection)
    sign_jobs(settings)
    backend = MLBackend(
        project_models=project_models,
        prelabeller=services.prelabeller(settings, project_models, model_pool),
        queue=jobs,
        reconciler=Reconciler(EventLog(connection, settings.home), jobs, settings.of_project),
        batches=BatchService(connection, jobs),
        max_tasks=settings.max_tasks,
        wants_new=lambda project: settings.of_project(project).prelabel_new,
    )
    model_pool.warm(services.registry(settings).base)
    return backend
