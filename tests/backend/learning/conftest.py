"""Shared by the tests of learning: a project in a stand-in for Label Studio, without tasks at first."""

from collections.abc import Iterator

import pytest
from labelstudio.site import Site
from studio import TOKEN, Studio

from backend.labelstudio.client import LabelStudio


@pytest.fixture
def studio() -> Studio:
    return Studio([])


@pytest.fixture
def client(site: Site) -> Iterator[LabelStudio]:
    with LabelStudio(site.url, TOKEN) as client:
        yield client
