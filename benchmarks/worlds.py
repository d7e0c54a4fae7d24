"""What loop.py tries the loop in: the photos, and the model that a project begins with."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from annotators import Album, is_held_out, without
from rich.console import Console

from backend.locks import exclusive
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample, read_folder
from ris_core.evaluation.evaluate import Report, calibrate, evaluate
from ris_core.inference.predictor import Predictor
from ris_core.models.class_alignment import align
from ris_core.training.loop import TrainingProgress, train
from ris_core.training.recipe import Recipe

# Passes of the base that is trained; with none it is the shipped model.
BASE_PASSES = int(os.environ.get("PASSES", "4"))
RECIPE = Recipe(epochs=BASE_PASSES or 1, photos=8, present=3, absent=1, side=288, views=4)
POOL, HISTORY, TRUTH = 150, 40, 48
# Share of what is there that the shipped model answers at this size, as its card says of its own.
ANSWERED = 0.88
RUNS = Path(os.environ.get("RUNS", "runs/loop"))


class World:
    """The data, and the model that hasn't seen the reserved labels."""

    def __init__(self, folders: Sequence[Path]) -> None:
        parts = [tuple(read_folder(folder)) for folder in folders]
        self.album = Album(parts[0])
        self._taught = [sample for part in parts for sample in without(part, self.album.reserved)]

    @cached_property
    def base(self) -> Path:
        """The base model's checkpoint, trained if it isn't there."""
        folder = RUNS / f"base-{BASE_PASSES}" / "checkpoint"
        with exclusive(RUNS / "base.lock"):
            if not folder.exists():
                self._make_base(folder)
        return folder

    def _make_base(self, folder: Path) -> None:
        torch.manual_seed(0)
        config = {"model": "lda", "image_encoder": "efficientnet-lite2", "text_encoder": "minilm", "tuning": {}}
        model = checkpoint.build(config | {"options": {"width": 64}})
        align(model)
        taught = [sample for sample in self._taught if sample.split == "train"]
        train(model, taught, RECIPE, folder.parent, _show_progress, features=RUNS / "features")
        predictor = Predictor(model, OperatingPoint(RECIPE.side), "base")
        point = calibrate(predictor, [sample for sample in self._taught if sample.split == "val"])
        checkpoint.save(model, point, folder, f"# Trained without {', '.join(self.album.reserved)}\n")

    @cached_property
    def held_out(self) -> list[Sample]:
        """New labels on test photos."""
        return self.album.pairs(self.album.photos("test"), self.album.reserved)

    @cached_property
    def before(self) -> Report:
        """The base on half of the test photos: new labels, and those that it was taught, two a photo."""
        new = self.album.pairs(self.album.photos("test")[:TRUTH], self.album.reserved)
        return evaluate(Predictor.load(self.base), new + self._known("test", 2 * TRUTH))

    @cached_property
    def new_prompts(self) -> set[str]:
        return {f"the {name}" for name in self.album.reserved}

    @cached_property
    def history(self) -> list[Sample]:
        """What a project that has run for a while holds out."""
        return self._known("val", HISTORY)

    @cached_property
    def past(self) -> list[Sample]:
        """What it learns from beside the new corrections: none of it is about a photo that is held out."""
        return [pair for pair in self._known("train", 5 * HISTORY) if not is_held_out(pair)]

    def _known(self, split: str, most: int) -> list[Sample]:
        """Of each photo a label that is there and one that isn't."""
        rng, pairs_drawn = random.Random(0), []
        for photo in self.album.photos(split):
            pairs = self.album.pairs([photo], self.album.known_names())
            for there in (True, False):
                some = [pair for pair in pairs if pair.has_target is there]
                pairs_drawn += rng.sample(some, min(1, len(some)))
        return pairs_drawn[:most]

    def pool(self, seed: int) -> list[Sample]:
        """All that people can be asked for."""
        photos = random.Random(seed).sample(self.album.photos("train"), POOL)
        return self.album.pairs(photos, self.album.reserved)


class ShippedWorld(World):
    """The shipped model, which knows the labels, and a young project: nothing was corrected before.

    What people are asked for lies on photos that it wasn't trained on.
    """

    def _make_base(self, folder: Path) -> None:
        model, point = checkpoint.load(checkpoint_files.shipped())
        predictor = Predictor(model, replace(point, side=RECIPE.side), "base")
        known = self._known("val", 2 * POOL)
        checkpoint.save(model, calibrate(predictor, known, ANSWERED), folder, f"# At {RECIPE.side} pixels\n")

    @cached_property
    def history(self) -> list[Sample]:
        """Photos that the truth isn't taken from."""
        return self._known("test", 2 * (TRUTH + HISTORY))[2 * TRUTH :][:HISTORY]

    @cached_property
    def past(self) -> list[Sample]:
        return []

    def pool(self, seed: int) -> list[Sample]:
        photos = self.album.photos("val")
        return self.album.pairs(random.Random(seed).sample(photos, len(photos)), self.album.reserved)


def note(line: str) -> None:
    Console(stderr=True).print(line, highlight=False, markup=False)


def _show_progress(progress: TrainingProgress) -> None:
    if progress.step % 25 == 0:
        note(f"base model: step {progress.step} of {progress.steps}, {progress.seconds_left:.0f} s left")
