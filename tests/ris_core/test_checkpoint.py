"""A checkpoint comes back as it went, and what doesn't fit is named, never unpickled."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import CONFIG, WEIGHTS, OperatingPoint
from ris_core.errors import CheckpointError
from ris_core.inference.predictor import Predictor
from ris_core.models import MODELS
from ris_core.models.base import ImageEmbedding, RISModel
from ris_core.models.lda import LDA
from ris_core.tuning import Tuning

POINT = OperatingPoint(side=96, mask=0.4, presence=0.3)


@pytest.fixture
def saved(untrained: LDA, tmp_path: Path) -> Path:
    checkpoint.save(untrained, POINT, tmp_path / "model", "# card")
    return tmp_path / "model"


def test_round_trip(untrained: LDA, saved: Path) -> None:
    model, point = checkpoint.load(saved)
    assert point == POINT
    assert model.options == untrained.options
    for name, tensor in untrained.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert not model.training


def test_version_changes_with_weights_and_operating_point(untrained: LDA, saved: Path, tmp_path: Path) -> None:
    checkpoint.save(untrained, POINT, tmp_path / "same", "# another card")
    checkpoint.save(untrained, OperatingPoint(side=96, mask=0.5, presence=0.3), tmp_path / "point", "")
    with torch.no_grad():
        untrained.to_mask.bias += 1
    checkpoint.save(untrained, POINT, tmp_path / "weights", "")
    versions = [
        checkpoint_files.version(folder) for folder in (saved, *(tmp_path / n for n in ("same", "point", "weights")))
    ]
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3
    assert versions[0].startswith("lda-") and len(versions[0]) == len("lda-") + 8


def test_another_operating_point_over_the_same_weights(untrained: LDA, saved: Path, tmp_path: Path) -> None:
    other = OperatingPoint(side=96, mask=0.4, presence=0.3, answer_scale=1.3)
    checkpoint_files.with_point(saved, other, tmp_path / "other")
    checkpoint.save(untrained, other, tmp_path / "saved", "# card")
    assert checkpoint_files.operating_point(tmp_path / "other") == checkpoint.load(tmp_path / "other")[1] == other
    for file in (tmp_path / "saved").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()
    with pytest.raises(FileExistsError):
        checkpoint_files.with_point(saved, POINT, tmp_path / "other")


def test_checkpoints_are_immutable(untrained: LDA, saved: Path) -> None:
    with pytest.raises(FileExistsError):
        checkpoint.save(untrained, POINT, saved, "")


def test_changed_weights_are_refused(saved: Path) -> None:
    data = bytearray((saved / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (saved / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="isn't the file"):
        checkpoint.load(saved)


def test_a_malicious_pickle_is_refused_unopened(saved: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    data = pickle.dumps(Bomb())
    (saved / WEIGHTS).write_bytes(data)
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(config | {"weights": checkpoint.sha256(data)}))
    with pytest.raises(CheckpointError, match="doesn't fit"):
        checkpoint.load(saved)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 99}, "doesn't know"),
        ({"model": "yolo"}, "doesn't know"),
        ({"image_encoder": "resnet"}, "no encoder 'resnet'"),
        ({"options": {"width": 64, "rates": [1, 2, 4]}}, r"of another shape: attend.0.channel_gate.0.bias is"),
        ({"options": {"rates": []}}, "tensors unknown: fields.2.fields.0.0.weight"),
        ({"options": {"fusion": "sum"}}, "10 tensors unknown: attend.0.integrate.bias"),
        ({"options": {"wings": 2, "rates": []}}, "no switch named wings"),
        ({"tuning": {"encoders": "adapters"}}, "tensors missing: encoders.0"),
        ({"text_encoder": "word2vec"}, "no encoder 'word2vec'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(saved: Path, change: dict[str, object], sentence: str) -> None:
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.load(saved)


def test_renamed_tensors_are_named(untrained: LDA, saved: Path) -> None:
    tensors = load_file(saved / WEIGHTS)
    tensors["attend.0.spatial_query.weigth"] = tensors.pop("attend.0.spatial_query.weight")
    save_file(tensors, saved / WEIGHTS)
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps(config | {"weights": checkpoint.sha256(saved / WEIGHTS)}))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(saved)
    assert "1 tensors missing: attend.0.spatial_query.weight;" in str(caught.value)
    assert "1 tensors unknown: attend.0.spatial_query.weigth." in str(caught.value)


@pytest.fixture
def adapted(saved: Path) -> RISModel:
    """With adapters that have learnt something."""
    adapted, _ = checkpoint.load(saved, Tuning("adapters"))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    return adapted


def test_adapters_start_without_any_effect(untrained: LDA, saved: Path) -> None:
    adapted, _ = checkpoint.load(saved, Tuning("adapters"))
    pixels, valid = torch.rand(1, 3, 64, 96) * 255, torch.ones(1, 1, 64, 96)
    assert_same(untrained.encode_image(pixels, valid), adapted.encode_image(pixels, valid))


def test_adapters_come_back_and_are_a_few_megabytes(
    untrained: LDA, adapted: RISModel, saved: Path, tmp_path: Path
) -> None:
    pixels, valid = torch.rand(1, 3, 64, 96) * 255, torch.ones(1, 1, 64, 96)
    checkpoint.save(adapted, POINT, tmp_path / "adapted", "# card")
    again, _ = checkpoint.load(tmp_path / "adapted")
    assert_same(adapted.encode_image(pixels, valid), again.encode_image(pixels, valid))
    assert adapted.encode_text(["a cat"]).sentence.equal(again.encode_text(["a cat"]).sentence)
    assert not adapted.encode_text(["a cat"]).sentence.equal(untrained.encode_text(["a cat"]).sentence)
    added = (tmp_path / "adapted" / WEIGHTS).stat().st_size - (saved / WEIGHTS).stat().st_size
    assert 10_000 < added < 2_000_000


def test_a_merged_model_saves_the_checkpoint_that_it_came_from(adapted: RISModel, tmp_path: Path) -> None:
    checkpoint.save(adapted, POINT, tmp_path / "adapted", "# card")
    merged, _ = checkpoint.load(tmp_path / "adapted", merged=True)
    checkpoint.save(merged, POINT, tmp_path / "again", "# card")
    assert checkpoint_files.version(tmp_path / "again") == checkpoint_files.version(tmp_path / "adapted")
    assert checkpoint.parameters(merged) == checkpoint.parameters(adapted)


def test_what_predicts_is_merged_and_answers_the_same(adapted: RISModel, tmp_path: Path) -> None:
    checkpoint.save(adapted, POINT, tmp_path / "adapted", "# card")
    merged, unmerged = Predictor.load(tmp_path / "adapted"), Predictor(adapted.eval(), POINT, "unmerged")
    image = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
    one, other = (each.predict_raw([(each.embed(image), ["a cat"])])[0] for each in (merged, unmerged))
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-4)
    assert (one.presence, one.quality) == pytest.approx((other.presence, other.quality), abs=1e-4)
    assert not [module for module in merged.model.modules() if type(module).__module__.startswith("peft")]


def test_adapters_are_merged_where_an_encoder_is_trained_whole_from_there(untrained: LDA, tmp_path: Path) -> None:
    config = untrained.config() | {"tuning": {"encoders": "adapters", "stages": 2, "text_stages": 0, "rank": 4}}
    adapted = checkpoint.build(config)
    adapted.add_interactive()
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    checkpoint.save(adapted, POINT, tmp_path / "adapted", "# card")
    whole, _ = checkpoint.load(tmp_path / "adapted", Tuning("full", text_stages=0))
    pixels, valid = torch.rand(1, 3, 64, 96) * 255, torch.ones(1, 1, 64, 96)
    for ours, theirs in zip(whole.encode_image(pixels, valid), adapted.encode_image(pixels, valid), strict=True):
        assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-3) for a, b in zip(ours, theirs, strict=True))
    like = checkpoint.build(config | {"tuning": vars(whole.tuning), "interactive": True})
    assert whole.own_state().keys() == like.own_state().keys()
    assert all(weight.requires_grad for weight in whole.image_encoder.parameters())
    checkpoint.save(whole, POINT, tmp_path / "whole", "# card")
    assert_same(whole.encode_image(pixels, valid), checkpoint.load(tmp_path / "whole")[0].encode_image(pixels, valid))


def test_a_changed_text_encoder_isnt_left_behind(adapted: RISModel, tmp_path: Path) -> None:
    checkpoint.save(adapted, POINT, tmp_path / "adapted", "# card")
    with pytest.raises(CheckpointError, match="changed its text encoder"):
        checkpoint.load(tmp_path / "adapted", Tuning("full", text_stages=0))


def assert_same(one: ImageEmbedding, other: ImageEmbedding) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_every_design_comes_with_weights_that_load(name: str) -> None:
    model, _ = checkpoint.load(checkpoint_files.find(name))
    assert model.name == name
    assert checkpoint_files.version(checkpoint_files.find(name)).startswith(f"{name}-")


def test_missing_parts_are_named(saved: Path, tmp_path: Path) -> None:
    (saved / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.load(saved)
    with pytest.raises(CheckpointError, match="isn't a checkpoint"):
        checkpoint.load(tmp_path)


def test_the_shipped_model_is_there_and_small() -> None:
    folder = checkpoint_files.shipped()
    checkpoint.load(folder)
    assert (folder / WEIGHTS).stat().st_size <= 15_000_000
    card = (folder / checkpoint_files.CARD).read_text()
    for part in ("mIoU", "Licence", "ris train"):
        assert part in card
