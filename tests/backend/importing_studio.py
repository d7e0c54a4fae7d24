"""A small Label Studio over HTTP that takes files and tasks, refuses, and dies at any request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from labelstudio.site import Answer, Asked
from studio import chosen

PROJECT = 3


@dataclass
class Studio:
    """breaks_at: the number of the request that is answered by 500, stored all the same if `stores`."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    files: dict[int, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    breaks_at: int = -1
    stores: bool = False
    refuses: bytes = b"nothing that anybody sends"
    requests: int = 0

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/api/token/refresh/":
            return self.json({"access": "access-token"})
        self.requests += 1
        breaks = self.requests == self.breaks_at
        answer = self.answer(asked) if self.stores or not breaks else None
        return self.json({"detail": "A server error occurred."}, 500) if breaks or answer is None else answer

    def answer(self, asked: Asked) -> Answer:
        if asked.path == "/api/tasks/":
            query = dict(pair.split("=", 1) for pair in asked.target.split("?")[1].split("&"))
            found = chosen(self.tasks, json.loads(unquote_plus(query["query"])))
            return self.json({"tasks": found[: int(query["page_size"])], "total": len(found)})
        if asked.path.startswith("/api/import/file-upload/"):
            return self.json({"file": self.files[int(asked.path.rpartition("/")[2])]})
        assert asked.path == f"/api/projects/{PROJECT}/import"
        if self.refuses in asked.body:
            return self.json({"detail": "Bad request", "validation_errors": {"data": ["no"]}}, 400)
        if "commit_to_project=false" in asked.target:
            return self.upload(asked.body)
        tasks = json.loads(asked.body)
        for task in tasks:
            number = len(self.tasks) + 1
            rows = [
                {"id": number, "updated_at": "2026-11-21T02:02:23Z", "was_cancelled": False, "completed_by": 1, **row}
                for row in task.get("annotations", ())
            ]
            self.tasks.append({**task, "id": number, "annotations": rows})
        return self.json({"task_ids": [task["id"] for task in self.tasks[-len(tasks) :]]})

    def upload(self, body: bytes) -> Answer:
        head, _, rest = body.partition(b"\r\n\r\n")
        name = head.split(b'filename="')[1].split(b'"')[0].decode()
        number = len(self.files) + 1
        self.files[number] = f"upload/3/{number:08x}-{name}"
        self.contents[f"/data/{self.files[number]}"] = rest.rpartition(b"\r\n--")[0]
        return self.json({"file_upload_ids": [number], "task_count": 1})

    @staticmethod
    def json(body: object, status: int = 200) -> Answer:
        return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
