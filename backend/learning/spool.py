"""A file of JSON lines that wait for Valkey. Any number of threads and processes add; whoever reads back does so alone.

It is bounded. Killed while it writes, a process leaves at most a line that isn't whole, which is left out.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from backend.locks import exclusive

_log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20

Entry = dict[str, Any]


class Spool:
    """The lines in `file`; beside it are its lock and the file that is being read back."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._reading = file.with_name(f"{file.stem}.reading{file.suffix}")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Keep an entry, on the disk when this returns; where the file is full it is lost, and the log says so."""
        data = json.dumps(entry).encode() + b"\n"
        with self._locked():
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                if os.fstat(descriptor).st_size + len(data) > MAX_BYTES:
                    _log.error(
                        "Valkey is away, and %s is full: events are lost. The reconciler will find them.", self._file
                    )
                    return
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def drain(self, take: Callable[[Entry], object]) -> int:
        """Hand all entries to `take`, the oldest first, then forget them -> how many there were.

        Killed midway, or where `take` raises, the next call hands over all of them again.
        """
        if not self._reading.exists():
            with self._locked():
                if not self._file.exists():
                    return 0
                self._file.rename(self._reading)
        entries = list(self._entries())
        for entry in entries:
            take(entry)
        self._reading.unlink()
        return len(entries)

    def _entries(self) -> Iterator[Entry]:
        for line in self._reading.read_text(encoding="utf-8").splitlines():
            # Else its writer was killed in the middle of it.
            with suppress(ValueError):
                yield json.loads(line)

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive(self._file.with_suffix(".lock"))
