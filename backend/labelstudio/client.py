"""Label Studio's REST API, as far as the project needs it. Knows no masks and no models.

Every method raises a `LabelStudioError` that says what to do. Answers are returned as Label Studio gives them
(REST API of 1.23.2; each call was checked against it).
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

import httpx

from backend.errors import LabelStudioError, LabelStudioFailed, LabelStudioNotFound, LabelStudioUnreachable
from backend.labelstudio.auth import TIMEOUT, TokenAuth
from backend.labelstudio.outbound import DIRECT, Outbound
from backend.labelstudio.responses import Json, check, json_list, json_object, unreachable
from backend.settings import Settings

# Label Studio itself waits up to 100 s for the backend's answer.
BACKEND_TIMEOUT = httpx.Timeout(connect=5.0, read=130.0, write=60.0, pool=60.0)
# Label Studio counts a project's predictions anew with each import: half a minute in a large one on a busy machine.
# What isn't waited for is stored all the same, and written a second time by whoever tries again.
IMPORT_TIMEOUT = httpx.Timeout(connect=5.0, read=120.0, write=25.0, pool=5.0)
PAGE_SIZE, LONG_PAGE, SHORT_PAGE = 100, 1000, 32
POLL_SECONDS = 1.0
_log = logging.getLogger(__name__)
_IS_JSON = {"Content-Type": "application/json"}
# What is asked for of an annotation. Label Studio takes the names for those of a task and of an annotation alike.
_ANNOTATION = "result,created_at,updated_at,was_cancelled,ground_truth,completed_by,parent_prediction,lead_time"


class LabelStudio:
    """A connection to Label Studio at `url`, as the owner of the personal access token. Safe for threads."""

    def __init__(self, url: str, token: str, timeout: httpx.Timeout = TIMEOUT, outbound: Outbound = DIRECT) -> None:
        self.url = url.rstrip("/")
        self.auth = TokenAuth(self.url, token)
        self._http = outbound.client(url, base_url=self.url, auth=self.auth, timeout=timeout)

    @classmethod
    def from_settings(cls, settings: Settings, timeout: httpx.Timeout = TIMEOUT) -> Self:
        """The studio of the settings. Raises SettingsError if its token isn't set."""
        token, outbound = settings.secret("label_studio_token"), Outbound.from_settings(settings)
        return cls(settings.label_studio_url, token, timeout, outbound)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open."""
        self._http.close()

    def wait(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Return once Label Studio is up, is to `stop`, or after so long: what is asked then says what is wrong."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stop():
            try:
                self.whoami()
            except (LabelStudioUnreachable, LabelStudioFailed) as error:
                _log.info("Waiting for Label Studio: %s", error)
                time.sleep(POLL_SECONDS)
            except LabelStudioError:
                return
            else:
                return

    def whoami(self) -> Json:
        """The token's owner: `id`, `email`, ..."""
        return self._object("GET", "/api/current-user/whoami")

    def projects(self) -> Iterator[Json]:
        """Each project that the token's owner sees."""
        page: str | None = f"/api/projects/?page_size={PAGE_SIZE}"
        while page:
            answer = self._object("GET", page, "results", "next")
            yield from answer["results"]
            # Only the query of `next` is used: behind a proxy, its host may be one that is unknown here.
            page = answer["next"] and f"/api/projects/?{httpx.URL(answer['next']).query.decode()}"

    def project(self, project: int) -> Json:
        """A project: `title`, `label_config`, `model_version`, ..."""
        return self._object("GET", f"/api/projects/{project}/")

    def create_project(self, title: str, label_config: str) -> Json:
        """Raises LabelStudioRefused if the title has fewer than 3 characters or the interface isn't valid."""
        return self._object("POST", "/api/projects/", json={"title": title, "label_config": label_config})

    def update_project(self, project: int, **fields: object) -> Json:
        """Change some of a project's fields; returns it as it is then."""
        return self._object("PATCH", f"/api/projects/{project}/", json=fields)

    def import_tasks(self, project: int, data: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add one task for each mapping of task data, such as `{"image": url}`. Returns the tasks' ids."""
        return self._import(project, json=[{"data": dict(fields)} for fields in data])

    def upload(self, project: int, name: str, content: bytes) -> list[int]:
        """Upload an image file; Label Studio makes a task of it. Returns the ids of the tasks made: one."""
        return self._import(project, files={"file": (name, content)})

    def upload_file(self, project: int, name: str, content: bytes) -> str:
        """Upload an image file without making a task of it. Returns its address for task data: /data/upload/..."""
        path = f"/api/projects/{project}/import"
        files, query = {"file": (name, content)}, {"commit_to_project": "false"}
        uploaded = self._object("POST", path, "file_upload_ids", params=query, files=files, timeout=BACKEND_TIMEOUT)
        file = self._object("GET", f"/api/import/file-upload/{uploaded['file_upload_ids'][0]}", "file")["file"]
        return f"{httpx.URL(self.url).path.rstrip('/')}/data/{file}"

    def import_annotated(self, project: int, tasks: Sequence[bytes]) -> list[int]:
        """Add tasks, each the JSON of `{"data", "annotations", "predictions"}`: all of them or none.

        Returns the tasks' ids. After an error in the 500s or a time-out they may have been stored all the same. Raises
        LabelStudioRefused if one of them has no value for what the labelling interface shows.
        """
        content = b"[" + b",".join(tasks) + b"]"
        return self._import(project, content=content, headers=_IS_JSON, timeout=BACKEND_TIMEOUT)

    def task_data(self, project: int) -> Iterator[Json]:
        """Each task of a project by rising id with its `data` alone, as it was imported."""
        yield from self._from_first(project, "id,data", {}, PAGE_SIZE)

    def tasks(self, project: int) -> Iterator[Json]:
        """Each task of a project by rising id, with its `annotations` (cancelled ones too), `predictions`.

        Image references stay as imported. A task deleted meanwhile may hide another from this call.
        """
        yield from self._pages({"project": project, "fields": "all", "resolve_uri": "false", "page_size": PAGE_SIZE})

    def task_ids(self, project: int, view: int | None = None) -> Iterator[int]:
        """The ids of a project's tasks, or of those that one of its tabs (views) shows; of what is ticked there, if so.

        Raises LabelStudioNotFound if there is no such project or view.
        """
        # Unless told what to include, Label Studio makes every column of its table, five times as slow.
        query: dict[str, Any] = {"project": project, "include": "id", "resolve_uri": "false", "page_size": LONG_PAGE}
        yield from (int(task["id"]) for task in self._pages(query if view is None else query | {"view": view}))

    def tasks_of(self, project: int, ids: Sequence[int]) -> Iterator[Json]:
        """Those of the tasks that are there, each with `data`, `predictions` and the ids of its `annotations`."""
        include = "id,data,predictions,annotations"
        yield from self._chosen({"project": project, "fields": "all", "include": include}, ids)

    def annotated_tasks(self, project: int) -> Iterator[Json]:
        """Each task of a project by rising id: its `data`, and its `annotations`, cancelled ones too; no predictions.

        Image references stay as imported. A task that is deleted meanwhile hides no other: each page begins after the
        last one's last task.
        """
        yield from self._from_first(project, f"id,data,annotations,{_ANNOTATION}", {}, PAGE_SIZE)

    def annotation_versions(self, project: int) -> Iterator[Json]:
        """Each annotated task by rising id with `updated_at`, and the same of its annotations with `was_cancelled`.

        A task that is deleted meanwhile hides no other.
        """
        include = "id,annotations,updated_at,was_cancelled"
        yield from self._from_first(project, include, {"total_annotations": ("greater", "Number", 0)}, LONG_PAGE)

    def annotations_of(self, project: int, ids: Sequence[int]) -> Iterator[Json]:
        """Those of the tasks that are there, each with `data`, `updated_at` and its `annotations`; no predictions."""
        include = f"id,data,annotations,{_ANNOTATION},last_action"
        yield from self._chosen({"project": project, "fields": "all", "include": include}, ids)

    def newest_task(self, project: int) -> Json:
        """How many tasks (`total`) and submitted annotations (`total_annotations`) there are; in `tasks` the id and
        `updated_at` of the task that was changed last.

        Whatever is done to an annotation changes its task; so may a prediction, unless it is imported with others.
        """
        query = {"project": project, "page_size": 1, "include": "id,updated_at", "resolve_uri": "false"}
        newest = json.dumps({"ordering": ["-tasks:updated_at"]})
        return self._object("GET", "/api/tasks/", "tasks", "total_annotations", params={**query, "query": newest})

    def changed_tasks(self, project: int, since: datetime) -> Iterator[Json]:
        """The annotated tasks changed since then, with id, `updated_at` and `was_cancelled` of each annotation."""
        time = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_annotated = ("greater", "Number", 0)
        filters = _filters(updated_at=("greater_or_equal", "Datetime", time), total_annotations=is_annotated)
        include = "id,annotations,updated_at,was_cancelled"
        query = {"project": project, "fields": "all", "include": include, "page_size": PAGE_SIZE}
        yield from self._pages({**query, "query": json.dumps({"filters": filters}), "resolve_uri": "false"})

    def predicted_tasks(self, project: int) -> Iterator[Json]:
        """Each task of a project with its `predictions`, and id and `parent_prediction` of its `annotations`."""
        include = "id,predictions,annotations,parent_prediction"
        yield from self._pages({"project": project, "fields": "all", "include": include, "page_size": PAGE_SIZE})

    def predictions_of(self, project: int, ids: Sequence[int]) -> Iterator[Json]:
        """Those of the tasks that are there, each with its `predictions`."""
        include = "id,predictions,result,model_version,created_at"
        yield from self._chosen({"project": project, "fields": "all", "include": include}, ids)

    def task(self, task: int) -> Json:
        """A task with its `data`, `annotations`, `drafts` and `predictions`. Image references stay as imported."""
        return self._object("GET", f"/api/tasks/{task}/", params={"resolve_uri": "false"})

    def update_task(self, task: int, data: Mapping[str, Any]) -> Json:
        """Replace a task's data, its image and its prompts."""
        return self._object("PATCH", f"/api/tasks/{task}/", json={"data": dict(data)})

    def create_annotation(self, task: int, result: Sequence[Json], **fields: object) -> Json:
        """Annotate a task. `fields` may be `was_cancelled`, `parent_prediction`, `lead_time` and so on."""
        return self._object("POST", f"/api/tasks/{task}/annotations/", json={"result": list(result), **fields})

    def ml_backends(self, project: int) -> list[Json]:
        """The project's backends. Label Studio calls /health and /setup of each before it answers."""
        return self._list("GET", "/api/ml/", params={"project": project})

    def create_ml_backend(self, project: int, url: str, title: str, username: str, password: str) -> Json:
        """Connect an interactive backend; Label Studio calls it, then adds a webhook to `url`/webhook.

        Raises LabelStudioRefused if Label Studio can't reach the backend, and LabelStudioUnauthorized if it
        forbids the address (USE_DEFAULT_BANNED_SUBNETS).
        """
        body = {"project": project, **_backend_fields(url, title, username, password)}
        return self._object("POST", "/api/ml/", json=body)

    def update_ml_backend(self, backend: int, url: str, title: str, username: str, password: str) -> Json:
        """Give a connected backend another address, title or login; raises as `create_ml_backend` does."""
        # Without project and address among the fields, Label Studio 1.23.2 answers 500.
        project = self._object("GET", f"/api/ml/{backend}", "project")["project"]
        body = {"project": project, **_backend_fields(url, title, username, password)}
        return self._object("PATCH", f"/api/ml/{backend}", json=body)

    def webhooks(self, project: int) -> list[Json]:
        """The project's webhooks: `id`, `url`, `headers`, ..."""
        return self._list("GET", "/api/webhooks/", params={"project": project})

    def create_webhook(self, project: int, url: str) -> Json:
        """Have Label Studio send every event of a project, with its content, to `url`."""
        body = {"project": project, "url": url, "send_payload": True, "send_for_all_actions": True}
        return self._object("POST", "/api/webhooks/", json=body)

    def delete_webhook(self, webhook: int) -> None:
        """Have Label Studio send no more events there."""
        self._call("DELETE", f"/api/webhooks/{webhook}/")

    def update_webhook(self, webhook: int, headers: Mapping[str, str]) -> Json:
        """Have Label Studio send these headers with each event."""
        return self._object("PATCH", f"/api/webhooks/{webhook}/", json={"headers": dict(headers)})

    def predictions(self, task: int) -> list[Json]:
        """The predictions of a task: `id`, `result`, `score`, `model_version`, ..."""
        return self._list("GET", "/api/predictions/", params={"task": task})

    def import_predictions(self, project: int, predictions: Sequence[bytes]) -> int:
        """Add predictions, each the JSON of `{"task", "result", "score", "model_version"}`: all of them or none.

        Returns how many there are now: Label Studio 1.23.2 leaves out those that don't fit the labelling interface,
        and says so in its log alone. An error in the 500s or a time-out may come after they were stored.
        Raises LabelStudioRefused if a task isn't there; then none is stored.
        """
        path = f"/api/projects/{project}/import/predictions"
        content = b"[" + b",".join(predictions) + b"]"
        created = self._object("POST", path, "created", content=content, headers=_IS_JSON, timeout=IMPORT_TIMEOUT)
        return int(created["created"])

    def update_prediction(self, prediction: int, content: bytes) -> None:
        """Replace a prediction by another of the same task, in JSON as above."""
        self._call("PATCH", f"/api/predictions/{prediction}/", content=content, headers=_IS_JSON)

    def update_score(self, prediction: int, score: float) -> None:
        """Change a prediction's score alone; one that is gone meanwhile needs none."""
        with suppress(LabelStudioNotFound):
            self.update_prediction(prediction, json.dumps({"score": score}).encode())

    def delete_prediction(self, prediction: int) -> None:
        """Delete one prediction."""
        self._call("DELETE", f"/api/predictions/{prediction}/")

    def model_versions(self, project: int) -> dict[str, int]:
        """How many predictions there are of each model version; 0 of the one that the project names without any."""
        counts = self._object("GET", f"/api/projects/{project}/model-versions/")
        return {version: int(count) for version, count in counts.items()}

    def delete_predictions(self, project: int, model_version: str) -> int:
        """Delete the predictions of one model version. Returns how many there were.

        Label Studio 1.23.2 unsets `project.model_version` if that is this version or the backend's title.
        """
        path = f"/api/projects/{project}/model-versions/"
        deleted = self._object("DELETE", path, "deleted_predictions", json={"model_version": model_version})
        return int(deleted["deleted_predictions"])

    def retrieve_predictions(self, project: int) -> None:
        """Have Label Studio ask its backend about each task without a prediction of the current version.

        It answers the same when the backend fails: look at `tasks` for what came of it.
        """
        action = {"id": "retrieve_tasks_predictions", "project": project}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        self._call("POST", "/api/dm/actions", params=action, json=everything, timeout=BACKEND_TIMEOUT)

    def _pages(self, query: Mapping[str, Any]) -> Iterator[Json]:
        page, seen = 1, 0
        while True:
            answer = self._object("GET", "/api/tasks/", "tasks", "total", params={**query, "page": page})
            yield from answer["tasks"]
            seen += len(answer["tasks"])
            # Label Studio answers 404 to a page after the last one.
            if not answer["tasks"] or seen >= answer["total"]:
                return
            page += 1

    def _from_first(
        self, project: int, include: str, filters: Mapping[str, tuple[str, str, object]], size: int
    ) -> Iterator[Json]:
        """Tasks by rising id; each page begins after the last one's last task."""
        query = {"project": project, "fields": "all", "resolve_uri": "false", "include": include}
        last = 0
        while True:
            after = json.dumps({"filters": _filters(id=("greater", "Number", last), **filters)})
            page = {**query, "query": after, "page": 1, "page_size": size}
            answer = self._object("GET", "/api/tasks/", "tasks", "total", params=page)
            yield from answer["tasks"]
            if len(answer["tasks"]) >= answer["total"]:
                return
            last = int(answer["tasks"][-1]["id"])

    def _chosen(self, query: Mapping[str, Any], ids: Sequence[int]) -> Iterator[Json]:
        for start in range(0, len(ids), SHORT_PAGE):
            page = list(ids[start : start + SHORT_PAGE])
            chosen = json.dumps({"selectedItems": {"all": False, "included": page}})
            yield from self._pages({**query, "resolve_uri": "false", "page_size": SHORT_PAGE, "query": chosen})

    def _import(self, project: int, **body: Any) -> list[int]:
        path = f"/api/projects/{project}/import"
        imported = self._object("POST", path, "task_ids", params={"return_task_ids": "true"}, **body)
        return [int(task) for task in imported["task_ids"]]

    def _object(self, method: str, path: str, *keys: str, **request: Any) -> Json:
        return json_object(self._call(method, path, **request), *keys)

    def _list(self, method: str, path: str, **request: Any) -> list[Json]:
        return json_list(self._call(method, path, **request))

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.RequestError as error:
            raise unreachable(self.url, error) from error
        check(response)
        return response


def _filters(**columns: tuple[str, str, object]) -> Json:
    """The Data Manager's filters, all of which must hold: for each column an operator, its type, and a value."""
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
        for column, (operator, kind, value) in columns.items()
    ]
    return {"conjunction": "and", "items": items}


def _backend_fields(url: str, title: str, username: str, password: str) -> Json:
    return {
        "url": url,
        "title": title,
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": username,
        "basic_auth_pass": password,
    }
