"""Make the secrets of an installation in containers, one a file: `python -m backend.local.secret_files FOLDER ...`.

Each container reads those that it needs, as RIS_X_FILE says. What is there stays, unless the environment gives another:
a database keeps the password that it was made with. Knows nothing of what the secrets open.
"""

import argparse
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ris_core.files import atomic_write

POSTGRES_PASSWORD = "postgres_password"  # noqa: S105 - a file's name


def make_secrets(folder: Path, valkey: str, given: Mapping[str, str]) -> list[str]:
    """Write what is missing and what is given anew, readable by the owner alone -> the names of what was written.

    folder: is made. valkey: its host:port. given: names, in capitals after RIS_, and values; an empty one isn't given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Hexadecimal, since one stands in an address, and another is typed by a person.
    fresh = {
        "password": secrets.token_hex(24),
        "webhook_secret": secrets.token_hex(24),
        "label_studio_password": secrets.token_hex(8),
        "redis_url": f"redis://:{secrets.token_hex(24)}@{valkey}/0",
        POSTGRES_PASSWORD: secrets.token_hex(24),
    }
    written = []
    for name, value in fresh.items():
        file, wanted = folder / name, given.get(f"RIS_{name.upper()}")
        if not file.exists() or (wanted and wanted != file.read_text(encoding="utf-8")):
            atomic_write(file, (wanted or value).encode(), mode=0o600)
            written.append(name)
    return written


def main() -> None:
    """Make them in the folder that the arguments name, and say which were made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--valkey", required=True, help="host:port that the address of Valkey is made with")
    arguments = parser.parse_args()
    written = make_secrets(arguments.folder, arguments.valkey, os.environ)
    print(f"Secrets in {arguments.folder}: {f'{len(written)} written' if written else 'all there'}.")


if __name__ == "__main__":
    main()
