"""Clicks and boxes in, masks out, with the real predictor and a decoder of random weights."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from backend.inference.model_pool import ModelPool
from backend.inference.predict import Prelabeller
from backend.inference.project_model import ProjectModels
from backend.labelstudio.images import ImageResolver
from backend.labelstudio.label_config import parse
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint
from ris_core.checkpoint_files import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.models.lda import LDA, LDAOptions

CONFIG = parse(
    '<View><Image name="image" value="$image"/><TextArea name="prompt" toName="image" smart="true"/>'
    '<BrushLabels name="brush" toName="image"><Label value="cat"/><Label value="other"/></BrushLabels>'
    '<KeyPoint name="point" toName="image" smart="true"/></View>'
)

Regions = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = LDA(image_encoder("efficientnet-lite2"), text_encoder("minilm"), LDAOptions(width=16))
    model.add_interactive()
    folder = tmp_path_factory.mktemp("clicks") / "model"
    checkpoint.save(model, OperatingPoint(side=64, mask=0.0, presence=0.0), folder, "# Random\n")
    return folder


@pytest.fixture
def ask(tmp_path: Path, folder: Path, make_settings: Callable[..., Settings]) -> Callable[..., Regions]:
    """Sends a context about one task -> the regions of the answer, that which is said of it last."""
    images = ImageResolver("http://127.0.0.1:1", "token", cache=tmp_path / "images")
    models = ProjectModels(Registry(tmp_path / "models", folder), make_settings())
    prelabeller = Prelabeller(models, images, ModelPool())
    file = io.BytesIO()
    Image.effect_noise((60, 40), 60).convert("RGB").save(file, "PNG")
    photo = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def send(*drawn: dict[str, Any], number: int = 1, **task: Any) -> Regions:
        row = {"id": number, "data": {"image": photo}, **task}
        [prediction] = prelabeller.predict([row], CONFIG, 7, {"result": list(drawn)})
        result: Regions = prediction["result"]
        return result

    return send


def point(key: str, x: float, y: float, positive: bool = True) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "labels": []}
    return {"id": key, "type": "keypoint", "from_name": "point", "is_positive": positive, "value": value}


def box(key: str, x: float) -> dict[str, Any]:
    value = {"x": x, "y": 20, "width": 20, "height": 40, "rotation": 0}
    return {"id": key, "type": "rectangle", "from_name": "box", "value": value}


def typed(text: str) -> dict[str, Any]:
    return {"id": "t", "type": "textarea", "from_name": "prompt", "to_name": "image", "value": {"text": [text]}}


def test_a_click_is_answered_by_a_mask_without_a_sentence(ask: Callable[..., Regions]) -> None:
    [region] = ask(point("a", 50, 50))
    assert region["value"]["brushlabels"] == ["other"]
    assert region["value"]["rle"]
    assert not any("prompt" in text for text in region["meta"]["text"])
    assert region["origin"] == "prediction"


def test_a_click_that_takes_away_mends_the_same_region(ask: Callable[..., Regions]) -> None:
    [first] = ask(point("a", 50, 50))
    [second] = ask(point("b", 52, 52, positive=False))
    [third] = ask(point("c", 48, 52, positive=False))
    assert first["id"] == second["id"] == third["id"]


def test_points_that_are_sent_again_mend_the_same_region(ask: Callable[..., Regions]) -> None:
    [first] = ask(point("a", 50, 50))
    [second] = ask(point("a", 50, 50), point("b", 99, 99))
    assert first["id"] == second["id"]


def test_two_boxes_are_two_regions_and_each_keeps_its_own(ask: Callable[..., Regions]) -> None:
    [first] = ask(box("a", 10))
    both = ask(box("a", 10), box("b", 60))
    assert len({region["id"] for region in both}) == 2
    assert both[0]["id"] == first["id"]


def test_a_sentence_and_a_click_are_one_region_that_was_corrected(ask: Callable[..., Regions]) -> None:
    [said] = ask(typed("the cat"))
    [mended] = ask(point("a", 50, 50))
    assert mended["id"] == said["id"]
    assert (mended["value"]["brushlabels"], mended["origin"]) == (["cat"], "prediction-changed")
    assert mended["meta"]["text"] == ["prompt: the cat"]


def test_another_picture_knows_nothing_of_it(ask: Callable[..., Regions]) -> None:
    [one] = ask(point("a", 50, 50))
    [other] = ask(point("b", 50, 50), number=2)
    assert one["id"] != other["id"]


def test_a_click_beside_nothing_is_answered_by_nothing(ask: Callable[..., Regions]) -> None:
    assert ask(point("a", 50, 50, positive=False)) == []
