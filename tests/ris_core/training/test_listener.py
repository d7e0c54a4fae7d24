"""Left is learnt from sentences and boxes; made sentences are true; the tenth that measures isn't learnt from."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ris_core.data.readers.refer_lines import ReferredThing
from ris_core.encoders import text_encoder
from ris_core.errors import TrainingError
from ris_core.models.listener import ListenerOptions, load
from ris_core.training.listener import (
    ListenerRecipe,
    MadeSentences,
    SentenceFeatures,
    accuracy,
    held_out,
    train_listener,
)
from ris_core.training.listener_pipeline import train_and_measure

SMALL = ListenerOptions(width=32, layers=1, heads=2, dropout=0.0)


def photos(count: int, seed: int) -> list[ReferredThing]:
    """Two things side by side, in either order, and which one is on the left or right."""
    rng, things = random.Random(seed), []
    for image in range(count):
        left = np.array([rng.uniform(0, 0.2), 0.3, rng.uniform(0.3, 0.45), 0.8])
        boxes = np.array([left, left + np.array([0.5, 0, 0.5, 0])], np.float32)
        order = rng.sample((0, 1), 2)
        side = rng.choice(("left", "right"))
        meant = order.index(0 if side == "left" else 1)
        things.append(ReferredThing("made", image, f"{rng.choice(('man', 'dog'))} on {side}", boxes[order], meant))
    return things


@pytest.fixture(scope="module")
def features() -> SentenceFeatures:
    return SentenceFeatures(text_encoder("minilm"))


def test_left_is_learnt(features: SentenceFeatures) -> None:
    recipe = ListenerRecipe(epochs=8, batch=32, made=0.25, warm_up=5, rate=3e-3, average=0.9)
    listener = train_listener(photos(240, seed=1), features, SMALL, recipe)
    right = accuracy(listener, photos(60, seed=2), features)
    assert np.mean(right) > 0.9


def test_features_are_those_of_the_encoder_padded_alike(features: SentenceFeatures) -> None:
    sentences = ["left", "the dog on the far right"]
    with torch.inference_mode():
        expected = text_encoder("minilm")(sentences)
    text = features(sentences)
    assert torch.equal(text.key_padding_mask, expected.key_padding_mask)
    kept = ~expected.key_padding_mask
    assert torch.allclose(text.words[kept], expected.words[kept], atol=5e-3)
    assert torch.allclose(text.sentence, expected.sentence, atol=1e-3)


def test_too_little_to_learn_from_is_said(features: SentenceFeatures) -> None:
    with pytest.raises(TrainingError, match="too few"):
        train_listener(photos(3, seed=0), features, SMALL)


def test_made_sentences_are_true() -> None:
    maker = MadeSentences([thing.boxes for thing in photos(20, seed=3)], random.Random(0))
    sides, every = 0, 0
    for _ in range(300):
        sentence, boxes, meant, all_of_them = maker.draw()
        every += all_of_them == 1
        assert (meant is None) == (all_of_them == 1)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        if meant is not None and ("leftmost" in sentence or "far left" in sentence):
            sides += 1
            assert boxes[:, [0, 2]].sum(axis=1).argmin() == meant
    assert sides > 3
    assert 60 < every < 150


def test_a_tenth_is_held_out_for_good() -> None:
    assert 60 < sum(map(held_out, range(1000))) < 140
    assert [number for number in range(40) if held_out(number)] == [18]


def test_from_files_to_a_listener_with_its_card(tmp_path: Path) -> None:
    rows = [
        {"image_id": t.image_id, "ann_id": 2 * t.image_id + number, "text": t.sentence,
         "bbox_xywh": [640 * box[0], 480 * box[1], 640 * (box[2] - box[0]), 480 * (box[3] - box[1])]}
        for t in photos(160, seed=4)
        for number, box in enumerate(t.boxes.tolist())
    ]  # fmt: skip
    (tmp_path / "made.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "without").write_text("3, 5 100000")
    stages = []
    taught = train_and_measure(
        tmp_path, tmp_path / "out", tmp_path / "without", "minilm", 1, 0, lambda stage, *_: stages.append(stage)
    )
    assert set(stages) == {"Encoding sentences", "Training"}
    measured = taught.figures["made"].sentences
    assert taught.photos + measured // 2 == 158
    assert taught.figures["all"].chance == 0.5
    card = (tmp_path / "out" / "card.md").read_text()
    assert "left out since something is measured on them: 3, 5." in card
    assert "No figure on RefCOCO" in card
    assert load(tmp_path / "out").options.text_encoder == "minilm"
