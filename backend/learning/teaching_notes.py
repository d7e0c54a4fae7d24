"""What a teacher said of each task, on disk as soon as it was said. Knows no model and no Label Studio."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.datasets.annotations import SkippedTask


@dataclass(frozen=True)
class TaughtAnswer:
    """What the teacher said to one sentence of a task. rle: COCO's run lengths; None: it isn't there.

    presence, quality: as in `RawPrediction`; what they are worth is known only once people have corrected others.
    """

    prompt: str
    label: str
    rle: Mapping[str, Any] | None
    presence: float
    quality: float


class TeachingNotes:
    """A file of what a teacher said, a line of JSON a task; a last line that was cut off by a kill doesn't count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.said: dict[int, list[TaughtAnswer]] = {}
        self._keys: dict[int, str] = {}
        self.skipped: list[SkippedTask] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        whole, _, cut = path.read_bytes().rpartition(b"\n") if path.is_file() else (b"", b"", b"")
        if cut:
            os.truncate(path, len(whole) + 1 if whole else 0)
        for line in whole.splitlines():
            noted = json.loads(line)
            self._keys[noted["task"]] = noted["key"]
            self.said[noted["task"]] = [TaughtAnswer(**one) for one in noted["said"]]

    def knows(self, task: int, key: str) -> bool:
        """Whether just that was asked of a task; `key` changes with what is asked, and of which image."""
        return bool(key) and self._keys.get(task) == key

    def add(self, answers: Mapping[int, list[TaughtAnswer] | SkippedTask], keys: Mapping[int, str]) -> None:
        """Write answers down with their tasks' keys; tasks that couldn't be asked may be asked again."""
        lines = []
        for task, said in answers.items():
            if isinstance(said, SkippedTask):
                self.skipped.append(said)
                continue
            self.said[task], self._keys[task] = said, keys[task]
            lines.append(json.dumps({"task": task, "key": keys[task], "said": [asdict(one) for one in said]}) + "\n")
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))
            file.flush()
            os.fsync(file.fileno())
