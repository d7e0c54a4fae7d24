"""A card keeps what it says about training when only the operating point changes."""

from __future__ import annotations

from pathlib import Path

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import OperatingPoint
from ris_core.data import Sample
from ris_core.encoders import image_encoder, text_encoder
from ris_core.evaluation.evaluate import Report
from ris_core.evaluation.metrics import Score
from ris_core.models.lda import LDA, LDAOptions
from ris_core.training.model_card import mean_card, refit_card, write_card
from ris_core.training.recipe import Recipe
from ris_core.tuning import Tuning


def report(*kinds: str, iou: float = 0.5) -> Report:
    """An expression of each kind, absent ones refused, the others answered with that IoU."""
    samples = [Sample(Path(), 1, 1, "val", "x", 1, 1, (), kind=kind) for kind in kinds]
    scores = [
        Score(round(100 * iou), 100, True, False, 0.5) if kind != "absent" else Score(0, 0, False, True, 0.5)
        for kind in kinds
    ]
    return Report(samples, scores)


REPORTS = {("shapes", "val"): report("name", "name"), ("shapes", "test"): report("name", iou=0.25)}
COMMAND = "ris calibrate --model lda-12345678 --dataset shapes --accepted 0.9"


def small() -> LDA:
    return LDA(image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16))


def dataset(folder: Path) -> Path:
    (folder / "instances.json").write_text('{"info": {"description": "Discs.", "license": "none"}}')
    return folder


def test_a_card_with_another_operating_point(tmp_path: Path) -> None:
    card = write_card(small(), OperatingPoint(96, 0.4, 0.3), Recipe(), [dataset(tmp_path)], REPORTS, accepted=0.8)
    assert "from P = 0.3, a pixel belongs to it from P = 0.4, photos are read at 96" in card
    assert card.count("--accepted 0.8") == 1
    reports = {("shapes", "test"): report("name", iou=0.75)}
    again = refit_card(card, OperatingPoint(96, 0.55, 0.2), reports, COMMAND)
    gone, new = (set(one.splitlines()) - set(other.splitlines()) for one, other in ((card, again), (again, card)))
    assert len(gone) == 3
    assert all(line.startswith(("Operating point, ", "| shapes ")) for line in gone)
    assert new == {
        next(line for line in again.splitlines() if "from P = 0.2, a pixel belongs to it from P = 0.55" in line),
        next(line for line in again.splitlines() if line.startswith("| shapes | test | 1 | 0.750 | 0.750 |")),
        COMMAND,
    }
    # The command comes last, inside the fence, and a third card would tell of both.
    assert again.endswith(f"--accepted 0.8\n{COMMAND}\n```\n")
    assert refit_card(again, OperatingPoint(), reports, COMMAND).endswith(f"{COMMAND}\n{COMMAND}\n```\n")


def test_kinds_have_a_table_of_their_own_where_there_are_several(tmp_path: Path) -> None:
    reports = {("shapes", "val"): report("absent", "derived", "derived", "name"), ("other", "val"): report("name")}
    card = write_card(small(), OperatingPoint(), Recipe(), [dataset(tmp_path)], reports)
    table = card[card.index("| dataset | split | kind |") : card.index("## Data")].splitlines()
    assert table[0] == "| dataset | split | kind | expressions | mIoU | oIoU | Prec@0.5 | N-acc | ECE |"
    assert table[2:] == [
        "| shapes | val | name | 1 | 0.500 | 0.500 | 1.000 | - | 0.000 |",
        "| shapes | val | derived | 2 | 0.500 | 0.500 | 1.000 | - | 0.000 |",
        "| shapes | val | absent | 1 | - | - | - | 1.000 | 0.500 |",
        "| other | val | name | 1 | 0.500 | 0.500 | 1.000 | - | 0.000 |",
        "",
    ]
    refitted = refit_card(card, OperatingPoint(), REPORTS, COMMAND)
    assert "| kind |" not in refitted
    assert "## Data" in refitted


def test_the_command_names_what_is_unusual(tmp_path: Path) -> None:
    recipe = Recipe(paste=0.3, precision="bfloat16", accumulate=2)
    card = write_card(small(), OperatingPoint(), recipe, [dataset(tmp_path)], REPORTS)
    assert "--views 0 --seed 0 --precision bfloat16 --accumulate 2 --paste 0.3 --accepted 0.95\n" in card
    assert "--paste" not in write_card(small(), OperatingPoint(), Recipe(), [tmp_path], REPORTS)


def test_a_frozen_text_encoder_is_told_from_one_that_was_trained(tmp_path: Path) -> None:
    model = LDA(
        image_encoder("efficientnet-lite0"), text_encoder("minilm"), LDAOptions(width=16), Tuning("full", text_stages=0)
    )
    card = write_card(model, OperatingPoint(), Recipe(), [dataset(tmp_path)], REPORTS)
    assert "the text encoder is frozen." in card
    assert "--encoders full --stages 1 --text-stages 0" in card


def test_a_mean_tells_of_all_that_went_into_it(tmp_path: Path) -> None:
    folders = []
    for number in (1, 2):
        card = write_card(
            small(), OperatingPoint(presence=number / 10), Recipe(seed=number), [dataset(tmp_path)], REPORTS
        )
        folders.append(tmp_path / str(number))
        checkpoint.save(small(), OperatingPoint(presence=number / 10), folders[-1], card)
    card, versions = mean_card(folders), " ".join(checkpoint_files.version(folder) for folder in folders)
    assert card.startswith(f"# Mean of {versions}\n")
    assert card.count("Discs. Licence: none") == 1
    assert [line.count("--seed 1") - line.count("--seed 2") for line in card.splitlines() if "ris train" in line] == [
        1,
        -1,
    ]
    assert card.endswith(f"\nris average {versions}\n```\n")
    assert "mIoU" not in card
    # `ris calibrate` then adds what is missing.
    whole = refit_card(card, OperatingPoint(presence=0.2), REPORTS, COMMAND)
    assert "| shapes | test | 1 | 0.250 |" in whole
    assert "from P = 0.2" in whole
    assert whole.count(COMMAND) == 1


def test_a_card_without_those_parts_gets_them() -> None:
    card = refit_card("# Fine-tuned from lda-12345678\n\n3 passes.\n", OperatingPoint(presence=0.2), REPORTS, COMMAND)
    assert card.startswith("# Fine-tuned from lda-12345678\n\n3 passes.\n\nOperating point, fixed on")
    assert "\n## Figures\n" in card
    assert "| shapes | test | 1 | 0.250 |" in card
    assert card.endswith(f"\n\n## Commands\n```\n{COMMAND}\n```\n")
