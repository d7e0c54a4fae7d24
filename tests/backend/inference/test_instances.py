"""A tag that asks for it shows each thing that a prompt finds as a region of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.inference.model_pool import ModelPool
from backend.inference.predict import Prelabeller
from backend.inference.project_model import ProjectModels, answer_version
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import parse
from backend.labelstudio.regions import read_annotation
from backend.prompts.sheet import EMPTY
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.inference import instances
from ris_core.masks import Mask
from ris_core.models.lda import LDA, LDAOptions

CONFIG = (
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<BrushLabels name="brush" toName="image" objects="{}"><Label value="cat"/></BrushLabels>'
    "</View>"
)


@pytest.fixture
def ask(
    tmp_path: Path, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, Any]]]:
    """The regions that a sentence gets of a model that finds it everywhere, in a left and a right half."""
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(width=16))
    checkpoint.save(model, OperatingPoint(side=64, mask=0.0, presence=0.0), tmp_path / "model", "# Random\n")
    images = ImageResolver("http://127.0.0.1:1", "token", cache=tmp_path / "images")
    settings = make_settings(prelabel_min_score=0.0, prelabel_blind=0.0)
    models = ProjectModels(Registry(tmp_path / "models", tmp_path / "model"), settings)
    prelabeller = Prelabeller(models, images, ModelPool())
    monkeypatch.setattr(instances, "split", lambda predictor, image, mask: halves(mask))
    file = io.BytesIO()
    Image.effect_noise((60, 40), 60).convert("RGB").save(file, "PNG")
    photo = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def send(sentence: str, wanted: str = "instances") -> list[dict[str, Any]]:
        row = {"id": 1, "data": {"image": photo, "prompt": sentence}}
        [prediction] = prelabeller.predict([row], parse(CONFIG.format(wanted)), 7)
        result: list[dict[str, Any]] = prediction["result"]
        return [region for region in result if region["from_name"] == "brush"]

    return send


def halves(mask: Mask) -> list[Mask]:
    left = mask.copy()
    left[:, mask.shape[1] // 2 :] = False
    return [left, mask & ~left]


def test_each_thing_has_a_region_of_its_own(ask: Callable[..., list[dict[str, Any]]]) -> None:
    regions = ask("the cat")
    assert len({region["id"] for region in regions}) == 2
    read = read_annotation(regions, parse(CONFIG.format("instances")))
    assert [one.prompt for one in read.masks] == ["the cat", "the cat"]
    assert [one.label for one in read.masks] == ["cat", "cat"]
    assert np.array_equal(read.masks[0].mask, ~read.masks[1].mask)


def test_where_nobody_asks_for_it_there_is_one(ask: Callable[..., list[dict[str, Any]]]) -> None:
    assert len(ask("the cat", "one")) == 1


def test_what_is_taken_away_is_taken_from_every_thing(ask: Callable[..., list[dict[str, Any]]]) -> None:
    # The model finds the negative everywhere, too: the two can't be told apart, and one has it all.
    assert len(ask("the cat; not the dog")) in (0, 2)


def test_asking_for_it_makes_other_answers() -> None:
    versions = {answer_version("lda-1", parse(CONFIG.format(wanted)), EMPTY, "") for wanted in ("instances", "one")}
    assert len(versions) == 2
