"""Getting weights onto this machine: downloaded or from a file, checked, and kept as safetensors.

What is pickled is read only once its SHA-256 is right, by a reader that makes nothing but tensors, and never again.
"""

import json
import pickle
import shutil
from pathlib import Path

import httpx
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ris_core.downloads import OnProgress, download, explained, one_process
from ris_core.encoders import IMAGE_ENCODERS, TEXT_ENCODERS, find_entry
from ris_core.encoders.weights import ORIGIN, WEIGHTS, Fetched, Hub, Official, Tensors, locate
from ris_core.errors import CheckpointError
from ris_core.files import atomic_dir, sha256


def fetch(name: str, file: Path | None = None, on_progress: OnProgress | None = None) -> Path:
    """Put the weights of encoder `name` where loading finds them -> their folder. Does nothing where they are already.

    Killed at any moment it leaves nothing that loading, or a later call, would take for whole.

    Args:
        file: taken instead of a download: the authors' file, or a folder with a copy of the hub's commit.
        on_progress: called as a download from the authors goes on; downloads from the hub show it themselves.

    Raises CheckpointError if no encoder has that name, the download failed, or a file isn't the one it should be.
    """
    source = find_entry(IMAGE_ENCODERS | TEXT_ENCODERS, name).source
    if isinstance(source, Fetched):
        try:
            with one_process(source.folder):
                if not _whole(name, source):
                    _install(name, source, file, on_progress)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{source.folder} can't be written: {error}") from None
    return locate(name, source)


def _whole(name: str, source: Fetched) -> bool:
    try:
        locate(name, source)
    except CheckpointError:
        shutil.rmtree(source.folder, ignore_errors=True)
        return False
    return True


def _install(name: str, source: Fetched, file: Path | None, on_progress: OnProgress | None) -> None:
    if isinstance(source, Hub) and source.file == WEIGHTS and file is None:
        _download_commit(name, source)
        return
    with atomic_dir(source.folder) as folder:
        scrap = folder / "scrap"
        scrap.mkdir()
        if isinstance(source, Official):
            given = file or _download(name, source.url, scrap / "download", on_progress)
            save_file(source.convert(_unpickled(_same(given, source.digest))), folder / WEIGHTS)
        else:
            assert isinstance(source, Hub)
            _copy(file or source.snapshot() or _download_commit(name, source, scrap), source, folder)
        shutil.rmtree(scrap)
        origin = {"source": str(source), "weights": sha256(folder / WEIGHTS)}
        (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def _copy(commit: Path, source: Hub, folder: Path) -> None:
    """Files of a hub's commit -> `folder`, the weights as safetensors."""
    for name in (source.file, *source.beside):
        if not (commit / name).is_file():
            raise CheckpointError(f"{commit} isn't a copy of {source}: {name} is missing.")
    for name in source.beside:
        shutil.copyfile(commit / name, folder / name)
    weights = _same(commit / source.file, source.digest) if source.digest else commit / source.file
    if source.file == WEIGHTS:
        shutil.copyfile(weights, folder / WEIGHTS)
    else:
        save_file(_unpickled(weights), folder / WEIGHTS, metadata={"format": "pt"})


def _same(path: Path, digest: str) -> Path:
    try:
        actual = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}.") from None
    if actual != digest:
        raise CheckpointError(
            f"{path} isn't the published file, or not all of it: its SHA-256 is {actual}, not {digest}. Fetch it again."
        )
    return path


def _unpickled(path: Path) -> Tensors:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} can't be read as a checkpoint: {error}") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds something else than tensors.")
    # Each gets memory of its own, as safetensors wants it; taken out one by one, so that memory isn't needed twice.
    return {name: tensors.pop(name).clone(memory_format=torch.contiguous_format) for name in list(tensors)}


def _download(name: str, url: str, path: Path, on_progress: OnProgress | None) -> Path:
    try:
        download(url, path, on_progress)
    except httpx.HTTPError as error:
        raise CheckpointError(
            f"{url} can't be downloaded: {error or type(error).__name__}. Fetch it where that works, "
            f"then run `ris fetch {name} --file FILE` with it."
        ) from None
    return path


def _download_commit(name: str, source: Hub, folder: Path | None = None) -> Path:
    """Into `folder`, or else the hub's own cache -> the folder of the files."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - few need it

    wanted = [source.file, *source.beside]
    otherwise = (
        f"copy {', '.join(wanted)} of that commit to a folder where it works, then run "
        f"`ris fetch {name} --file FOLDER` with it"
    )
    with explained(source.repo, f"{source} can't be downloaded", otherwise):
        return Path(snapshot_download(source.repo, revision=source.revision, allow_patterns=wanted, local_dir=folder))
