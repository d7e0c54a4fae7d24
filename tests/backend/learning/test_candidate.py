"""Training within a time: the plan, what stays frozen, and going on after a crash as if there had been none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend.learning import candidate
from backend.learning.candidate import (
    CHECKPOINT,
    LEARNT,
    MAX_PASSES,
    MOST_LEARNT,
    PLAN,
    RECIPE,
    CandidateSpec,
    Pace,
    fixed_encoders,
    learnt_share,
    plan_for,
    recalled_samples,
    train_candidate,
)
from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample
from ris_core.encoders import image_encoder, text_encoder
from ris_core.errors import TrainingError
from ris_core.evaluation.evaluate import evaluate
from ris_core.inference.predictor import Predictor
from ris_core.masks import encode_rle
from ris_core.models.lda import LDA, LDAOptions
from ris_core.training.batches import RECALLED, count_batches
from ris_core.training.loop import Interrupted
from ris_core.tuning import Tuning


class Killed(BaseException):
    """What ends a process without asking it."""


def sample(folder: Path, number: int, sentence: str = "the left half", height: int = 48, width: int = 64) -> Sample:
    half = np.zeros((height, width), dtype=np.bool_)
    half[:, : width // 2] = True
    return Sample(folder / f"{number}.png", number, number, "train", sentence, height, width, (encode_rle(half),))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(rates=(1,), width=32))
    folder = tmp_path_factory.mktemp("base") / "model"
    checkpoint.save(model, OperatingPoint(side=100, mask=0.4, presence=0.3), folder, "card")
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [sample(folder, number) for number in range(3)]


def train(base: Path, samples: Sequence[Sample], run: Path, die_at: float = 2.0, features: Path | None = None) -> Path:
    def on_progress(share: float) -> None:
        if share >= die_at:
            raise Killed

    if not run.exists():
        run.mkdir(parents=True)
        # As the pace of the machine could have it; fixed, so that runs can be compared.
        (run / PLAN).write_text(json.dumps({"passes": 4, "photos": [each.image.name for each in samples]}))
    return train_candidate(CandidateSpec(base, samples, 1.0, features=features), run, on_progress)


def test_what_was_learnt_is_a_name_from_then_on(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    point = checkpoint_files.operating_point(base)
    checkpoint_files.with_point(base, replace(point, names=["the cat"], doubt=3.0), tmp_path / "doubting")
    folder = train(tmp_path / "doubting", samples, tmp_path / "run")
    learnt = checkpoint_files.operating_point(folder)
    assert (learnt.names, learnt.doubt) == (("the cat", "left half", "the left half"), 3.0)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 3)), min_size=1, max_size=40),
    st.floats(0, 600),
    st.floats(0, 0.5),
    st.floats(0.01, 2),
    st.integers(1, 8),
)
def test_a_plan_fits_into_the_time(
    photos: list[tuple[bool, bool, int]], seconds: float, first: float, again: float, batch: int
) -> None:
    """photos: (new, upright, expressions)."""
    samples = [
        sample(Path(), number, f"{sentence}", *((64, 48) if upright else (48, 64)))
        for number, (_, upright, sentences) in enumerate(photos)
        for sentence in range(sentences)
    ]
    new = {number for number, (is_new, _, _) in enumerate(photos) if is_new}
    plan = plan_for(samples, new, seconds, Pace(first, again), batch)
    assert plan == plan_for(samples, new, seconds, Pace(first, again), batch)
    assert len(set(plan.photos)) == len(plan.photos) > 0
    assert plan.batch is not None
    assert min(2, batch) <= plan.batch <= batch
    count = len(plan.photos)
    assert (plan.passes, count) == (1, 1) or cost(plan.passes, count, first, again) <= seconds * 1.0001
    assert 1 <= plan.passes <= MAX_PASSES
    if count < len(photos):
        assert plan.passes == 1
        assert cost(1, count + 1, first, again) > seconds * 0.9999
        chosen = {int(name.removesuffix(".png")) for name in plan.photos}
        # A third is kept for others, and what one group can't fill is the other's.
        assert len(chosen & new) >= min(len(new), count - count // 3)
        assert len(chosen - new) >= min(len(photos) - len(new), count // 3)
    elif plan.passes < MAX_PASSES:
        assert cost(plan.passes + 1, count, first, again) > seconds * 0.9999


def cost(passes: int, photos: int, first: float, again: float) -> float:
    """Seconds: each photo is learnt from in every pass, and encoded in four views at most."""
    return photos * (passes * again + min(passes, 4) * first)


def test_however_little_fits_several_processes_have_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    samples = [sample(Path(), number, "it", *((64, 48) if number % 2 else (48, 64))) for number in range(20)]
    plan = plan_for(samples, (), -1.0, Pace(0.1, 1.0), 8)
    assert plan.batch is not None
    chosen = [each for each in samples if each.image.name in plan.photos]
    assert len(chosen) == 4
    assert count_batches(chosen, plan.batch, processes=2) > 0


def test_where_little_fits_batches_are_small() -> None:
    samples = [sample(Path(), number) for number in range(20)]
    assert plan_for(samples, (), 20.0, Pace(0.0, 1.0), 8).batch == 2
    assert plan_for(samples, (), 120.0, Pace(0.0, 1.0), 8).batch == 3
    assert plan_for(samples, (), 600.0, Pace(0.0, 1.0), 8).batch == 8
    assert plan_for(samples, (), 20.0, Pace(0.0, 1.0), 1).batch == 1


def test_a_candidate_is_the_base_trained_further(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    shares: list[float] = []
    folder = train_candidate(CandidateSpec(base, samples, 0.5, {0}), tmp_path / "run", shares.append)
    assert checkpoint_files.version(folder) != checkpoint_files.version(base)
    assert checkpoint_files.version(base) in (folder / checkpoint_files.CARD).read_text(encoding="utf-8")
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    (before, point), (after, same_point) = checkpoint.load(base), checkpoint.load(folder)
    assert point == same_point
    changed = {
        name
        for (name, old), new in zip(before.state_dict().items(), after.state_dict().values(), strict=True)
        if not torch.equal(old, new)
    }
    last = len(before.key) - 1
    assert "to_mask.weight" in changed
    assert f"key.{last - 1}.weight" in changed
    # Pointing at what a classifier knows must not be unlearnt from a few corrections.
    assert changed.isdisjoint({f"key.{last}.weight", f"attend.{last}.spatial_query.weight"})
    # Asked again, it is there already.
    assert train_candidate(CandidateSpec(base, [], 0.5), tmp_path / "run", shares.append) == folder


def test_a_crash_changes_nothing_about_the_outcome(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    whole = train(base, samples, tmp_path / "whole")
    for share in (0.2, 0.6):
        with pytest.raises(Killed):
            train(base, samples, tmp_path / "broken", die_at=share)
    assert checkpoint_files.digest(train(base, samples, tmp_path / "broken")) == checkpoint_files.digest(whole)


def test_an_interrupted_training_goes_on(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    whole, run = train(base, samples, tmp_path / "whole"), tmp_path / "broken"
    run.mkdir()
    (run / PLAN).write_bytes((tmp_path / "whole" / PLAN).read_bytes())
    shares: list[float] = []
    with pytest.raises(Interrupted):
        train_candidate(CandidateSpec(base, samples, 1.0), run, shares.append, stop=lambda: len(shares) == 2)
    train_candidate(CandidateSpec(base, samples, 1.0), run, shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]
    assert checkpoint_files.digest(run / CHECKPOINT) == checkpoint_files.digest(whole)


def test_runs_share_what_the_encoder_makes(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    first = train(base, samples, tmp_path / "first", features=tmp_path / "features")
    kept = {path: path.read_bytes() for path in (tmp_path / "features").rglob("*.safetensors")}
    assert len(kept) == len(samples) * RECIPE.views
    second = train(base, samples, tmp_path / "second", features=tmp_path / "features")
    # The candidate's encoder is its base's: a version that comes of it finds the same.
    train(second, samples, tmp_path / "third", features=tmp_path / "features")
    assert {path: path.read_bytes() for path in (tmp_path / "features").rglob("*.safetensors")} == kept
    assert checkpoint_files.digest(first) == checkpoint_files.digest(second)


def test_a_candidate_lies_on_the_way_to_what_was_learnt(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[float] = []
    monkeypatch.setattr(candidate, "learnt_share", lambda score: known.append(score) or 0.4)
    blended = train(base, samples, tmp_path / "blended")
    # The left halves of all photos are asked for, and the untrained base paints something.
    # Alone, as training sees it: the listener would choose among what it paints.
    report = evaluate(Predictor(*checkpoint.load(base), "base"), samples)
    assert known == [pytest.approx(np.mean([score.correct for score in report.scores]), abs=0.01)]
    monkeypatch.setattr(candidate, "learnt_share", lambda score: 1.0)
    learnt = train(base, samples, tmp_path / "learnt")
    was, some, all_of_it = (checkpoint.load(folder)[0].own_state() for folder in (base, blended, learnt))
    assert any(not torch.equal(some[name], all_of_it[name]) for name in was)
    for name, start in was.items():
        assert torch.allclose(some[name], torch.lerp(start, all_of_it[name], 0.4), atol=1e-6), name


def test_half_of_the_time_is_left_to_learn_however_slow_the_start(
    base: Path, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on a second each time that it is read: a pass over the measured photos takes one."""
    seconds = count()
    monkeypatch.setattr(candidate, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    train_candidate(CandidateSpec(base, samples[:2], 4.0), tmp_path / "run", lambda share: None)
    plan = json.loads((tmp_path / "run" / PLAN).read_text())
    assert (plan["passes"], len(plan["photos"])) == (2, 2)


def test_a_base_with_little_to_lose_goes_further() -> None:
    shares = [learnt_share(known) for known in (0.0, 0.2, 0.3, 0.4, 1.0)]
    assert shares == [pytest.approx(share) for share in (MOST_LEARNT, MOST_LEARNT, 0.6, LEARNT, LEARNT)]


def test_nothing_to_train_on(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        train(base, [], tmp_path / "run")
    with pytest.raises(TrainingError, match="nothing to train on"):
        train_candidate(CandidateSpec(base, [], 1.0), tmp_path / "fresh", lambda share: None)


def test_what_is_recalled_is_far_from_what_was_said(base: Path, samples: list[Sample]) -> None:
    model, _ = checkpoint.load(base)
    said = replace(samples[0], sentence="the cat")
    recalled = recalled_samples(model, [said])
    names = {each.sentence for each in recalled}
    assert len(recalled) == len(names) > 10
    assert all(each.image == said.image and each.kind == RECALLED and not each.has_target for each in recalled)
    assert not names & {"the tabby", "the tiger cat", "the Siamese cat", "the Persian cat"}
    assert recalled == recalled_samples(model, [said])


def test_training_leaves_adapters_of_the_base_as_they_are() -> None:
    tuning = Tuning("adapters", stages=1, text_stages=0, rank=2)
    model = LDA(image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16), tuning)
    before = set(model.own_state())
    with fixed_encoders(model):
        assert model.image_encoder.frozen == len(model.image_encoder.stages)
        assert not any(weight.requires_grad for weight in model.image_encoder.parameters())
        assert any(weight.requires_grad for weight in model.parameters())
    assert set(model.own_state()) == before
    assert model.image_encoder.frozen == len(model.image_encoder.stages) - 1
    assert any("lora" in name for name in before)
