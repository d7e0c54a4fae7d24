"""A card keeps what it says about training when only the operating point changes."""

from __future__ import annotations

from pathlib import Path

from ris_core.card import refit_card, write_card
from ris_core.checkpoint import OperatingPoint
from ris_core.encoders import image_encoder, text_encoder
from ris_core.models import LDA, LDAOptions
from ris_core.training import Recipe

FIGURES = {("shapes", "val"): {"expressions": 3, "mIoU": 0.5}, ("shapes", "test"): {"expressions": 2, "mIoU": 0.25}}
COMMAND = "ris calibrate --model lda-12345678 --dataset shapes --accepted 0.9"


def test_a_card_with_another_operating_point(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text('{"info": {"description": "Discs.", "license": "none"}}')
    model = LDA(image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16))
    card = write_card(model, OperatingPoint(96, 0.4, 0.3), Recipe(), [tmp_path], FIGURES, accepted=0.8)
    assert "from P = 0.3, a pixel belongs to it from P = 0.4, photos are read at 96" in card
    assert card.count("--accepted 0.8") == 1
    figures = {("shapes", "test"): {"expressions": 2, "gIoU": 0.75}}
    again = refit_card(card, OperatingPoint(96, 0.55, 0.2), figures, COMMAND)
    gone, new = (set(one.splitlines()) - set(other.splitlines()) for one, other in ((card, again), (again, card)))
    assert len(gone) == 4
    assert all(line.startswith(("Operating point, ", "| dataset ", "| shapes ")) for line in gone)
    assert new == {
        next(line for line in again.splitlines() if "from P = 0.2, a pixel belongs to it from P = 0.55" in line),
        "| dataset | split | expressions | gIoU |",
        "| shapes | test | 2 | 0.750 |",
        COMMAND,
    }
    # The command comes last, inside the fence, and a third card would tell of both.
    assert again.endswith(f"--accepted 0.8\n{COMMAND}\n```\n")
    assert refit_card(again, OperatingPoint(), figures, COMMAND).endswith(f"{COMMAND}\n{COMMAND}\n```\n")


def test_a_card_without_those_parts_gets_them() -> None:
    card = refit_card("# Fine-tuned from lda-12345678\n\n3 passes.\n", OperatingPoint(presence=0.2), FIGURES, COMMAND)
    assert card.startswith("# Fine-tuned from lda-12345678\n\n3 passes.\n\nOperating point, fixed on")
    assert "\n## Figures\n" in card
    assert "| shapes | test | 2 | 0.250 |" in card
    assert card.endswith(f"\n\n## Commands\n```\n{COMMAND}\n```\n")
