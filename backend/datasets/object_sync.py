"""An export as objects under a prefix. Only what isn't there yet is uploaded.

Objects have no rename, so the manifest is what makes them an export: while there is one, every object that it names
has the content that it says. Uploading goes in this order, and after any death the next run goes on from there:

1. `.publishing.json` says which names are ours, and the SHA-256 of the objects that are known.
2. What no manifest names is uploaded. An earlier export stays as it is.
3. If contents change under names that the earlier manifest has, that manifest goes: from here to 4 there is no export.
4. The new manifest is put.
5. What only the earlier export had is deleted, and at last `.publishing.json`.

Who read the earlier manifest before 3 and objects after it gets other digests than it says. One process at a time may
publish to a prefix.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from backend.datasets.dataset import compact_json
from backend.datasets.finished import FinishedExport
from backend.datasets.object_store import ObjectStore
from backend.datasets.replacing import check_written_by_export
from backend.datasets.snapshots import MANIFEST, parse_manifest
from backend.errors import PublishError

JOURNAL = ".publishing.json"
_JOURNAL_FORMAT = "ris-studio publishing 1"
_AT_ONCE = 8
# The journal is as long as the manifest: it is written anew after so many files, but not more often than that.
_LEAST_BATCH, _MOST_BATCHES = 500, 20
_UNKNOWN = ""


@dataclass(frozen=True)
class _Remote:
    """What lies under a prefix. sizes: of every object; ours: the names of files that an export wrote there.

    promised: what the manifest says, if there is one; digests: of the objects that are known, none of them missing.
    """

    sizes: Mapping[str, int]
    ours: frozenset[str]
    promised: Mapping[str, str]
    digests: Mapping[str, str]

    def has(self, export: FinishedExport, name: str) -> bool:
        """Whether an object is what the export has under that name."""
        return self.digests.get(name) == export.files[name] and self.sizes[name] == export.size(name)


def check_prefix(store: ObjectStore) -> None:
    """Raise DatasetError if there is anything but an earlier export under the prefix, PublishError if none can look."""
    _look(store)


def synchronise(export: FinishedExport, store: ObjectStore, on_progress: Callable[[int, int], object]) -> None:
    """Make the objects under the prefix the export's. on_progress: (files that are there, files).

    Raises DatasetError if there is anything but an earlier export, and leaves it alone.
    """
    there = _look(store)
    missing = [name for name in export.files if not there.has(export, name)]
    stale = sorted((there.ours & there.sizes.keys()) - export.files.keys())
    on_progress(len(export.files) - len(missing), len(export.files))
    if not missing and not stale and JOURNAL not in there.sizes and store.read(MANIFEST) == export.manifest:
        return
    upload = _Upload(export, store, there, missing, on_progress)
    upload.note()
    upload.send([name for name in missing if name not in there.promised])
    changed = [name for name in missing if name in there.promised]
    if changed:
        store.delete(MANIFEST)
    upload.send(changed)
    export.check_unchanged()
    store.write(MANIFEST, export.manifest)
    for _ in _in_parallel(store.delete, stale):
        pass
    store.delete(JOURNAL)


def _look(store: ObjectStore) -> _Remote:
    sizes = store.sizes()
    if "" in sizes:
        raise PublishError(f"{store.address} is an object itself. Publish to a prefix beside it.")
    manifest = parse_manifest(store.read(MANIFEST) or b"") if MANIFEST in sizes else None
    journal = parse_manifest(store.read(JOURNAL) or b"", _JOURNAL_FORMAT) if JOURNAL in sizes else None
    # While there is a manifest it holds, and the journal may not know all of it yet.
    digests = {**(journal or {}), **(manifest or {})}
    written = {*digests, MANIFEST, JOURNAL} if (manifest, journal) != (None, None) else set()
    # Some tools mark a folder by an empty object.
    check_written_by_export(store.address, (name for name, size in sizes.items() if size), written)
    known = {name: digest for name, digest in digests.items() if name in sizes and digest != _UNKNOWN}
    return _Remote(sizes, frozenset(digests), manifest or {}, known)


class _Upload:
    """Files on their way, and the journal of what is known to lie there."""

    def __init__(
        self,
        export: FinishedExport,
        store: ObjectStore,
        there: _Remote,
        missing: Sequence[str],
        on_progress: Callable[[int, int], object],
    ) -> None:
        self._export, self._store, self._on_progress = export, store, on_progress
        self._left = len(missing)
        self._digests = (
            dict.fromkeys((*there.ours, *export.files), _UNKNOWN)
            | dict(there.digests)
            | dict.fromkeys(missing, _UNKNOWN)
        )
        self._batch = max(_LEAST_BATCH, math.ceil(len(missing) / _MOST_BATCHES))

    def note(self) -> None:
        """Write the journal."""
        self._store.write(JOURNAL, compact_json({"format": _JOURNAL_FORMAT, "files": self._digests}))

    def send(self, names: Sequence[str]) -> None:
        """Upload files, several at once."""
        files = self._export.files
        for start in range(0, len(names), self._batch):
            for name in _in_parallel(self._send, names[start : start + self._batch]):
                self._digests[name] = files[name]
                self._left -= 1
                self._on_progress(len(files) - self._left, len(files))
            self.note()

    def _send(self, name: str) -> None:
        self._store.upload(name, self._export.path(name))


def _in_parallel(action: Callable[[str], None], names: Sequence[str]) -> Iterator[str]:
    """Do it to all names, and yield them in their order as it is done. What it raises ends the rest."""
    executor = ThreadPoolExecutor(_AT_ONCE)
    try:
        for name, _ in zip(names, executor.map(action, names), strict=True):
            yield name
    finally:
        executor.shutdown(cancel_futures=True)
