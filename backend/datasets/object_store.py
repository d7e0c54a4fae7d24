"""Objects under one prefix of a store that fsspec reaches; S3, GCS and Azure through obstore. Knows no export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import fsspec
from obstore.exceptions import BaseError
from obstore.fsspec import FsspecStore

from backend.errors import PublishError
from backend.store.cloud import VARIABLES, cause, client_options

if TYPE_CHECKING:
    from obstore.store import RetryConfig

# Chunks of a large object on their way at once; as many objects are.
_PARTS, _LEAST_PART, _MOST_PARTS = 4, 5 << 20, 9_000
_RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
# All parts share a line that may be slow: a request may take long, as long as the connection stands.
_PATIENCE = {"connect_timeout": "10s", "timeout": "15m"}
PROTOCOLS = ("file", "memory", *VARIABLES)


class ObjectStore:
    """Reads, writes, lists and deletes by names relative to the prefix. Threads may share it.

    Everything here raises PublishError, which says what the store said.
    """

    def __init__(self, address: str) -> None:
        """address: `protocol://bucket/prefix`, the protocol one of PROTOCOLS, but not file."""
        self.address = address.rstrip("/")
        self._files: Any
        self._protocol, _, path = address.partition("://")
        if self._protocol not in VARIABLES:
            self._files = fsspec.filesystem(self._protocol)
            self._root = self._files._strip_protocol(address).rstrip("/")
            return
        if not path.partition("/")[0]:
            raise PublishError(f"{address} names no bucket. Write {self._protocol}://BUCKET/PREFIX.")
        self._files = _Cloud(
            cast(Literal["s3"], self._protocol),
            retry_config=_RETRIES,
            client_options=client_options(self._protocol, _PATIENCE),
        )
        self._root = path.rstrip("/")

    def sizes(self) -> dict[str, int]:
        """The names under the prefix -> bytes."""
        with self._told():
            self._files.invalidate_cache()
            objects = self._files.find(self._root, detail=True)
        return {path[len(self._root) :].lstrip("/"): int(about.get("size", 0)) for path, about in objects.items()}

    def read(self, name: str) -> bytes | None:
        """An object's content; nothing if there is no such object."""
        with self._told(), suppress(FileNotFoundError):
            return cast(bytes, self._files.cat_file(self._path(name)))
        return None

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes] | None]:
        """An object to read here and there in; nothing if there is no such object."""
        with ExitStack() as stack:
            file = None
            with self._told(), suppress(FileNotFoundError):
                if self._files.info(self._path(name))["type"] == "file":
                    file = stack.enter_context(self._files.open(self._path(name), "rb"))
            with self._told():
                yield file

    def write(self, name: str, data: bytes) -> None:
        """Put an object, whole or not at all."""
        with self._told():
            self._files.pipe_file(self._path(name), data)

    def upload(self, name: str, path: Path) -> None:
        """Put a file's content, whole or not at all, some 20 MB or 1/2000 of it in memory."""
        with self._told():
            self._files.put_file(str(path), self._path(name))

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._told(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise PublishError(self._sentence(f"{type(error).__name__}: {error}")) from error
        except FileNotFoundError as error:
            if self._protocol not in VARIABLES:
                raise
            raise PublishError(self._sentence(str(error))) from error

    def _sentence(self, said: str) -> str:
        if known := cause(self._protocol, said):
            return f"{self.address} can't be published to: {known}."
        return f"{self.address} can't be published to. The store says: {said.splitlines()[0][:300]}"


class _Cloud(FsspecStore):
    """obstore's file system, but for parts that grow with the file: S3 takes 10,000 of them."""

    # The environment may have changed since the last one was made.
    cachable = False

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **_: Any) -> None:
        bucket, key = self._split_path(rpath)
        part = max(_LEAST_PART, Path(lpath).stat().st_size // _MOST_PARTS)
        store = self._construct_store(bucket)
        await store.put_async(key, Path(lpath), chunk_size=part, max_concurrency=_PARTS)
