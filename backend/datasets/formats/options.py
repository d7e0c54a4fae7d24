"""What all formats are told about how to write."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.datasets.dataset import DatasetImage

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


def link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
