"""What a trainer on another host needs to go on: ledgers and the newest snapshot of a project, in a store.

    learning/7/changes.json, categories.json    as `backend.home` says; the last trainer's
    snapshots/7/<id>/                           its documents, the manifest last: it exists once that is there
    pictures/7/<digest>                         the pictures of all of them, each once

Whoever calls holds the project's turn of learning, so nobody else writes here. The id of a snapshot is the SHA-256 of
its manifest, which has that of every file: what arrives is compared with it.
"""

import secrets
from collections.abc import Collection
from pathlib import Path

from backend.datasets.formats.options import link
from backend.datasets.snapshots import MANIFEST, parse_manifest, snapshots
from backend.home import categories_file, edits_file, pictures_folder, snapshots_folder
from backend.store.bucket import Bucket, StoreDamaged
from ris_core.files import atomic_dir, sha256

_LEDGERS = {"changes.json": edits_file, "categories.json": categories_file}
_IMAGES = "images/"


class SharedLearningState:
    """A home's ledgers and snapshots, and those of a store. Each method raises StoreError."""

    def __init__(self, bucket: Bucket, home: Path) -> None:
        self._bucket, self._home = bucket, home

    def fetch(self, project: int, snapshot: str | None = None) -> None:
        """Bring the ledgers here, the newest snapshot, and the one named if there is one.

        Raises StoreDamaged if something isn't what was put there.
        """
        for name, path_of in _LEDGERS.items():
            path = path_of(self._home, project)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._bucket.download(f"learning/{int(project)}/{name}", path)
        for identity in {self._newest(project), snapshot} & self._identities(project).keys():
            self._fetch_snapshot(project, str(identity))

    def keep(self, project: int) -> None:
        """Put the ledgers and the newest snapshot into the store."""
        for name, path_of in _LEDGERS.items():
            path = path_of(self._home, project)
            if path.exists():
                self._bucket.upload(f"learning/{int(project)}/{name}", path)
        folders = snapshots(self._home, project)
        if folders and folders[0].name != self._newest(project):
            self._keep_snapshot(project, folders[0])

    def prune(self, project: int, named: Collection[str]) -> None:
        """Delete the snapshots but the newest and those named, and the pictures that none of them has."""
        newest, pictures = self._newest(project), set[str]()
        for identity in self._identities(project):
            if identity in named or identity == newest:
                pictures |= {digest for name, digest in self._manifest(project, identity)[0].items() if _is_image(name)}
            else:
                # The manifest goes first: from then on there is no snapshot.
                self._bucket.delete(f"{_snapshot(project, identity)}/{MANIFEST}")
        left = set(self._identities(project))
        for name in self._bucket.list(f"snapshots/{int(project)}"):
            if name.split("/")[2] not in left:
                self._bucket.delete(name)
        for name in self._bucket.list(f"pictures/{int(project)}"):
            if name.rpartition("/")[2] not in pictures:
                self._bucket.delete(name)

    def _fetch_snapshot(self, project: int, identity: str) -> None:
        folder = snapshots_folder(self._home, project) / identity
        if folder.exists():
            return
        files, manifest = self._manifest(project, identity)
        with atomic_dir(folder) as temporary:
            (temporary / _IMAGES).mkdir()
            for name, digest in files.items():
                if _is_image(name):
                    link(self._picture(project, digest), temporary / name)
                else:
                    self._arrive(f"{_snapshot(project, identity)}/{name}", temporary / name, digest)
            (temporary / MANIFEST).write_bytes(manifest)

    def _picture(self, project: int, digest: str) -> Path:
        path = pictures_folder(self._home) / digest[:2] / digest
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            arriving = path.with_suffix(f".{secrets.token_hex(4)}")
            self._arrive(_picture(project, digest), arriving, digest)
            arriving.replace(path)
        return path

    def _arrive(self, name: str, path: Path, digest: str) -> None:
        if not self._bucket.download(name, path):
            raise StoreDamaged(f"{self._bucket.address}/{name} is missing. Delete its snapshot there, and learn again.")
        if sha256(path) != digest:
            path.unlink()
            raise StoreDamaged(
                f"{self._bucket.address}/{name} isn't what was put there. Delete its snapshot there, and learn again."
            )

    def _keep_snapshot(self, project: int, folder: Path) -> None:
        manifest = (folder / MANIFEST).read_bytes()
        files = parse_manifest(manifest)
        assert files is not None
        there = self._bucket.list(f"pictures/{int(project)}")
        for name, digest in files.items():
            if not _is_image(name):
                self._bucket.upload(f"{_snapshot(project, folder.name)}/{name}", folder / name)
            elif _picture(project, digest) not in there:
                self._bucket.upload(_picture(project, digest), folder / name)
        self._bucket.upload(f"{_snapshot(project, folder.name)}/{MANIFEST}", folder / MANIFEST)

    def _newest(self, project: int) -> str | None:
        written = self._identities(project)
        return max(written, key=lambda identity: (written[identity], identity)) if written else None

    def _identities(self, project: int) -> dict[str, float]:
        """The snapshots that are whole -> when they became that, in seconds."""
        listed = self._bucket.list(f"snapshots/{int(project)}")
        return {
            name.split("/")[2]: about.written.timestamp()
            for name, about in listed.items()
            if name.endswith(f"/{MANIFEST}")
        }

    def _manifest(self, project: int, identity: str) -> tuple[dict[str, str], bytes]:
        stored = self._bucket.read(f"{_snapshot(project, identity)}/{MANIFEST}")
        files = parse_manifest(stored.data) if stored and sha256(stored.data) == identity else None
        if stored is None or files is None:
            where = f"{self._bucket.address}/{_snapshot(project, identity)}"
            raise StoreDamaged(f"{where}/{MANIFEST} isn't what was put there. Delete {where}, and learn again.")
        return files, stored.data


def _snapshot(project: int, identity: str) -> str:
    return f"snapshots/{int(project)}/{identity}"


def _picture(project: int, digest: str) -> str:
    return f"pictures/{int(project)}/{digest}"


def _is_image(name: str) -> bool:
    return name.startswith(_IMAGES)
