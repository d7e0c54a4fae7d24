"""`make reference`: write the pages of docs/ that say what the code says.

docs/settings.md is another such page, by `ris settings --markdown`.
"""

from __future__ import annotations

from pathlib import Path

from reference import pages
from ris_core.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    for path, text in pages(ROOT).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic_write(path, text.encode())
            print(f"{path.relative_to(ROOT)} is written anew.")


if __name__ == "__main__":
    main()
