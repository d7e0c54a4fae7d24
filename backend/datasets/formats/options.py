"""What all formats are told about how to write."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.datasets.dataset import DatasetImage
from ris_core.images import read_image, write_image

ImageFiles = Literal["copy", "link", "leave"]
"""Files of their own, second names of the kept ones (which nobody may edit), or none."""


@dataclass(frozen=True)
class ExportOptions:
    """images: how picture files get into the export. tolerance: how far a polygon may be off an outline, in pixels."""

    images: ImageFiles = "copy"
    tolerance: float = 0.0

    def place(self, image: DatasetImage, target: Path) -> None:
        """Put a picture's file where the format wants it; its folder is made."""
        if self.images == "leave":
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.images == "link":
            link(image.path, target)
        else:
            shutil.copyfile(image.path, target)

    def place_as(self, image: DatasetImage, target: Path) -> bool:
        """The same; saved anew if the target's suffix, .jpg or .png, is another's. Returns whether it was."""
        if self.images == "leave" or _kind(image.file_name) == _kind(target.name):
            self.place(image, target)
            return False
        write_image(target, read_image(image.path))
        return True


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower()
    return ".jpg" if suffix in (".jpeg", ".jpe", ".jfif") else suffix
