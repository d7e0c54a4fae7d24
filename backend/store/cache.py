"""The versions that are on this host, each whole and as the store has it; and the cards of all. Knows no pointer.

    <root>/project-7/cards/<name>/<upload>/     the small files of each version: what it is, and where from
    <root>/project-7/versions/<name>/           versions that were needed here
    <root>/.arriving/                           locks of what is being fetched, and copies that are being shared

Any number of threads and processes may fetch at once: one does, the others wait for it. Killed, it leaves a hidden
folder, which the next one that fetches the version removes.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from backend.locks import exclusive
from backend.registry import RECORD as CARD
from backend.registry import Version
from backend.store.bucket import Bucket, StoreDamaged
from backend.store.record import Entry, Record, upload_prefix
from ris_core import checkpoint_files
from ris_core.files import atomic_dir, sha256

_log = logging.getLogger(__name__)

# A version that wasn't used for so long is evicted.
IDLE_SECONDS = 86_400.0
_TOUCH_SECONDS = 3_600.0
_SMALL = (CARD, checkpoint_files.CONFIG)
_CARDS = "cards"


class VersionCache:
    """Folders of versions below a registry's root."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        self._root, self._bucket = root, bucket

    def folder(self, project: int, name: str) -> Path:
        """Where a version is if it is here."""
        return self._versions(project) / name

    def has(self, project: int, name: str) -> bool:
        """Whether a version is here."""
        return self.folder(project, name).exists()

    def listed(self, project: int, name: str, entry: Entry) -> Version:
        """A version with its card; its folder is that of its card where its files aren't here.

        Raises FileNotFoundError if its card isn't here.
        """
        card = self._card(project, name, entry)
        content = json.loads((card / CARD).read_bytes())
        return Version(name, self.folder(project, name) if self.has(project, name) else card, content)

    def fetch_card(self, project: int, name: str, entry: Entry) -> None:
        """Have a version's card here. Raises StoreError, StoreDamaged."""
        folder = self._card(project, name, entry)
        if not folder.exists():
            with atomic_dir(folder) as temporary:
                self._arrive(project, name, entry, _SMALL, temporary)

    def fetch(self, project: int, name: str, entry: Entry) -> None:
        """Have a version's files here, each with the content that the record says. Raises StoreError, StoreDamaged."""
        folder = self.folder(project, name)
        if not folder.exists():
            with exclusive(self.arriving() / f"{project}-{name}.lock"):
                for left in folder.parent.glob(f".{name}.*"):
                    shutil.rmtree(left, ignore_errors=True)
                if not folder.exists():
                    with atomic_dir(folder) as temporary:
                        self._arrive(project, name, entry, entry.files, temporary)
                    _log.info("Version %s of project %s was fetched from the store.", name, project)
        if time.time() - folder.stat().st_mtime > _TOUCH_SECONDS:
            os.utime(folder)

    def evict(self, project: int, record: Record) -> None:
        """Delete what is here of versions that no longer exist, and of those that nobody used for long."""
        named = {record.pointer.version, *record.pointer.earlier[-1:]} if record.pointer else set()
        for folder in self._versions(project).glob("[!.]*"):
            is_idle = time.time() - folder.stat().st_mtime > IDLE_SECONDS and folder.name not in named
            if is_idle or folder.name not in record.versions:
                gone = folder.with_name(f".{folder.name}.evicted")
                with suppress(OSError):
                    folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
        for folder in (self._versions(project).parent / _CARDS).glob("*/*"):
            entry = record.versions.get(folder.parent.name)
            if entry is None or entry.upload != folder.name:
                shutil.rmtree(folder, ignore_errors=True)

    def arriving(self) -> Path:
        """A folder for what isn't in its place yet."""
        folder = self._root / ".arriving"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _arrive(self, project: int, name: str, entry: Entry, files: Collection[str], folder: Path) -> None:
        for file in files:
            address = f"{upload_prefix(project, name, entry)}/{file}"
            # What was damaged on its way isn't the second time.
            for _ in range(2):
                if not self._bucket.download(address, folder / file):
                    raise StoreDamaged(f"{self._bucket.address}/{address} is missing. Promote another version.")
                if sha256(folder / file) == entry.files.get(file):
                    break
            else:
                raise StoreDamaged(
                    f"{self._bucket.address}/{address} isn't what was put there. Bring it back from an earlier version "
                    "of the object or a copy, or promote another version."
                )

    def _card(self, project: int, name: str, entry: Entry) -> Path:
        return self._versions(project).parent / _CARDS / name / entry.upload

    def _versions(self, project: int) -> Path:
        return self._root / f"project-{int(project)}" / "versions"
