"""What is descended on is the same however views came by their trunk, and a teacher's answer where there is one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training.runs import CACHED, RECIPE, are_equal, weights_of

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import read_folder
from ris_core.encoders import image_encoder, text_encoder
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA
from ris_core.training.batches import RECALLED
from ris_core.training.loop import train
from ris_core.training.run_folder import read_metrics


def test_views_taken_from_the_cache_teach_the_same(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start = read_folder(folder), weights_of(untrained)
    recipe = replace(RECIPE, views=2)
    results = []
    for run in ("cold", "warm"):
        untrained.load_state_dict(start)
        if results:
            shutil.copytree(tmp_path / "cold" / "features", tmp_path / "warm" / "features")
        train(untrained, samples, recipe, tmp_path / run)
        results.append(weights_of(untrained))
    files = [len(list((tmp_path / run / "features").rglob("*.safetensors"))) for run in ("cold", "warm")]
    assert files == [12, 12]
    assert are_equal(*results)


def test_half_precision_learns_alike(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples, start, losses = read_folder(folder), weights_of(untrained), []
    for precision in ("float32", "bfloat16"):
        untrained.load_state_dict(start)
        train(untrained, samples, replace(RECIPE, precision=precision), tmp_path / precision)
        losses.append([line["loss"] for line in read_metrics(tmp_path / precision)])
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]


def test_a_teacher_is_answered_alike(untrained: LDA, folder: Path, features: Path, tmp_path: Path) -> None:
    """What a model says to expressions of which nobody said anything comes back to what its teacher says."""
    samples = [replace(sample, segmentations=(), kind=RECALLED) for sample in read_folder(folder)]
    teacher = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"))
    teacher.load_state_dict(untrained.state_dict())
    with torch.no_grad():
        untrained.to_mask.bias += 2.0
    start = weights_of(untrained)

    def difference() -> float:
        both = [Predictor(model, OperatingPoint(side=96), "test") for model in (untrained, teacher)]
        image, sentences = samples[0].photo(), [samples[0].sentence, samples[1].sentence]
        ours, theirs = (predictor.predict_raw([(predictor.embed(image), sentences)]) for predictor in both)
        gaps = [np.abs(one.probability - other.probability).mean() for one, other in zip(ours, theirs, strict=True)]
        return float(np.mean(gaps))

    before = difference()
    recipe = replace(CACHED, epochs=6, rate=1e-2)
    train(untrained, samples, recipe, tmp_path, features=features, teacher=teacher)
    assert not torch.equal(untrained.to_mask.bias, start["to_mask.bias"])
    assert difference() < 0.5 * before
