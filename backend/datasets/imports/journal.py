"""Which tasks an import has sent, kept below home, so that one that was killed goes on and makes no task twice.

Label Studio's tasks themselves say which pictures are there (`ris_import` in a task's data). What can't be seen there
is what it was sent when the import was killed: it may be storing that still, all of it or nothing.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from backend.home import import_file
from backend.locks import exclusive
from ris_core.files import atomic_write

# By then Label Studio has stored what it was sent, or never will.
SETTLE_SECONDS = 30.0
_POLL_SECONDS = 1.0


class ImportJournal:
    """The journal of the imports into one project."""

    def __init__(self, home: Path, project: int) -> None:
        self._file = import_file(home, project)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else imports into the project meanwhile. Raises Unavailable if somebody does."""
        refusal = "Another import into this project is running. Wait for it, or stop it and run this again."
        with exclusive(self._file.with_suffix(".lock"), refusal):
            yield

    def sending(self, keys: Collection[str]) -> None:
        """The tasks of these keys are about to be sent."""
        document = {"keys": sorted(keys), "until": time.time() + SETTLE_SECONDS}
        atomic_write(self._file, json.dumps(document).encode())

    def settled(self) -> None:
        """What was sent is there, or was refused."""
        self._file.unlink(missing_ok=True)

    def settle(self, present: Callable[[], set[str]], waiting: Callable[[], object] = lambda: None) -> set[str]:
        """The keys that are `present`, asked once no task can come any more that a killed import had sent.

        waiting: called again and again until then.
        """
        sent, until = self._read()
        keys = present()
        while sent - keys and time.time() < until:
            waiting()
            time.sleep(_POLL_SECONDS)
            keys = present()
        self.settled()
        return keys

    def _read(self) -> tuple[set[str], float]:
        """What was sent, and until when it may come."""
        # A clock that was set back meanwhile makes nobody wait for hours.
        latest = time.time() + SETTLE_SECONDS
        with suppress(FileNotFoundError):
            document = json.loads(self._file.read_text(encoding="utf-8"))
            return set(document["keys"]), min(float(document["until"]), latest)
        return set(), 0.0
