"""A small Label Studio over HTTP whose tasks and predictions are in an SQLite file, so that it survives being killed.

It answers what pre-labelling asks of the real one, in the same way: lists of tasks by page or by id, an import of
predictions that is all or nothing, changes and deletions. Run: `python shelf.py FILE PORT`.
"""

from __future__ import annotations

import base64
import io
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from labelstudio.site import Answer, Asked, serve
from PIL import Image

PROJECT = 3
TOKEN = "personal-access-token"
XML = (
    '<View><Image name="img" value="$image"/><TextArea name="prompt" toName="img"/>'
    '<BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="other"/></BrushLabels></View>'
)


def data(count: int) -> list[dict[str, Any]]:
    """Data of so many tasks, each with another picture and a prompt."""
    return [{"image": _picture(number), "prompt": "the cat"} for number in range(count)]


def _picture(number: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (number % 256, number // 256, 9)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class Shelf:
    """Label Studio's side. `before`, `after`: called around each import; what they return is answered instead."""

    def __init__(self, file: Path, xml: str = XML) -> None:
        self.file, self.xml = file, xml
        self.before: Callable[[], Answer | None] = lambda: None
        self.after: Callable[[], Answer | None] = lambda: None
        self.imports = self.changes = 0
        self.model_version: str | None = "ris"
        # The tasks that are annotated, and from which prediction.
        self.annotated: dict[int, int | None] = {}
        with closing(self._open()) as base, base:
            base.execute("CREATE TABLE IF NOT EXISTS task (id INTEGER PRIMARY KEY, data TEXT)")
            base.execute(
                "CREATE TABLE IF NOT EXISTS prediction "
                "(id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER, model_version TEXT, score REAL, result TEXT)"
            )
        self._lock = threading.Lock()

    def fill(self, tasks: list[dict[str, Any]]) -> None:
        with closing(self._open()) as base, base:
            base.executemany("INSERT INTO task (data) VALUES (?)", [(json.dumps(data),) for data in tasks])

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(self._open()) as base:
            return base.execute(query, values).fetchall()

    def do(self, query: str, *values: object) -> None:
        with closing(self._open()) as base, base:
            base.execute(query, values)

    def predict(self, task: int, version: str, score: float) -> None:
        self.do("INSERT INTO prediction (task, model_version, score) VALUES (?, ?, ?)", task, version, score)

    def counts(self, version: str) -> list[int]:
        """How many predictions of a version each task has, by rising task."""
        query = (
            "SELECT COUNT(prediction.id) FROM task LEFT JOIN prediction "
            "ON task.id = prediction.task AND model_version = ? GROUP BY task.id ORDER BY task.id"
        )
        return [count for (count,) in self.rows(query, version)]

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            return _json({"access": "access-token"})
        if asked.path == f"/api/projects/{PROJECT}/":
            return self._project(asked)
        if asked.path == "/api/tasks/":
            return self._tasks({key: value[0] for key, value in parse_qs(urlsplit(asked.target).query).items()})
        if asked.path == f"/api/projects/{PROJECT}/model-versions/":
            return self._versions(asked)
        if asked.path == "/api/ml/":
            return _json([{"id": 1, "title": "ris"}])
        if asked.path == f"/api/projects/{PROJECT}/import/predictions":
            return self.before() or self._import(json.loads(asked.body))
        if asked.path.startswith("/api/predictions/"):
            return self._change(int(asked.path.split("/")[3]), asked)
        return _json({"detail": "Not found."}, 404)

    def _project(self, asked: Asked) -> Answer:
        if asked.method == "PATCH":
            version = json.loads(asked.body)["model_version"]
            if version != "ris" and not self.rows("SELECT id FROM prediction WHERE model_version = ?", version):
                return _json({"validation_errors": {"model_version": ["Model version doesn't exist."]}}, 400)
            self.model_version = version
            self.changes += 1
        described = {"id": PROJECT, "label_config": self.xml, "task_data_login": None}
        return _json({**described, "model_version": self.model_version})

    def _versions(self, asked: Asked) -> Answer:
        if asked.method == "DELETE":
            version = json.loads(asked.body)["model_version"]
            [(count,)] = self.rows("SELECT COUNT(*) FROM prediction WHERE model_version = ?", version)
            self.do("DELETE FROM prediction WHERE model_version = ?", version)
            if self.model_version in (version, "ris"):
                self.model_version = None
            return _json({"deleted_predictions": count})
        return _json(dict(self.rows("SELECT model_version, COUNT(*) FROM prediction GROUP BY model_version")))

    def _tasks(self, query: dict[str, str]) -> Answer:
        ids = [task for (task,) in self.rows("SELECT id FROM task ORDER BY id")]
        if "query" in query:
            chosen = set(json.loads(query["query"])["selectedItems"]["included"])
            ids = [task for task in ids if task in chosen]
        size, page = int(query["page_size"]), int(query["page"])
        shown = ids[(page - 1) * size : page * size]
        return _json({"tasks": [self._task(task, query.get("fields")) for task in shown], "total": len(ids)})

    def _task(self, task: int, fields: str | None) -> dict[str, Any]:
        [(data,)] = self.rows("SELECT data FROM task WHERE id = ?", task)
        found = {"id": task, "project": PROJECT, "data": json.loads(data)}
        if fields == "all":
            rows = self.rows("SELECT id, model_version, score FROM prediction WHERE task = ? ORDER BY id", task)
            parents = [self.annotated[task]] if task in self.annotated else []
            found["annotations"] = [{"id": task, "parent_prediction": parent} for parent in parents]
            found["predictions"] = [dict(zip(("id", "model_version", "score"), row, strict=True)) for row in rows]
        return found

    def _import(self, predictions: list[dict[str, Any]]) -> Answer:
        known = {task for (task,) in self.rows("SELECT id FROM task")}
        if not all(prediction["task"] in known for prediction in predictions):
            return _json({"detail": "contains invalid task field"}, 400)
        with self._lock, closing(self._open()) as base, base:
            self.imports += 1
            base.executemany(
                "INSERT INTO prediction (task, model_version, score, result) VALUES (?, ?, ?, ?)",
                [
                    (each["task"], each["model_version"], each["score"], json.dumps(each["result"]))
                    for each in predictions
                ],
            )
        return self.after() or _json({"created": len(predictions)}, 201)

    def _change(self, prediction: int, asked: Asked) -> Answer:
        if not self.rows("SELECT id FROM prediction WHERE id = ?", prediction):
            return _json({"detail": "Not found."}, 404)
        if asked.method == "DELETE":
            self.do("DELETE FROM prediction WHERE id = ?", prediction)
            return Answer(204)
        new = json.loads(asked.body)
        self.do("UPDATE prediction SET score = ? WHERE id = ?", new["score"], prediction)
        if "result" in new:
            self.do("UPDATE prediction SET result = ? WHERE id = ?", json.dumps(new["result"]), prediction)
        return _json({"id": prediction})

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.file, timeout=30)


def _json(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    shelf = Shelf(Path(sys.argv[1]))
    # An import takes its time, so that a kill often falls into one.
    shelf.before = shelf.after = lambda: time.sleep(0.1)
    with serve(shelf, int(sys.argv[2])):
        threading.Event().wait()
