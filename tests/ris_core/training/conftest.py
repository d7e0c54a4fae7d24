"""Shared by the tests of training: a few photos, and what the untrained model's encoder makes of their views."""

from __future__ import annotations

from pathlib import Path

import pytest
import shapes


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder of six photos."""
    return shapes.make(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that runs share: views that come again are encoded once for all tests."""
    return tmp_path_factory.mktemp("features")
