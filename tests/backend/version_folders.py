"""Checkpoint folders of a few bytes, whose weights nobody loads."""

from __future__ import annotations

import json
from pathlib import Path

from ris_core import checkpoint_files
from ris_core.files import sha256


def make_checkpoint(folder: Path, seed: str) -> Path:
    """The files of a checkpoint, as `ris_core.checkpoint` names and describes them."""
    folder.mkdir(parents=True)
    weights = seed.encode() * 1000
    (folder / checkpoint_files.WEIGHTS).write_bytes(weights)
    config = {"format": 2, "model": "lda", "weights": sha256(weights)}
    (folder / checkpoint_files.CONFIG).write_text(json.dumps(config))
    (folder / checkpoint_files.CARD).write_text(f"# {seed}")
    return folder


def assert_whole(folder: Path, name: str) -> None:
    assert checkpoint_files.version(folder) == name
    config = json.loads((folder / checkpoint_files.CONFIG).read_text())
    assert sha256(folder / checkpoint_files.WEIGHTS) == config["weights"]
    assert (folder / checkpoint_files.CARD).is_file()
