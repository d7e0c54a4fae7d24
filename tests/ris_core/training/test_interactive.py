"""Simulated clicks: what is asked of which objects, that it is learnt, and that nothing else of a model moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapes
import torch

from ris_core import checkpoint
from ris_core.checkpoint_files import CARD, OperatingPoint
from ris_core.data import read_folder
from ris_core.data.datasets import Datasets
from ris_core.evaluation.interactive import evaluate_clicks
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA
from ris_core.training.interactive import InteractiveCourse, ObjectPhotos, _Session
from ris_core.training.loop import train_course
from ris_core.training.pipeline import train_clicks_checkpoint
from ris_core.training.processes import Processes
from ris_core.training.recipe import Recipe

RECIPE = Recipe(epochs=1, photos=3, present=2, side=96, rate=3e-3, warm_up=4, average=0.9)
ALONE = Processes(0, 1)


def test_objects_are_asked_for_one_by_one_with_a_sentence_that_means_them(folder: Path) -> None:
    samples = read_folder(folder)
    parts = tuple(segmentation for sample in samples[:2] for segmentation in sample.segmentations)
    both = replace(samples[0], sentence="both", segmentations=parts)
    # Views are cut so that an object may be out of sight.
    batches = [ObjectPhotos([both], replace(RECIPE, present=5), number)[0] for number in range(8)]
    assert max(len(batch.sentences) for batch in batches) == 2
    for batch in batches:
        assert set(batch.sentences) <= {"both"}
        height, width = batch.pixels.shape[2:]
        assert batch.targets.shape == (len(batch.sentences), 1, height // 4, width // 4)
        alone = batch.targets[[not named for named in batch.named]]
        assert (alone > 0.5).sum(dim=0).amax() <= 1 if len(alone) else True
    assert {named for batch in batches for named in batch.named} == {True, False}


def test_all_that_a_name_means_is_asked_for_by_what_the_model_finds(untrained: LDA, folder: Path) -> None:
    """Then there is no click at first, but where the words found nothing."""
    course = InteractiveCourse(untrained, read_folder(folder), RECIPE, ALONE)
    batch = next(iter(course.batches(0, 0)))
    rng = np.random.default_rng(0)
    words = torch.full_like(batch.targets, -1.0)
    words[0] = 1.0
    cells = torch.ones_like(batch.targets)
    session = _Session(batch.targets, cells, words, [True] * len(batch.sentences), rng)
    labels = session.prompts().labels
    assert (labels[0] == -1).all()
    assert all(
        (own >= 0).any() or not torch.isnan(box).any()
        for own, box in zip(labels[1:], session.prompts().boxes[1:], strict=True)
    )
    assert torch.equal(session.prompts().mask, words)


def test_photos_are_shown_as_often_as_wanted(folder: Path) -> None:
    samples = read_folder(folder)
    upright = [sample for sample in samples if sample.height > sample.width and sample.has_target]
    names = sorted({sample.image for sample in upright})

    def shown(number: int) -> list[Path]:
        photos = ObjectPhotos(upright, RECIPE, number, lambda photo: 2.0 if photo == names[0] else 1.0).photos
        return [photo[0].image for photo in photos]

    passes = [shown(number) for number in range(40)]
    # A run that died goes on from the step that it knows: every pass is as long.
    assert {len(images) for images in passes} == {len(names)}
    often = np.mean([images.count(names[0]) for images in passes])
    assert often == pytest.approx(2 * len(names) / (len(names) + 1), abs=0.25)


def test_only_the_interactive_decoder_learns(untrained: LDA, folder: Path) -> None:
    course = InteractiveCourse(untrained, read_folder(folder), RECIPE, ALONE)
    batch = next(iter(course.batches(0, 0)))
    course.loss(batch).backward()
    moved = {name for name, weight in untrained.named_parameters() if weight.grad is not None}
    assert moved and all(name.startswith("interactive.") for name in moved)


def test_a_loss_repeats_with_its_seed(untrained: LDA, folder: Path) -> None:
    course = InteractiveCourse(untrained, read_folder(folder), RECIPE, ALONE)
    batch = next(iter(course.batches(0, 0)))
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(course.loss(batch).item())
    assert losses[0] == losses[1] != losses[2]


def test_shapes_are_learnt_from_clicks(untrained: LDA, folder: Path, tmp_path: Path) -> None:
    samples = [sample for sample in read_folder(folder) if sample.has_target]
    recipe = replace(RECIPE, epochs=25)
    torch.manual_seed(0)
    train_course(untrained, InteractiveCourse(untrained, samples, recipe, ALONE), recipe, tmp_path / "run", ALONE)
    figures = evaluate_clicks(Predictor(untrained, OperatingPoint(side=96), "test"), samples).figures
    assert figures["1 click"] > 0.7
    assert figures["3 clicks"] > 0.8
    assert figures["box"] > 0.7


def test_a_checkpoint_gains_clicks_and_keeps_its_words(untrained: LDA, tmp_path: Path) -> None:
    folder = shapes.make(tmp_path / "shapes", photos=12)
    point = OperatingPoint(side=96, mask=0.5, presence=0.0)
    checkpoint.save(untrained, point, tmp_path / "before", "# Card\n\n## Commands\n```\nris train\n```\n")
    before = Predictor.load(tmp_path / "before")
    told: list[str] = []
    train_clicks_checkpoint(
        str(tmp_path / "before"),
        Datasets.read([folder]),
        tmp_path / "after",
        tmp_path / "run",
        RECIPE,
        lambda stage, done, total, detail="": told.append(stage),
        {folder: 2.0},
    )
    after = Predictor.load(tmp_path / "after")
    assert after.model.interactive is not None
    image = read_folder(folder)[0].photo()
    after.point = replace(after.point, refinement=0.0)
    words = [predictor.predict_raw([(predictor.embed(image), ["the cat"])])[0] for predictor in (before, after)]
    assert np.array_equal(words[0].probability, words[1].probability)
    card = (tmp_path / "after" / CARD).read_text(encoding="utf-8")
    assert f"ris train\nris train-clicks --model {before.version} --dataset data --often data=2.0" in card
    assert {"Training", "Clicking on data val"} <= set(told)


def test_a_version_from_before_clicks_borrows_the_shipped_decoder(untrained: LDA, tmp_path: Path) -> None:
    checkpoint.save(untrained, OperatingPoint(side=96), tmp_path / "old", "card")
    shipped = Predictor.load()
    if shipped.model.interactive is None:
        pytest.fail("the shipped model can't be clicked on")
    borrowed = Predictor.load(tmp_path / "old").model.interactive
    assert borrowed is not None
    for name, weight in borrowed.state_dict().items():
        assert torch.equal(weight, shipped.model.interactive.state_dict()[name])
