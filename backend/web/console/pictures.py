"""Pictures of predictions beside corrections, drawn when they are asked for and kept in bounded memory."""

import threading
from dataclasses import dataclass
from pathlib import Path

from cachetools import LRUCache

from backend.datasets.history import SnapshotExpression, find_expression
from backend.datasets.pairs import draw_pair, predicted_mask
from backend.errors import LabelStudioError, NotFound, TooMany
from backend.labelstudio.client import LabelStudio
from backend.labelstudio.label_config import Defaults, parse
from backend.settings import Settings
from backend.web.console import BROWSER_CONNECTIONS
from ris_core.masks import Mask

_BYTES = 32 << 20


@dataclass(frozen=True)
class Picture:
    """A JPEG. is_final: whether it would be the same if it was drawn again."""

    data: bytes
    is_final: bool


class PairPictures:
    """Draws pictures and keeps the last 32 MB of them. Safe for threads."""

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[str, int], bytes] = LRUCache(_BYTES, len)
        self._lock = threading.Lock()
        # The server has so many threads beside those that Label Studio needs; see gunicorn_conf.py.
        self._slots = threading.BoundedSemaphore(BROWSER_CONNECTIONS)

    def get(self, snapshot: Path, number: int, client: LabelStudio, project: int, settings: Settings) -> Picture:
        """The picture of a snapshot's expression of that number.

        Raises NotFound if there is none, TooMany if others are being drawn, DatasetError, ImageError.
        """
        key = snapshot.name, number
        with self._lock:
            kept = self._kept.get(key)
        if kept:
            return Picture(kept, is_final=True)
        if not self._slots.acquire(blocking=False):
            raise TooMany("Other pictures are being drawn. Try again in a moment.")
        try:
            return self._draw(snapshot, number, client, project, settings)
        finally:
            self._slots.release()

    def _draw(self, snapshot: Path, number: int, client: LabelStudio, project: int, settings: Settings) -> Picture:
        expression = find_expression(snapshot, number)
        if expression is None:
            raise NotFound("There is no such correction in the newest snapshot.")
        try:
            predicted = _predicted(expression, client, project, settings)
        except LabelStudioError:
            # What was predicted is unknown for the moment: without, and not for long.
            return Picture(draw_pair(expression, None), is_final=False)
        data = draw_pair(expression, predicted)
        with self._lock:
            if len(data) <= _BYTES:
                self._kept[snapshot.name, number] = data
        return Picture(data, is_final=True)


def _predicted(expression: SnapshotExpression, client: LabelStudio, project: int, settings: Settings) -> Mask | None:
    config = parse(client.project(project)["label_config"], Defaults.of(settings.of_project(project)))
    task = next(iter(client.predictions_of(project, [expression.image.number])), {})
    return predicted_mask(expression, task.get("predictions") or [], config)
