"""What batches noted of the pairs that they predicted, in files: numbers to rank by, without the model.

    <home>/pairs/<project>/<version string>/<tasks>.npz      of one chunk; what is written later counts

A cache: what is lost is made again by predicting again (`ris prelabel --force`). Kept are the last KEPT versions.

Embeddings are those of the deepest level. Files that hold them under `embedding` are from before that: only LDA's were
of that level, those of other designs lie elsewhere or have another length, and can't be ranked beside new ones.
"""

import io
import json
import logging
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from backend.active_learning.strategies import Pair
from backend.home import pairs_folder
from ris_core.files import atomic_write, sha256

_log = logging.getLogger(__name__)

KEPT = 3
# What a file that somebody cut off or changed raises.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class PairStore:
    """The pairs of all projects. Safe for any number of threads and processes: files are whole or absent."""

    def __init__(self, home: Path) -> None:
        self._root = pairs_folder(home)

    def keep(self, project: int, version: str, pairs: Sequence[Pair]) -> None:
        """Keep pairs of some tasks, in place of what is kept of those. A full disk costs the ranking, no prediction."""
        if not pairs:
            return
        tasks = sorted({pair.task for pair in pairs})
        name = sha256(json.dumps(tasks).encode())[:16]
        folder = self._folder(project, version)
        new = not folder.exists()
        try:
            atomic_write(folder / f"{name}.npz", _pack(pairs))
            if new:
                self._forget(project)
        except OSError as error:
            _log.warning("What project %s is ranked by isn't kept: %s", project, error)

    def read(self, project: int, version: str) -> list[Pair]:
        """All that is kept of a version's predictions, by rising task; nothing of files that are damaged."""
        by_task: dict[int, list[Pair]] = {}
        for file in sorted(self._folder(project, version).glob("*.npz"), key=_written):
            with suppress(FileNotFoundError):
                pairs = _unpack(file)
                by_task |= {task: [] for task in {pair.task for pair in pairs}}
                for pair in pairs:
                    by_task[pair.task].append(pair)
        return [pair for task in sorted(by_task) for pair in by_task[task]]

    def _forget(self, project: int) -> None:
        folders = sorted((self._root / str(project)).iterdir(), key=_written)
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, project: int, version: str) -> Path:
        return self._root / str(int(project)) / version.replace("/", "_")


def _pack(pairs: Sequence[Pair]) -> bytes:
    file = io.BytesIO()
    np.savez(
        file,
        task=np.array([pair.task for pair in pairs], dtype=np.int64),
        prompt=np.frombuffer(json.dumps([pair.prompt for pair in pairs]).encode(), dtype=np.uint8),
        numbers=np.array([(pair.confidence, pair.disagreement, pair.shown) for pair in pairs], dtype=np.float64),
        # Half as large, and no order depends on the rest.
        deepest=np.stack([pair.embedding for pair in pairs]).astype(np.float16),
    )
    return file.getvalue()


def _unpack(file: Path) -> list[Pair]:
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
            prompts = json.loads(content["prompt"].tobytes())
            if "deepest" not in content and not file.parent.name.startswith("lda-"):
                return []
            embeddings = content["deepest" if "deepest" in content else "embedding"]
            # Files from before it was noted whether a mask was shown have two numbers a pair.
            numbers = np.column_stack([content["numbers"], np.ones(len(prompts))])[:, :3].tolist()
            rows = zip(content["task"], prompts, numbers, embeddings, strict=True)
            return [
                Pair(int(task), str(prompt), confidence, disagreement, embedding.astype(np.float32), bool(shown))
                for task, prompt, (confidence, disagreement, shown), embedding in rows
            ]
    except FileNotFoundError:
        raise
    except _DAMAGED as error:
        _log.warning("%s can't be read, and is left out: %s", file, error)
        return []


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
