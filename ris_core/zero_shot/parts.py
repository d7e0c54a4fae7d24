"""The files of a part on this machine: whole or absent, with a note of what they were as they came. No torch here.

<cache>/facebook--sam2.1-hiera-tiny-1a2b3c4d/   weights and what lies beside them, as one commit has them
<cache>/facebook--sam2.1-hiera-tiny-1a2b3c4d/origin.json   the repository, the commit and each file's SHA-256
<cache>/downloads/facebook--sam2.1-hiera-tiny-1a2b3c4d/    the same on its way: what was downloaded so far
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ris_core.downloads import OnProgress, commit_files, commit_of, download_from_hub, explained, share
from ris_core.errors import CheckpointError
from ris_core.files import atomic_dir, cache, sha256
from ris_core.zero_shot.pointer import part_folder
from ris_core.zero_shot_catalogue import Source

ORIGIN = "origin.json"
_SAFE = ".safetensors"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class WantedPart:
    """A part that isn't at hand.

    revision: the commit, or where nobody knows that the SHA-256 of its weights. size: in bytes.
    copy: a folder with its files; None: they are downloaded. sizes, digests: of its files, as far as the hub says.
    """

    source: Source
    revision: str
    size: int
    copy: Path | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return part_folder(self.source, self.revision)

    @property
    def coming(self) -> Path:
        """Where it is downloaded to."""
        return cache() / "downloads" / self.folder.name

    @property
    def left(self) -> int:
        """Bytes that it takes of the disk, beside those that are there already."""
        arrived = [path.stat().st_size for path in self.coming.rglob("*") if path.is_file()]
        return max(0, self.size - sum(arrived))


def published(source: Source, revision: str, otherwise: str) -> WantedPart:
    """A part as the hub has it. otherwise: as of `downloads.explained`.

    Raises CheckpointError if the hub can't be asked, or a file is missing there.
    """
    name = f"{source.repo}@{revision[:8]}"
    with explained(source.repo, f"{name} can't be listed", otherwise):
        files = commit_files(source.repo, revision)
    _check_names(source, files, name)
    sizes = {name: files[name].size for name in source.names}
    digests = {name: files[name].digest for name in source.names}
    return WantedPart(source, revision, sum(sizes.values()), sizes=sizes, digests=digests)


def copied(source: Source, folder: Path) -> WantedPart:
    """A part as somebody has it in a folder. Raises CheckpointError if a file is missing there."""
    _check_names(source, [path.name for path in folder.iterdir()], str(folder))
    revision = commit_of(folder, source.file) or source.revision or sha256(folder / source.file)
    return WantedPart(source, revision, sum((folder / name).stat().st_size for name in source.names), folder)


def at_hand(source: Source, revision: str | None) -> str | None:
    """The commit of a source whose files are here and intact: that one, or any where none is given."""
    if revision:
        return revision if is_intact(part_folder(source, revision)) else None
    origins = [_origin(folder) for folder in sorted(cache().glob(f"{part_folder(source, '').name}*/"))]
    revisions = [str(origin["revision"]) for origin in origins if origin.get("repo") == source.repo]
    return next((one for one in revisions if is_intact(part_folder(source, one))), None)


def is_intact(folder: Path) -> bool:
    """Whether all files are as they came."""
    files = _origin(folder).get("files")
    if not isinstance(files, dict) or not files:
        return False
    return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in files.items())


def keep(part: WantedPart, otherwise: str, on_progress: OnProgress | None = None) -> None:
    """Put a part's files where loading finds them; `otherwise` as of `downloads.explained`.

    on_progress: hears of a download, in bytes of the part. Raises CheckpointError if it can't be had, or a file isn't
    what it should be.
    """
    if is_intact(part.folder):
        return
    shutil.rmtree(part.folder, ignore_errors=True)
    given = part.copy or _downloaded(part, otherwise, on_progress)
    try:
        digests = {name: _checked(given / name, part.digests.get(name)) for name in part.source.names}
    except CheckpointError:
        # To go on from there would lead to the same.
        shutil.rmtree(part.coming, ignore_errors=True)
        raise
    with atomic_dir(part.folder) as folder:
        for name in part.source.names:
            (shutil.copyfile if part.copy else _take)(given / name, folder / name)
        origin = {"repo": part.source.repo, "revision": part.revision, "files": digests}
        (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(part.coming, ignore_errors=True)


def _downloaded(part: WantedPart, otherwise: str, on_progress: OnProgress | None) -> Path:
    """The folder of the files, as far as they could be had; called again, it goes on."""
    part.coming.mkdir(parents=True, exist_ok=True)
    done = 0
    for name, size in part.sizes.items():
        path = part.coming / name
        if path.exists() and path.stat().st_size > size:
            path.unlink()
        with explained(part.source.repo, f"{name} of {part.source.repo} can't be downloaded", otherwise):
            if not path.exists() or path.stat().st_size < size:
                heard = on_progress and share(on_progress, done, part.size)
                download_from_hub(part.source.repo, part.revision, name, path, heard)
        done += size
    return part.coming


def _take(source: Path, target: Path) -> None:
    """A second name for a file: killed right now, its download is still there."""
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has that.
        source.rename(target)


def _checked(path: Path, digest: str | None) -> str:
    """The SHA-256 of a file that is as published, and if it holds weights, all of them."""
    if path.suffix == _SAFE:
        try:
            # It reads the header alone.
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as error:
            raise CheckpointError(f"{path} isn't a safetensors file, or not all of it: {error}.") from None
    actual = sha256(path)
    if digest not in (None, actual):
        raise CheckpointError(
            f"{path} isn't the published file: its SHA-256 is {actual}, not {digest}. Fetch it again."
        )
    return actual


def _origin(folder: Path) -> dict[str, Any]:
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def _check_names(source: Source, present: Collection[str], where: str) -> None:
    missing = [name for name in source.names if name not in present]
    if not missing:
        return
    pickled = source.file in missing and any(name.endswith(_PICKLED) for name in present)
    why = " Its weights are pickled, and only safetensors are taken." if pickled else ""
    lacks = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    raise CheckpointError(f"{where} isn't a whole copy of {source.repo}: {lacks}.{why}")
