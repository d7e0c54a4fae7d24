"""The prompt that was typed last in each project, for trying it on the next picture.

In Valkey where several backends share one, else in the home folder. It is a convenience: what can't be read or
written counts as forgotten, and only the log says so. Knows nothing of what a prompt means.
"""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import cast

from redis import Redis
from redis.exceptions import RedisError

from backend.home import last_prompt_file
from ris_core.files import atomic_write

_log = logging.getLogger(__name__)

# Who comes back later has something else in mind.
SECONDS = 3600


class LastPrompt(ABC):
    """One prompt a project, for `SECONDS` after it was typed."""

    def remember(self, project: int, prompt: str) -> None:
        """Keep it in place of the one before."""
        try:
            self._write(project, prompt)
        except (RedisError, OSError) as error:
            _log.warning("The prompt typed in project %s isn't kept: %s", project, error)

    def recall(self, project: int) -> str | None:
        """The project's prompt, or None where none was typed of late."""
        try:
            return self._read(project)
        except FileNotFoundError:
            return None
        except (RedisError, OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("The prompt typed last in project %s can't be read: %s", project, error)
            return None

    @abstractmethod
    def _write(self, project: int, prompt: str) -> None: ...

    @abstractmethod
    def _read(self, project: int) -> str | None: ...


class SharedLastPrompt(LastPrompt):
    """Kept in Valkey; safe for any number of processes."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def _write(self, project: int, prompt: str) -> None:
        self._connection.set(_key(project), prompt, ex=SECONDS)

    def _read(self, project: int) -> str | None:
        prompt = cast(bytes | None, self._connection.get(_key(project)))
        return prompt.decode() if prompt else None


class FileLastPrompt(LastPrompt):
    """Kept in `<home>/projects/<project>.typed.json`, replaced in one step."""

    def __init__(self, home: Path, now: Callable[[], float] = time.time) -> None:
        self._home = home
        self._now = now

    def _write(self, project: int, prompt: str) -> None:
        kept = {"prompt": prompt, "typed": self._now()}
        atomic_write(last_prompt_file(self._home, project), json.dumps(kept).encode(), mode=0o600)

    def _read(self, project: int) -> str | None:
        kept = json.loads(last_prompt_file(self._home, project).read_bytes())
        return str(kept["prompt"]) if 0 <= self._now() - kept["typed"] < SECONDS else None


def _key(project: int) -> str:
    return f"ris:typed:{project}"
