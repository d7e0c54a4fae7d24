"""A zero-shot segmenter as a checkpoint: a folder that says which fetched weights it means, by file. No torch here.

It is registered, promoted, compared, recalibrated and rolled back as any version is: a few hundred bytes instead of
gigabytes, and its name changes with the weights, their commit and the operating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ris_core.checkpoint_files import CONFIG, FORMAT, OperatingPoint, complete, pointer_folder, read_config, write
from ris_core.errors import CheckpointError
from ris_core.files import cache, sha256
from ris_core.zero_shot_catalogue import Source, ZeroShotEntry, find_zero_shot


def part_folder(source: Source, revision: str) -> Path:
    """Where the files of a source at a commit are kept."""
    return cache() / f"{source.repo.replace('/', '--')}-{revision[:8]}"


def write_pointer(
    entry: ZeroShotEntry, revisions: Mapping[str, str], point: OperatingPoint, folder: Path, card: str
) -> None:
    """Write the pointer to what was fetched, `revisions` by part. Raises FileExistsError if `folder` is there."""
    sources = {}
    for part, source in entry.sources.items():
        kept = part_folder(source, revisions[part])
        files = {name: sha256(kept / name) for name in (source.file, *source.beside)}
        sources[part] = {"repo": source.repo, "revision": revisions[part], "folder": kept.name, "files": files}
    config = {"format": FORMAT, "model": entry.name, "clicks": entry.clicks, "sources": sources}
    write(folder, None, config | {"operating_point": asdict(point)}, card)


def fetched(name: str) -> Path:
    """The folder of the pointer that fetching a segmenter of the catalogue left.

    Raises CheckpointError if it wasn't fetched, or there is no such segmenter.
    """
    entry, folder = find_zero_shot(name), pointer_folder(name)
    if not (folder / CONFIG).is_file():
        raise CheckpointError(entry.missing)
    return folder


def parts_of(folder: Path) -> dict[str, Path]:
    """The folders of the weights that a pointer means, by part, each file of them checked.

    Raises CheckpointError if a file is missing or was changed since the pointer was made.
    """
    config = complete(folder, read_config(folder))
    name, parts = config["model"], {}
    for part in find_zero_shot(name).sources:
        where, files = _source(folder, config["sources"].get(part))
        parts[part] = cache() / where
        for file, digest in files.items():
            _check(name, parts[part] / file, str(digest))
    return parts


def _source(folder: Path, source: object) -> tuple[str, Mapping[str, object]]:
    """The folder and the files of a part, which lie in the cache and nowhere else. Raises CheckpointError."""
    if isinstance(source, dict) and isinstance(source.get("folder"), str) and isinstance(source.get("files"), dict):
        where, files = source["folder"], source["files"]
        if all(_is_name(name) for name in (where, *files)):
            return where, files
    raise CheckpointError(f"{folder / CONFIG} is damaged: a part of its sources isn't a folder with files.")


def _is_name(name: str) -> bool:
    return Path(name).name == name and name not in ("", ".", "..") and name.isprintable()


def _check(name: str, path: Path, digest: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. {find_zero_shot(name).missing}")
    if sha256(path) != digest:
        raise CheckpointError(
            f"{path} isn't the file that {name} was fetched with. Delete {path.parent} and run `ris fetch {name}`."
        )
