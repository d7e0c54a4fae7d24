"""Bytes kept on disk by key, within a limit. Files are whole or absent, whoever else reads and writes the folder."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from ris_core.files import atomic_write, sha256

_log = logging.getLogger(__name__)

# Older temporary files belong to a writer that was killed.
_ABANDONED_SECONDS = 3600.0


class DiskCache:
    """At most `max_bytes` in `folder`; what was used longest ago goes first. Safe for threads and processes."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, key: str) -> bytes | None:
        """What was put there, which counts as used now; None if it isn't kept. Raises OSError if it can't be read."""
        path = self._path(key)
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            os.utime(path)
            return data
        return None

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, unless it alone is over the limit. A full disk costs the copy, not the caller."""
        if len(data) > self._max_bytes:
            return
        try:
            atomic_write(self._path(key), data)
            self._evict()
        except OSError as error:
            _log.warning("The image cache can't be written (%s): images are fetched anew.", error.strerror)

    def _path(self, key: str) -> Path:
        return self._folder / sha256(key.encode())

    def _evict(self) -> None:
        kept = 0
        for modified, size, path in sorted(self._files(), reverse=True):
            is_temporary = path.name.startswith(".")
            is_abandoned = is_temporary and modified < time.time() - _ABANDONED_SECONDS
            if is_abandoned or (kept + size > self._max_bytes and not is_temporary):
                path.unlink(missing_ok=True)
            else:
                kept += size

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._folder.iterdir():
            # Another process evicts, too.
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        return files
