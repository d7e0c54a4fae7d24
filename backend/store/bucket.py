"""Objects under one address, by name: in a folder, or in S3, GCS or Azure through obstore. Knows nothing of them.

One thing is asked of a store beyond reading and writing: a conditional write, which replaces an object only if nobody
else has since it was read (If-Match), or makes it only if there is none (If-None-Match).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from backend.errors import Unavailable
from backend.locks import exclusive
from backend.store.cloud import VARIABLES, cause, client_options
from ris_core.files import atomic_file, atomic_write, sha256

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import RetryConfig

# What is read while somebody waits is small.
_QUICK, _PATIENT = {"connect_timeout": "3s", "timeout": "5s"}, {"connect_timeout": "10s", "timeout": "15m"}
_QUICK_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=8)}
_PATIENT_RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_CHUNK = 8 << 20
_PROBES, _LOCKS = "probes", ".locks"


class StoreError(Unavailable, code="store_unavailable"):
    """The store doesn't do what it was asked for; the sentence says why, and what to do."""


class StoreDamaged(Unavailable, code="store_damaged"):
    """An object isn't what was once written."""


class Changed(Exception):
    """The object isn't the one that was to be replaced: somebody else has written it meanwhile."""


@dataclass(frozen=True)
class Listed:
    """What a listing says of an object. tag: changes with its content. size: bytes. written: when, in UTC."""

    tag: str
    size: int
    written: datetime


@dataclass(frozen=True)
class Stored:
    """An object's content, and what a conditional write names it by."""

    data: bytes
    tag: str
    generation: str | None = None


class Bucket(Protocol):
    """Objects by name, as `a/b/c`. Threads and processes may share it, but no process may fork after it used one.

    Each raises StoreError where the store fails.
    """

    address: str

    def list(self, prefix: str) -> dict[str, Listed]:
        """The objects below `prefix/`, by their whole names."""

    def read(self, name: str) -> Stored | None:
        """A small object; None if there is none."""

    def swap(self, name: str, data: bytes, expected: Stored | None) -> None:
        """Put an object in place of the `expected` one, None: of none. Raises Changed if it isn't that any more."""

    def upload(self, name: str, path: Path) -> None:
        """Put a file's content, whole or not at all."""

    def download(self, name: str, path: Path) -> bool:
        """Write an object to a file in a folder that is there, whole or not at all. False: there is no such object."""

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""


def open_bucket(address: str) -> Bucket:
    """The bucket at `s3://bucket/prefix`, `gs://...`, `az://...`, `file:///folder`, or a folder's path.

    Raises StoreError if the address can't be one.
    """
    protocol, separator, path = address.partition("://")
    if not separator or protocol == "file":
        return FolderBucket(Path(path if separator else address))
    if protocol not in VARIABLES:
        known = ", ".join(f"{name}://" for name in (*VARIABLES, "file"))
        raise StoreError(f"{address} isn't an address of a store. It may begin with {known}, or be a folder's path.")
    if not path.partition("/")[0]:
        raise StoreError(f"{address} names no bucket. Write {protocol}://BUCKET/PREFIX.")
    return CloudBucket(address)


def check_conditions(bucket: Bucket) -> None:
    """Write to a bucket, and make sure that conditional writes are. Raises StoreError if not."""
    name = f"{_PROBES}/{secrets.token_hex(8)}"
    try:
        bucket.swap(name, b"first", None)
        first = bucket.read(name)
        if first is None or first.data != b"first":
            raise StoreError(f"{bucket.address} doesn't keep what is written there.")
        bucket.swap(name, b"second", first)
        for stale in (None, first):
            with suppress(Changed):
                bucket.swap(name, b"third", stale)
                raise StoreError(
                    f"{bucket.address} ignores conditional writes (If-Match, If-None-Match), so that of two hosts that "
                    "promote at once one would be lost without a word. Use a store that has them, as S3 and MinIO do."
                )
    except Changed:
        raise StoreError(f"{bucket.address} refuses conditional writes (If-Match) that it should do.") from None
    finally:
        with suppress(StoreError):
            bucket.delete(name)


class FolderBucket:
    """A folder that all hosts see, with locks between them (`flock`)."""

    def __init__(self, root: Path) -> None:
        self.address = str(root)
        self._root = root

    def list(self, prefix: str) -> dict[str, Listed]:
        """As `Bucket.list`."""
        with self._told():
            return dict(self._walk(self._root / prefix))

    def read(self, name: str) -> Stored | None:
        """As `Bucket.read`."""
        with suppress(FileNotFoundError), self._told():
            data = (self._root / name).read_bytes()
            return Stored(data, sha256(data))
        return None

    def swap(self, name: str, data: bytes, expected: Stored | None) -> None:
        """As `Bucket.swap`."""
        with self._told(), exclusive(self._root / _LOCKS / sha256(name.encode())[:2]):
            there = self.read(name)
            if (there and there.tag) != (expected and expected.tag):
                raise Changed
            atomic_write(self._root / name, data)

    def upload(self, name: str, path: Path) -> None:
        """As `Bucket.upload`."""
        target = self._root / name
        with self._told():
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as source, atomic_file(target) as file:
                shutil.copyfileobj(source, file, _CHUNK)

    def download(self, name: str, path: Path) -> bool:
        """As `Bucket.download`."""
        with suppress(FileNotFoundError), self._told(), (self._root / name).open("rb") as source:
            with atomic_file(path) as file:
                shutil.copyfileobj(source, file, _CHUNK)
            return True
        return False

    def delete(self, name: str) -> None:
        """As `Bucket.delete`."""
        with self._told():
            (self._root / name).unlink(missing_ok=True)
            with suppress(OSError):
                (self._root / name).parent.rmdir()

    def _walk(self, folder: Path) -> Iterator[tuple[str, Listed]]:
        for path in folder.rglob("*"):
            # Hidden ones aren't whole yet; others may be gone by now.
            with suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith("."):
                    stat = path.stat()
                    tag = f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"
                    written = datetime.fromtimestamp(stat.st_mtime, UTC)
                    yield path.relative_to(self._root).as_posix(), Listed(tag, stat.st_size, written)

    @contextmanager
    def _told(self) -> Iterator[None]:
        # Else a share that isn't mounted would be taken for an empty store.
        if not self._root.is_dir():
            raise StoreError(f"There is no folder {self._root}. Mount it or make it, or correct RIS_STORE.")
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{self._root} can't be used ({error.strerror}). Check its owner and its disk.") from error


class CloudBucket:
    """A prefix of a bucket of S3, GCS or Azure."""

    # In a process that forked from one that used obstore, its threads are missing: a request would wait for ever.
    _used_by: int | None = None

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._protocol = address.partition("://")[0]
        self._stores: dict[bool, Any] = {}

    def list(self, prefix: str) -> dict[str, Listed]:
        """As `Bucket.list`."""
        with self._told():
            pages = obstore.list(self._store(), f"{prefix}/")
            return {
                meta["path"]: Listed(str(meta["e_tag"]), meta["size"], meta["last_modified"])
                for page in pages
                for meta in page
            }

    def read(self, name: str) -> Stored | None:
        """As `Bucket.read`."""
        with suppress(FileNotFoundError), self._told():
            result = obstore.get(self._store(), name)
            return Stored(bytes(result.bytes()), str(result.meta["e_tag"]), result.meta["version"])
        return None

    def swap(self, name: str, data: bytes, expected: Stored | None) -> None:
        """As `Bucket.swap`."""
        named = {"e_tag": expected.tag, "version": expected.generation} if expected else {}
        mode = {key: value for key, value in named.items() if value} or "create"
        with self._told():
            try:
                obstore.put(self._store(), name, data, mode=cast("PutMode", mode), use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                raise Changed from None
            except FileNotFoundError as error:
                # It was to be replaced, and is gone; or the bucket is.
                if expected and not cause(self._protocol, str(error)):
                    raise Changed from None
                raise

    def upload(self, name: str, path: Path) -> None:
        """As `Bucket.upload`."""
        with self._told():
            obstore.put(self._store(patient=True), name, path)

    def download(self, name: str, path: Path) -> bool:
        """As `Bucket.download`."""
        with suppress(FileNotFoundError), self._told():
            chunks = obstore.get(self._store(patient=True), name).stream(_CHUNK)
            with atomic_file(path) as file:
                for chunk in chunks:
                    file.write(chunk)
            return True
        return False

    def delete(self, name: str) -> None:
        """As `Bucket.delete`."""
        with suppress(FileNotFoundError), self._told():
            obstore.delete(self._store(), name)

    def _store(self, patient: bool = False) -> Any:
        if CloudBucket._used_by not in (None, os.getpid()):
            raise RuntimeError("This process was forked from one that had used the store already.")
        CloudBucket._used_by = os.getpid()
        if patient not in self._stores:
            patience, retries = (_PATIENT, _PATIENT_RETRIES) if patient else (_QUICK, _QUICK_RETRIES)
            options = client_options(cast(Literal["s3"], self._protocol), patience)
            self._stores[patient] = from_url(self.address, client_options=options, retry_config=retries)
        return self._stores[patient]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise StoreError(self._sentence(f"{type(error).__name__}: {error}")) from error
        except FileNotFoundError as error:
            # What callers expect to be missing is an object, not the bucket.
            if cause(self._protocol, str(error)):
                raise StoreError(self._sentence(str(error))) from error
            raise

    def _sentence(self, said: str) -> str:
        if known := cause(self._protocol, said):
            return f"The store {self.address} can't be used: {known}."
        return f"The store {self.address} can't be used. It says: {said.splitlines()[0][:300]}"
