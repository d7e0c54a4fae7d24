"""Corrections that want a second look: what makes one suspicious, and planted errors found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import snapshot
from PIL import Image

from backend.active_learning import label_errors
from backend.active_learning.label_errors import Suspect, certainties, find_label_errors, find_suspects
from backend.projects.samples import corrections, photos
from ris_core.checkpoint_files import version
from ris_core.data import Sample
from ris_core.evaluation.evaluate import Report
from ris_core.evaluation.metrics import Score
from ris_core.inference.predictor import Predictor
from ris_core.masks import encode_rle, iou


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
    suspect = Suspect.of(Sample(Path("photo.jpg"), 5, 0, "train", "the cat", 10, 20, ()), score, score.expected)
    assert (suspect.task, suspect.prompt, suspect.says, suspect.iou) == (5, "the cat", says, iou)
    assert suspect.suspicion == pytest.approx(suspicion)


def answers(*rows: tuple[str, float, float]) -> Report:
    """Masks for sentences, with the version's own score and the IoU that they came to."""
    samples = [Sample(Path("photo.jpg"), 5, 0, "train", sentence, 10, 20, ()) for sentence, _, _ in rows]
    return Report(samples, [Score(round(100 * iou), 100, True, False, score) for _, score, iou in rows])


def test_a_version_that_is_often_wrong_accuses_nobody() -> None:
    """Sure of all, and right with one sentence: of the other nothing that it says is believed."""
    right, wrong = [("the cat", 0.9, 0.9)] * 20, [("the sky", 0.9, 0.0)] * 20
    believed = certainties(answers(*right, *wrong))
    # The mean on all is 0.45: what its scores are corrected to.
    assert all(certainty == pytest.approx(0.45, abs=0.05) for certainty in believed[:20])
    assert all(certainty < 0.1 for certainty in believed[20:])


def test_one_disagreement_among_many_agreements_is_suspicious() -> None:
    *_, planted = certainties(answers(*[("the cat", 0.9, 0.9)] * 20, ("the cat", 0.9, 0.0)))
    assert planted > 0.8


def test_a_correction_alone_is_not_accused() -> None:
    assert certainties(answers(("the cat", 0.99, 0.0))) == [0.0]
    assert certainties(answers()) == []


def test_what_a_person_accepted_isnt_accused() -> None:
    """It agrees, though it counts as known only so far."""
    score = replace(Score(10, 10, True, False, 0.9), accepted=True)
    assert Suspect.of(Sample(Path("photo.jpg"), 5, 0, "train", "the cat", 10, 20, ()), score, 0.9).suspicion == 0.0


def test_a_snapshot_is_looked_through_the_worst_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a version that finds whatever it is asked for, all over the photo."""
    # Random weights are sure of nothing.
    monkeypatch.setattr(label_errors, "LEAST", 0.0)
    finds, made, heard = random_checkpoint(tmp_path / "finds"), snapshot(tmp_path), []
    errors = find_label_errors(
        finds, made.folder, 6, tmp_path / "pictures", lambda done, total: heard.append((done, total))
    )
    assert (errors.version, errors.snapshot, errors.corrections) == (version(finds), made.id, 6)
    assert heard[-1] == (6, 6)
    first, *others = errors.suspects
    # The cat fills the right half of five photos, and isn't in the sixth.
    assert (first.task, first.says, first.iou) == (6, "there", None)
    assert all(suspect.says == "another mask" and suspect.iou == pytest.approx(0.5) for suspect in others)
    suspicions = [suspect.suspicion for suspect in errors.suspects]
    assert suspicions == sorted(suspicions, reverse=True)
    assert errors.pictures == (tmp_path / "pictures" / "suspects-1.jpg",)
    with Image.open(errors.pictures[0]) as sheet:
        assert sheet.width > 600
    assert find_label_errors(finds, made.folder, 1).suspects == (first,)


def test_little_suspicion_is_not_worth_a_look(tmp_path: Path) -> None:
    assert find_label_errors(random_checkpoint(tmp_path / "finds"), snapshot(tmp_path).folder, 6).suspects == ()


def test_exchanged_masks_of_a_real_photo_come_first(tmp_path: Path) -> None:
    name, content = next(iter(photos()))
    file = tmp_path / name
    file.write_bytes(content)
    drawn = [correction for correction in corrections() if correction.photo == name]
    samples = [
        Sample(file, number, number, "train", row.prompts[0], *row.mask().shape, (encode_rle(row.mask()),))
        for number, row in enumerate(drawn)
    ]
    predictor = Predictor.load()
    # What it gets right and is sure of, or else nothing could be told from it.
    best, sample = max(find_suspects(predictor, samples), key=lambda pair: pair[0].score - pair[0].suspicion)
    other = min(samples, key=lambda candidate: iou(candidate.mask(), sample.mask()))
    planted = [replace(row, segmentations=other.segmentations) if row is sample else row for row in samples]
    # One of the others it refuses, wrongly, and is surer of that.
    assert best.task in [suspect.task for suspect, _ in find_suspects(predictor, planted)[:2]]
