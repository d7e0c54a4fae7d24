"""Images kept once each, however often they are saved anew."""

from __future__ import annotations

import shutil
from pathlib import Path

from small_project import photo, saved_anew

from backend.datasets.image_store import ImageStore


def test_images_kept_before_are_told_apart_too(tmp_path: Path) -> None:
    """A store that was written without the digests of pixels."""
    store = ImageStore(tmp_path)
    first = store.add(photo(1))
    shutil.rmtree(tmp_path / "pixels")
    first.path.with_suffix(".original").unlink()
    assert store.add(photo(1)) == first
    assert store.add(saved_anew(1)).original == first.original == first.digest
    assert store.add(photo(2)).original != first.original
