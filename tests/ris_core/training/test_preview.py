"""The same few photos after each pass, and a picture of them."""

from __future__ import annotations

from pathlib import Path

import torch

from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import read_folder
from ris_core.data.folder import by_photo
from ris_core.encoders import image_encoder, text_encoder
from ris_core.evaluation.evaluate import evaluate
from ris_core.inference.predictor import Predictor
from ris_core.models.lda import LDA, LDAOptions
from ris_core.training.preview import preview_samples, validate
from ris_core.tuning import Tuning


def test_few_are_few_and_always_the_same(folder: Path) -> None:
    samples = read_folder(folder)
    chosen = preview_samples(samples, photos=3)
    photos = list(by_photo(chosen))
    assert len(photos) == 3
    assert all(len(photo) == len({sample.sentence for sample in photo}) == 4 for photo in photos)
    assert chosen == preview_samples(samples, photos=3)
    assert len(list(by_photo(preview_samples(samples)))) == 6


def test_figures_are_those_of_an_evaluation(untrained: LDA, folder: Path) -> None:
    samples = preview_samples(read_folder(folder))
    seen = validate(untrained, samples, 96)
    report = evaluate(Predictor(untrained, OperatingPoint(96), "test"), samples)
    assert seen.figures == report.figures
    # Six photos, one of each: two rows of four.
    assert seen.sheet.ndim == 3
    assert seen.sheet.shape[0] < 3 * 300 < 2 * seen.sheet.shape[0]


def test_words_that_training_changes_are_read_anew(folder: Path) -> None:
    samples = preview_samples(read_folder(folder), photos=2)
    model = LDA(image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16), Tuning("adapters"))
    before = validate(model, samples, 96).figures
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith("encoders.1") and "lora_B" in name:
                weight.normal_()
    assert validate(model, samples, 96).figures != before
