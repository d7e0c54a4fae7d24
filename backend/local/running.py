"""Which installation runs on this machine, for commands outside its folder. Starts and stops nothing."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from backend.home import lock_file


def announce(home: Path) -> None:
    """Note where the installation is that begins to run. Where that can't be noted, only its own folder finds it."""
    with suppress(OSError, RuntimeError):
        _note().parent.mkdir(parents=True, exist_ok=True)
        _note().write_text(str(home.absolute()), encoding="utf-8")


def running_home() -> Path | None:
    """The home folder of the installation that was started last, if it still runs."""
    with suppress(OSError, ValueError, RuntimeError):
        home = Path(_note().read_text(encoding="utf-8"))
        with lock_file(home).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return home
    return None


def _note() -> Path:
    # Path.home raises RuntimeError for a user without one, as in some containers.
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "ris-studio" / "home"
