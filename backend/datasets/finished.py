"""A finished export: a folder whose manifest vouches for every file in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.datasets.snapshots import MANIFEST, read_manifest, verify
from ris_core.errors import DatasetError


@dataclass(frozen=True)
class FinishedExport:
    """files: names relative to the folder -> SHA-256, by name; the manifest, whose bytes are beside, isn't among them.

    An export takes the place of an earlier one as a whole, at any time; `check_unchanged` tells.
    """

    folder: Path
    files: Mapping[str, str]
    manifest: bytes

    @classmethod
    def read(cls, folder: Path) -> "FinishedExport":
        """Read every file once. Raises DatasetError if one is missing, or isn't what the manifest says."""
        if not folder.is_dir():
            raise DatasetError(
                f"There is no export at {folder}. If the workers run on another machine, publish it from there."
            )
        export = cls(folder, dict(sorted(read_manifest(folder).items())), (folder / MANIFEST).read_bytes())
        verify(folder)
        export.check_unchanged()
        return export

    def path(self, name: str) -> Path:
        """Where a file of it lies."""
        return self.folder / name

    def size(self, name: str) -> int:
        """Bytes."""
        return self.path(name).stat().st_size

    def check_unchanged(self) -> None:
        """Raise DatasetError if another export has taken the folder's name since this one was read."""
        path = self.folder / MANIFEST
        if not path.is_file() or path.read_bytes() != self.manifest:
            raise DatasetError(f"{self.folder} was exported anew meanwhile. Publish it again.")
