"""Corrections that want a second look: what makes one suspicious, what is shown of it, and planted errors found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, snapshot
from PIL import Image

from backend.cli import label_errors
from backend.cli.label_errors import _judge, find_suspects, show_suspects
from backend.projects.samples import corrections, photos
from backend.settings import Settings
from ris_core import checkpoint_files
from ris_core.data import Sample
from ris_core.errors import DatasetError
from ris_core.evaluation.metrics import Score
from ris_core.inference.predictor import Predictor
from ris_core.masks import encode_rle


@pytest.mark.parametrize(
    ("score", "says", "iou", "suspicion"),
    [
        (Score(8, 10, True, False, 0.9), "another mask", 0.8, 0.18),
        (Score(0, 10, True, False, 0.9), "another mask", 0.0, 0.9),
        (Score(0, 10, True, False, 0.2), "another mask", 0.0, 0.2),
        (Score(0, 10, True, True, 0.9), "absent", None, 0.9),
        (Score(0, 10, False, False, 0.9), "there", None, 0.9),
        (Score(0, 0, False, True, 0.9), "absent", None, 0.0),
    ],
    ids=["agreed", "elsewhere", "unsure", "refused", "drawn nowhere", "agreed absent"],
)
def test_what_is_sure_and_otherwise_is_suspicious(score: Score, says: str, iou: float | None, suspicion: float) -> None:
    suspect = _judge(Sample(Path("photo.jpg"), 5, 0, "train", "the cat", 10, 20, ()), score)
    assert (suspect.task, suspect.prompt, suspect.says, suspect.iou) == (5, "the cat", says, iou)
    assert suspect.suspicion == pytest.approx(suspicion)


def show(settings: Settings, capsys: pytest.CaptureFixture[str], pictures: Path | None = None) -> dict[str, Any]:
    show_suspects(settings, PROJECT, 6, pictures, as_json=True)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def settings(make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A project whose version in production finds whatever it is asked for, all over the photo."""
    monkeypatch.setenv("COLUMNS", "300")
    settings = make_settings(label_studio_url="http://label.studio")
    finds = random_checkpoint(tmp_path / "finds")
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: finds)
    # Random weights are sure of nothing.
    monkeypatch.setattr(label_errors, "LEAST", 0.0)
    return settings


def test_the_newest_snapshot_is_looked_through_the_worst_first(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = snapshot(settings.home)
    found = show(settings, capsys, tmp_path / "pictures")
    assert (found["snapshot"], found["corrections"]) == (made.id, 6)
    listed = found["suspects"]
    # The cat fills the right half of five photos, and isn't in the sixth.
    assert (listed[0]["task"], listed[0]["says"], listed[0]["iou"]) == (6, "there", None)
    assert all(each["says"] == "another mask" and each["iou"] == pytest.approx(0.5) for each in listed[1:])
    assert [each["suspicion"] for each in listed] == sorted((each["suspicion"] for each in listed), reverse=True)
    assert listed[0]["link"] == f"http://label.studio/projects/{PROJECT}/data?task=6"
    assert found["pictures"] == [str(tmp_path / "pictures" / "suspects-1.jpg")]
    with Image.open(found["pictures"][0]) as sheet:
        assert sheet.width > 600


def test_people_get_a_table_with_links(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot(settings.home)
    show_suspects(settings, PROJECT, 1, None, as_json=False)
    printed = capsys.readouterr().out
    assert f"Look at http://label.studio/projects/{PROJECT}/data?task=6\n" in printed
    assert "task=1" not in printed


def test_where_nothing_is_annotated_it_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(DatasetError, match="ris finetune"):
        show_suspects(settings, PROJECT, 1, None, as_json=False)


def test_exchanged_masks_of_a_real_photo_come_first(tmp_path: Path) -> None:
    name, content = next(iter(photos()))
    file = tmp_path / name
    file.write_bytes(content)
    drawn = [each for each in corrections() if each.photo == name]
    samples = [
        Sample(file, number, number, "train", each.prompts[0], *each.mask().shape, (encode_rle(each.mask()),))
        for number, each in enumerate(drawn)
    ]
    predictor = Predictor.load()
    # What it gets right and is sure of, or else nothing could be told from it.
    best, sample = max(find_suspects(predictor, samples), key=lambda pair: pair[0].score - pair[0].suspicion)
    other = next(each for each in samples if each is not sample)
    planted = [replace(each, segmentations=other.segmentations) if each is sample else each for each in samples]
    # One of the others it refuses, wrongly, and is surer of that.
    assert best.task in [suspect.task for suspect, _ in find_suspects(predictor, planted)[:2]]
