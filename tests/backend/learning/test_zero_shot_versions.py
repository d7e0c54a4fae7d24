"""Every zero-shot segmenter as a version: promoted, taken back, compared, over tiny weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from squares import annotated_studio
from studio import PROJECT, running
from zero_shot import tiny

from backend.datasets.project import read_project, snapshot_project
from backend.errors import NotFound
from backend.learning.comparison import compare
from backend.learning.versions import promote, prune, rollback
from backend.registry import Registry
from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import CheckpointError
from ris_core.models.lda import LDA, LDAOptions


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With a snapshot to compare on."""
    home = tmp_path_factory.mktemp("home")
    with running(annotated_studio(), home / "images") as (client, images, _):
        snapshot_project(read_project(client, PROJECT, home), images, home)
    yield home


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(rates=(1,), width=32))
    folder = tmp_path_factory.mktemp("small") / "base"
    checkpoint.save(model, OperatingPoint(side=96), folder, "card")
    return folder


@pytest.mark.parametrize("name", tiny.names())
def test_it_is_promoted_compared_taken_back_and_pruned(
    name: str, home: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "models", small)
    base = registry.base.name
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError, match="ris fetch"):
        promote(registry, PROJECT, name, None)
    tiny.pointer(name, tmp_path / "cache", OperatingPoint(presence=0.0, instance=0.0))
    change = promote(registry, PROJECT, name, None)
    assert (change.before, change.changed) == (base, True)
    assert change.version.rpartition("-")[0] == name
    assert registry.current(PROJECT).name == change.version
    assert registry.read(PROJECT).start.name == base
    compared = compare(registry, home, PROJECT, (base, name), 4)
    assert [version.name for version in compared.versions] == [base, change.version]
    assert len(compared.answered.expressions) == 4
    assert all(0 <= one.after <= 1 for one in compared.answered.expressions)
    assert rollback(registry, PROJECT, None).version == base
    assert [version.name for version in prune(registry, home, PROJECT, 0, delete=True).versions] == [change.version]
    with pytest.raises(NotFound):
        registry.version(PROJECT, change.version)
