"""The stand-in for a published model: the same numbers each time, and never where a fetched one is looked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ris_core import segmenters
from ris_core.checkpoint_files import pointer_folder, version
from ris_core.zero_shot.stand_in import stand_in


def test_made_again_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    first = version(stand_in(tmp_path / "first"))
    shutil.rmtree(tmp_path / "cache")
    assert version(stand_in(tmp_path / "second")) == first
    # The pointer from before means the weights that were made again.
    segmenter = segmenters.load(tmp_path / "first")
    assert segmenter.version == first
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    one, other = segmenter.predict_raw([(segmenter.embed(image), ["the cat", "a cup"])])
    assert not np.array_equal(one.probability, other.probability)
    assert not pointer_folder("clipseg").exists()
