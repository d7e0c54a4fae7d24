"""What a dataset must hold on disk, found or missed all at once."""

from pathlib import Path
from typing import TypeAlias

from ris_core.errors import DatasetError

# For each part of a dataset the names that it goes by, the usual one first; a folder's ends with a slash.
Layout: TypeAlias = tuple[tuple[str, ...], ...]


def find_parts(folder: Path, layout: Layout) -> list[Path]:
    """The path of each part of a dataset below `folder`.

    Raises DatasetError if a part is there under none of its names; the message draws the whole layout.
    """
    parts = [next((folder / name for name in names if _is_there(folder, name)), None) for names in layout]
    missing = [names[0] for names, path in zip(layout, parts, strict=True) if path is None]
    if missing:
        drawn = "\n".join(f"    {' or '.join(names)}" for names in layout)
        raise DatasetError(f"{folder} lacks {', '.join(missing)}. It has to hold\n{drawn}")
    return [path for path in parts if path]


def _is_there(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() if name.endswith("/") else (folder / name).is_file()
