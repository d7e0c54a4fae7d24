"""Label Studio's images and another host's, for the tests of what fetches them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.labelstudio.images import ImageResolver

from .image_sources import PHOTO, Studio, resolver
from .site import Answer, Site, serve


@pytest.fixture
def studio() -> Studio:
    return Studio()


@pytest.fixture
def label_studio(studio: Studio) -> Iterator[Site]:
    with serve(studio) as site:
        yield site


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """Another host, at a private address that is allowed: photos.example, any port."""
    with serve(lambda _: Answer(200, PHOTO)) as site:
        yield site


@pytest.fixture
def images(label_studio: Site, tmp_path: Path) -> ImageResolver:
    return resolver(label_studio, tmp_path)
