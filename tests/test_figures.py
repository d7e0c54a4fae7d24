"""`make figures`: docs/figures is what the code draws today, and a drawing that can't be read is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from PIL import ImageFont

from ris_core.models.lda import LDA, LDAOptions

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
# What a JPEG may weigh on a page, in bytes.
HEAVIEST = 120_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("skimage")
    out = tmp_path_factory.mktemp("figures")
    command = [sys.executable, str(ROOT / "scripts" / "figures.py"), "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import drawing.card
    import drawing.designs
    import drawing.measured

    drawing.measured.run.cache_clear()
    yield drawing
    drawing.measured.run.cache_clear()


def test_the_figures_are_those_that_the_script_draws(drawn: Path) -> None:
    assert sorted(path.name for path in FIGURES.iterdir()) == sorted(path.name for path in drawn.iterdir())


def test_diagrams_are_as_the_code_is(drawn: Path) -> None:
    for path in FIGURES.glob("*.svg"):
        assert path.read_text() == (drawn / path.name).read_text(), f"{path.name} is out of date: make figures"


def test_pictures_of_attention_are_as_the_weights_are(drawn: Path) -> None:
    for path in FIGURES.glob("*.jpg"):
        kept, now = (cv2.imread(str(one)).astype(int) for one in (path, drawn / path.name))
        assert kept.shape == now.shape, f"{path.name} is out of date: make figures"
        # Other processors round otherwise: a cell may change sides, a picture doesn't.
        assert np.abs(kept - now).mean() < 3, f"{path.name} is out of date: make figures"
        assert path.stat().st_size < HEAVIEST, path.name


def test_diagrams_say_what_they_show_and_load_nothing(drawn: Path) -> None:
    for path in drawn.glob("*.svg"):
        root = ElementTree.fromstring(path.read_text())
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert names <= {"svg", "title", "desc", "defs", "marker", "path", "rect", "text", "tspan"}
        assert len(root.find("{*}desc").text) > 60


def test_a_diagram_follows_the_code(drawing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    before = drawing.designs.lda().svg()
    monkeypatch.setattr(LDA, "switches", partial(LDAOptions, width=64))
    drawing.measured.run.cache_clear()
    after = drawing.designs.lda().svg()
    assert "N × 128 × 24×30" in before
    assert "N × 128 × 24×30" not in after
    assert "N × 64 × 24×30" in after


def test_all_modules_that_answered_are_watched(drawing: ModuleType) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2), torch.nn.ReLU())
    given, outputs = drawing.measured.watched(model, lambda: model(torch.ones(4, 3)))
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "0": (4, 5),
        "1": (4, 2),
        "2": (4, 2),
        "": (4, 2),
    }
    assert outputs[""] is given
    assert not any(module._forward_hooks for module in model.modules())


def test_shapes_tell_photos_from_sentences(drawing: ModuleType) -> None:
    shape = drawing.measured.shape
    assert shape(torch.empty(2, 32, 96, 120)) == "B × 32 × 96×120"
    assert shape(torch.empty(3, 9, 384)) == "N × L × 384"
    assert shape(torch.empty(3, 10, 180)) == "N × (1+L) × 180"
    assert shape(torch.empty(3, 6, 2), {6: "P"}) == "N × P × 2"
    assert shape(torch.empty(2, 2, 720, 128)) == "B × 2 × 720 × 128"


def card(drawing: ModuleType) -> Any:
    return drawing.card.Card(400, 300, "A card", "What it shows.")


def test_text_that_leaves_its_box_is_refused(drawing: ModuleType) -> None:
    with pytest.raises(drawing.card.CardError, match="doesn't fit its box"):
        card(drawing).box(20, 20, 60, "far too long", kind="joint")


@pytest.mark.parametrize(
    ("second", "points", "label", "fault"),
    [
        ((60, 40), None, None, "'one' overlaps 'other'"),
        ((320, 40), None, None, "'other' leaves the card"),
        ((220, 40), ((10, 50), (390, 50)), None, "runs through"),
        ((220, 40), None, (30, 60), "'beside' overlaps 'one'"),
        ((220, 40), ((180, 150), (300, 150)), (200, 154), "runs through 'beside'"),
    ],
)
def test_what_overlaps_is_refused(
    drawing: ModuleType,
    second: tuple[float, float],
    points: tuple[tuple[float, float], ...] | None,
    label: tuple[float, float] | None,
    fault: str,
) -> None:
    page = card(drawing)
    page.box(20, 40, 100, "one", kind="image")
    page.box(*second, 100, "other", kind="text")
    if points:
        page.arrow(*points)
    if label:
        page.label(*label, "beside")
    with pytest.raises(drawing.card.CardError, match=fault):
        page.svg()


def test_arrows_that_cross_are_refused_and_those_that_branch_are_not(drawing: ModuleType) -> None:
    page = card(drawing)
    page.arrow((100, 100), (300, 100))
    page.arrow((200, 100), (200, 200))
    page.svg()
    page.arrow((250, 50), (250, 150))
    with pytest.raises(drawing.card.CardError, match="cross"):
        page.svg()


def test_markup_in_texts_is_text(drawing: ModuleType) -> None:
    page = card(drawing)
    page.box(20, 20, 300, "a < b & F_v, A^T", kind="joint")
    root = ElementTree.fromstring(page.svg())
    (text,) = root.findall("{*}text")
    assert "".join(text.itertext()) == "a < b & Fv, AT"


def test_texts_need_no_more_room_than_was_counted(drawing: ModuleType) -> None:
    for path in FIGURES.glob("*.svg"):
        for element in ElementTree.fromstring(path.read_text()).findall("{*}text"):
            text, size = "".join(element.itertext()), float(element.get("font-size"))
            counted = drawing.card.wide(text, size, bold="font-weight" in element.attrib)
            assert ImageFont.load_default(size).getlength(text) <= counted, text
