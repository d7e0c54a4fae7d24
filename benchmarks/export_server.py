"""What export.py exports from: the tests' small Label Studio, with tasks and photos that lie in a folder.

python export_server.py FOLDER PORT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

# Before this folder, which has another studio.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "backend"))

from labelstudio.site import Answer, serve
from studio import Studio, chosen


class Photos(Mapping[str, bytes]):
    """Uploads by path, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, path: str) -> bytes:
        try:
            return (self._folder / Path(path).name).read_bytes()
        except OSError:
            raise KeyError(path) from None

    def __iter__(self) -> Iterator[str]:
        return (f"/data/upload/1/{path.name}" for path in self._folder.iterdir())

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Server(Studio):
    """The stand-in, but for tasks that lie on disk as they are sent: little of the time is the server's."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_bytes())
        super().__init__(index, Photos(folder / "photos"))  # type: ignore[arg-type]
        self._folder = folder / "tasks"

    def page(self, query: dict[str, str]) -> Answer:
        matching = chosen(self.tasks, json.loads(query.get("query", "{}")))
        size, page = int(query["page_size"]), int(query.get("page", 1))
        shown = [
            (self._folder / f"{entry['id']}.json").read_bytes() for entry in matching[(page - 1) * size : page * size]
        ]
        counts = b'"total":%d,"total_annotations":%d' % (len(matching), len(matching))
        body = b'{"tasks":[' + b",".join(shown) + b"]," + counts + b"}"
        return Answer(200, body, {"Content-Type": "application/json"})


if __name__ == "__main__":
    with serve(Server(Path(sys.argv[1])), int(sys.argv[2])):
        while True:
            time.sleep(60)
