"""Tiny published models, made once a process."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from zero_shot import tiny

from ris_core.zero_shot.segmenter import ZeroShotSegmenter


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny weights are kept; `RIS_CACHE` of who loads them by name."""
    return tmp_path_factory.mktemp("zero-shot")


@pytest.fixture(scope="session")
def segmenter(tiny_cache: Path) -> Callable[[str], ZeroShotSegmenter]:
    """By the catalogue's names, in float32."""
    return cache(lambda name: tiny.load(name, tiny_cache))
