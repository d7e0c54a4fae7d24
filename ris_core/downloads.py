"""Files from the net: what is in a commit of the Hugging Face hub, and downloads that go on where they broke off.

Whoever has logged in to the hub on this machine, or set HF_TOKEN, is known there: its client sees to that. No torch.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import httpx
from filelock import FileLock

from ris_core.errors import CheckpointError

# Bytes so far, and in all where that is known.
OnProgress: TypeAlias = Callable[[int, int | None], None]

_SECONDS = 30
# So often in a row a broken connection is tried again, each time a second later than before.
_TRIES = 5
# Not logged in, or logged in and not let in.
_REFUSED = (401, 403)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubFile(NamedTuple):
    """A file of a commit. size: in bytes. digest: its SHA-256, which the hub says of large files alone."""

    size: int
    digest: str | None


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Only one process at a time makes `folder`; what one that was killed left beside it is swept up."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for left in folder.parent.glob(f".{folder.name}.*/"):
            shutil.rmtree(left)
        yield


def download(
    url: str, path: Path, on_progress: OnProgress | None = None, headers: dict[str, str] | None = None
) -> None:
    """The file at `url`, at `path`. Bytes that are there already are taken for its first ones, and not fetched again.

    Raises httpx.HTTPError if it can't be had, even after the connection was tried again.
    """
    tries, before = 0, -1
    while True:
        try:
            _stream(url, path, on_progress, headers or {})
        except httpx.TransportError:
            arrived = path.stat().st_size if path.exists() else 0
            tries = 1 if arrived > before else tries + 1
            # One that never answered isn't asked again: that is said at once.
            if tries >= _TRIES or not arrived:
                raise
            before = arrived
            time.sleep(tries)
        else:
            return


def _stream(url: str, path: Path, on_progress: OnProgress | None, headers: dict[str, str]) -> None:
    arrived = path.stat().st_size if path.exists() else 0
    # Compressed, it couldn't be gone on with.
    asked = headers | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
    with httpx.stream("GET", url, headers=asked, follow_redirects=True, timeout=_SECONDS) as response:
        # There is no more of it.
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            arrived = 0
        length = response.headers.get("content-length")
        total = arrived + int(length) if length else None
        with path.open("ab" if arrived else "wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                arrived += len(chunk)
                if on_progress:
                    on_progress(arrived, total)


def newest_commit(repo: str) -> str:
    """The commit that a repository of the hub is at, 40 hexadecimal digits. Raises what its client does."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - few need it

    return str(HfApi().model_info(repo, timeout=_SECONDS).sha)


def commit_files(repo: str, revision: str) -> dict[str, HubFile]:
    """The files at the top of a commit of the hub, by name. Raises what its client does."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - few need it
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    return {
        entry.path: HubFile(entry.size, entry.lfs.sha256 if entry.lfs else None)
        for entry in HfApi().list_repo_tree(repo, revision=revision)
        if isinstance(entry, RepoFile)
    }


def download_from_hub(repo: str, revision: str, name: str, path: Path, on_progress: OnProgress | None = None) -> None:
    """`download` of a file of a commit, as whoever is logged in."""
    from huggingface_hub import get_token, hf_hub_url  # noqa: PLC0415 - few need it

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    download(hf_hub_url(repo, name, revision=revision), path, on_progress, headers)


def share(on_progress: OnProgress, before: int, total: int) -> OnProgress:
    """What hears of one of several downloads, and passes on what all of them come to."""
    return lambda done, _: on_progress(before + done, total)


def is_commit(revision: str) -> bool:
    """Whether that is how the hub names a commit."""
    return bool(_COMMIT.fullmatch(revision))


def commit_of(folder: Path, name: str) -> str | None:
    """The commit that a copy of a file came from: as the hub's client notes it beside, or names the folder."""
    note = folder / ".cache" / "huggingface" / "download" / f"{name}.metadata"
    first = note.read_text(encoding="utf-8").split("\n")[0].strip() if note.is_file() else folder.resolve().name
    return first if is_commit(first) else None


@contextmanager
def explained(repo: str, failure: str, otherwise: str) -> Iterator[None]:
    """Whatever the hub or its client raises inside is raised as CheckpointError.

    failure: what can't be done, the beginning of a sentence. otherwise: what to do then, the end of one.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 - what carries the client's requests differs by version, so do its errors
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in _REFUSED:
            raise CheckpointError(
                f"The hub doesn't give {repo} to everybody ({status}): ask for access at "
                f"https://huggingface.co/{repo}, then run `hf auth login` or set HF_TOKEN. Or {otherwise}."
            ) from None
        # Some of its messages are pages long.
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(f"{failure}: {reason}. Try again, or {otherwise}.") from None
