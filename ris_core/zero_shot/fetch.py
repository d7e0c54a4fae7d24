"""Getting the published weights of a zero-shot segmenter onto this machine, and the pointer to them. No torch here.

Killed here, then what?
- While a part is downloaded: fetching again goes on where that stopped.
- Between the parts: those that are whole aren't fetched again, nor are those that another segmenter brought.
- Before the pointer, which is written last: the segmenter isn't taken for fetched, and fetching again writes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from ris_core import checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.downloads import OnProgress, explained, is_commit, newest_commit, one_process, share
from ris_core.errors import CheckpointError
from ris_core.files import cache
from ris_core.zero_shot.parts import WantedPart, at_hand, copied, keep, published
from ris_core.zero_shot.pointer import parts_of, write_pointer
from ris_core.zero_shot_catalogue import Source, ZeroShotEntry, find_zero_shot

_MB = 1_000_000
# Beside the files themselves: the pointer, notes, blocks that are half full.
_SPARE = 20 * _MB

OnNote = Callable[[str], None]
"""Hears what a person should know, a sentence at a time."""


def fetch_zero_shot(
    name: str,
    copies: Path | None = None,
    on_note: OnNote = lambda note: None,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """Put the weights of zero-shot segmenter `name` and the pointer to them where loading finds them -> the pointer.

    Does nothing where they are already. Where no commit is known beforehand, the newest is taken, and pinned.

    copies: taken instead of a download: a folder with a folder for each part, named so, or with the files themselves
        where there is but one part. Parts that it lacks have to be at hand.
    on_progress: hears of downloads, in bytes of all parts that are fetched.

    Raises CheckpointError if no segmenter has that name, the disk is too small, a download failed, or a file isn't the
    one it should be.
    """
    entry = find_zero_shot(name)
    folder = checkpoint_files.pointer_folder(name)
    try:
        with one_process(folder):
            if copies or not _is_whole(folder):
                _install(entry, copies, folder, on_note, on_progress)
    except OSError as error:
        raise CheckpointError(f"{cache()} can't be written: {error}") from None
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        parts_of(folder)
    except CheckpointError:
        return False
    return True


def _install(entry: ZeroShotEntry, copies: Path | None, folder: Path, on_note: OnNote, on_progress: OnProgress) -> None:
    otherwise, pinned = _otherwise(entry), _pinned(folder)
    revisions: dict[str, str] = {}
    wanted: list[WantedPart] = []
    for part, source in entry.sources.items():
        copy = _copy_of(entry, part, copies)
        revision = source.revision or pinned.get(part)
        if copy is None and (here := at_hand(source, revision)):
            revisions[part] = here
            continue
        if copies and copy is None:
            raise CheckpointError(f"{copies} has no folder {part!r}: it should have {_layout(entry)}.")
        missing = copied(source, copy) if copy else _on_hub(source, _commit(revision), otherwise, on_note)
        revisions[part] = missing.revision
        wanted.append(missing)
    _check_disk(entry.name, wanted)
    total = sum(missing.size for missing in wanted)
    for number, missing in enumerate(wanted):
        before = sum(earlier.size for earlier in wanted[:number])
        # Another segmenter may bring it at the same time.
        with one_process(missing.folder):
            keep(missing, otherwise, share(on_progress, before, total))
    # A pointer that is there means files that are gone, or aren't what they were, or those of another commit.
    shutil.rmtree(folder, ignore_errors=True)
    write_pointer(entry, revisions, OperatingPoint(**entry.thresholds), folder, _card(entry, revisions))


def _pinned(folder: Path) -> dict[str, str]:
    """The commits that the pointer names, by part, if there is one."""
    with suppress(CheckpointError, KeyError, TypeError, AttributeError):
        sources = checkpoint_files.read_config(folder)["sources"]
        return {part: str(source["revision"]) for part, source in sources.items()}
    return {}


def _commit(revision: str | None) -> str | None:
    """A revision that the hub knows; that of a copy may be the digest of its weights instead."""
    return revision if revision and is_commit(revision) else None


def _copy_of(entry: ZeroShotEntry, part: str, copies: Path | None) -> Path | None:
    """The folder of a part among the copies that somebody gives."""
    if copies is None:
        return None
    if not copies.is_dir():
        raise CheckpointError(f"{copies} isn't a folder: it should have {_layout(entry)}.")
    if (copies / part).is_dir():
        return copies / part
    return copies if len(entry.sources) == 1 else None


def _on_hub(source: Source, revision: str | None, otherwise: str, on_note: OnNote) -> WantedPart:
    if revision is None:
        with explained(source.repo, f"{source.repo} can't be asked which commit is its newest", otherwise):
            revision = newest_commit(source.repo)
        on_note(f"{source.repo} is taken at {revision}, its newest commit, and stays at that.")
    return published(source, revision, otherwise)


def _otherwise(entry: ZeroShotEntry) -> str:
    return f"run `ris fetch {entry.name} --file FOLDER` with a folder that has {_layout(entry)}"


def _layout(entry: ZeroShotEntry) -> str:
    """What a folder with copies has to hold, in words."""
    files = [f"{', '.join(source.names)} of {source.repo}" for source in entry.sources.values()]
    if len(entry.sources) == 1:
        return files[0]
    return "; ".join(f"in {part}/ {names}" for part, names in zip(entry.sources, files, strict=True))


def _check_disk(name: str, wanted: list[WantedPart]) -> None:
    folder = cache().absolute()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    needed, free = sum(part.left for part in wanted) + _SPARE, shutil.disk_usage(there).free
    if wanted and free < needed:
        raise CheckpointError(
            f"{name} takes {needed / _MB:,.0f} MB more in {folder}, where {free / _MB:,.0f} MB are free. "
            "Make room there, or set RIS_CACHE to another folder."
        )


def _card(entry: ZeroShotEntry, revisions: Mapping[str, str]) -> str:
    sources = "\n".join(
        f"- {part}: [{source.repo}](https://huggingface.co/{source.repo}) at {revisions[part]}, {source.licence}"
        for part, source in entry.sources.items()
    )
    return (
        f"# {entry.name}\n\nPublished weights, used as they are; this folder only says which.\n\n{sources}\n\n"
        "Its thresholds are usual ones, its scores aren't corrected to anything: "
        "`ris calibrate` does that.\n"
    )
