"""The home folder (`.ris`): who may read it, its file of secrets, and the lock that keeps a second start out.

Knows nothing of processes, HTTP or what the secrets open.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from dotenv import dotenv_values

from backend.errors import AlreadyRunning, StartError
from backend.home import env_file, label_studio_folder, lock_file, logs_folder, projects_folder, valkey_folder
from backend.local.running import announce
from ris_core.files import atomic_write

_HEADER = "# Made by `ris up`. It holds passwords, so keep it to yourself. Any RIS_ setting may be added.\n"
_VALKEY_PORT = 6390


def prepare(home: Path) -> None:
    """Make the home folder and its logs, and complete the file of secrets; what holds any is its owner's alone.

    What the file holds already is left as it is, comments included.
    Raises StartError where the folder can't be made.
    """
    try:
        for folder in (home, logs_folder(home)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        _close(home)
    except OSError as error:
        raise StartError(f"The folder {home} can't be made ({error.strerror}): set RIS_HOME to another.") from error
    fresh = {
        "RIS_PASSWORD": secrets.token_urlsafe(24),
        "RIS_WEBHOOK_SECRET": secrets.token_urlsafe(24),
        "RIS_REDIS_URL": f"redis://:{quote(secrets.token_urlsafe(24))}@127.0.0.1:{_VALKEY_PORT}/0",
        # Typed by a person, so shorter; the server listens on this machine alone.
        "RIS_LABEL_STUDIO_PASSWORD": secrets.token_urlsafe(12),
    }
    kept = read_env(home)
    remember(home, {name: value for name, value in fresh.items() if name not in kept})


def _close(home: Path) -> None:
    """Take from others what holds secrets, for a copy of a file doesn't take along the mode of its folder."""
    servers = label_studio_folder(home), valkey_folder(home)
    for folder in (logs_folder(home), projects_folder(home), *servers):
        for file in folder.glob("*"):
            if file.is_file() and not file.is_symlink():
                file.chmod(0o600)


def read_env(home: Path) -> dict[str, str]:
    """What the file of secrets sets; a name without a value counts as absent."""
    return {name: value for name, value in dotenv_values(env_file(home)).items() if value}


def remember(home: Path, values: Mapping[str, str]) -> None:
    """Set `values` in the file of secrets, whole or not at all, mode 600; other lines stay as they are."""
    file = env_file(home)
    text = file.read_text(encoding="utf-8") if file.exists() else _HEADER
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in values]
    added = [f"{name}={value}" for name, value in values.items()]
    atomic_write(file, "\n".join([*kept, *added, ""]).encode(), mode=0o600)


@contextmanager
def locked(home: Path, announced: bool = True) -> Iterator[None]:
    """Hold the home folder for this process. Raises AlreadyRunning if another process holds it.

    announced: whether commands outside the folder find it by that.
    The system drops the lock with its holder, however that one ends.
    """
    with lock_file(home).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise AlreadyRunning(
                f"`ris up` runs already in {home} (process {file.read().strip() or 'unknown'}): "
                "stop that one with Ctrl-C, or set RIS_HOME to another folder."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        if announced:
            announce(home)
        yield
