"""A checkpoint's folder is found and named without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ris_core import checkpoint_files
from ris_core.checkpoint import save
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import CheckpointError
from ris_core.models import MODELS
from ris_core.models.lda import LDA
from ris_core.models.vipa import VIPA, VIPAOptions

POINT = OperatingPoint(side=96, mask=0.4, presence=0.3)


@pytest.fixture
def saved(untrained: LDA, tmp_path: Path) -> Path:
    save(untrained, POINT, tmp_path / "model", "# card")
    return tmp_path / "model"


def test_all_designs_are_named() -> None:
    assert set(checkpoint_files.DESIGNS) == set(MODELS)


def test_a_version_is_named_without_torch() -> None:
    code = (
        "import sys\nfrom ris_core import checkpoint_files\nfolder = checkpoint_files.shipped()\n"
        "print(checkpoint_files.version(folder), checkpoint_files.operating_point(folder).side, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    folder = checkpoint_files.shipped()
    point = checkpoint_files.operating_point(folder)
    assert done.stdout == f"{checkpoint_files.version(folder)} {point.side} False\n"


def test_a_model_is_found_by_folder_or_name(saved: Path) -> None:
    assert checkpoint_files.find(None) == checkpoint_files.find("lda") == checkpoint_files.shipped()
    assert checkpoint_files.find(saved) == checkpoint_files.find(str(saved)) == saved


def test_a_design_ships_beside_the_default(
    untrained: LDA, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, beside = tmp_path / "weights", tmp_path / "weights" / "vipa"
    save(untrained, POINT, default, "# card")
    encoders = image_encoder("efficientnet-lite0"), text_encoder("minilm")
    save(VIPA(*encoders, VIPAOptions(width=16)), POINT, beside, "# card")
    monkeypatch.setattr(checkpoint_files, "__file__", str(tmp_path / "ris_core" / "checkpoint_files.py"))
    assert [checkpoint_files.ships(name) for name in ("lda", "vipa", "maris")] == [default, beside, None]
    assert checkpoint_files.find(None) == checkpoint_files.find("lda") == default
    assert checkpoint_files.find("vipa") == beside
    with pytest.raises(CheckpointError, match="ris train --model maris"):
        checkpoint_files.find("maris")
