"""A design as it is typed, and what training begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ris_core.checkpoint_files import shipped
from ris_core.errors import InputError
from ris_core.models import MODELS
from ris_core.training.design import begin, describe_designs, parse_options, tuning_of
from ris_core.training.recipe import Design
from ris_core.tuning import Tuning


def test_switches_are_of_their_types() -> None:
    options = parse_options("lda", ["width=32", "fusion=sum"])
    assert (options["width"], options["fusion"]) == (32, "sum")
    assert parse_options("lda", []) == options | {name: parse_options("lda", [])[name] for name in ("width", "fusion")}


@pytest.mark.parametrize(
    ("name", "assignment", "sentence"),
    [
        ("yolo", "width=32", "no model 'yolo'"),
        ("lda", "wings=2", "lda has no switch wings"),
        ("lda", "fusion=glue", "--option fusion=glue: Input should"),
        ("lda", "width", "--option width=: Input should"),
    ],
)
def test_what_is_no_switch_is_one_sentence(name: str, assignment: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_options(name, [assignment])


def test_what_isnt_chosen_is_as_in_the_start() -> None:
    assert tuning_of(None, encoders=None, rank=None) == Tuning()
    assert tuning_of(None, encoders="adapters", rank=4) == Tuning("adapters", rank=4)
    start = tuning_of(shipped())
    assert start.encoders == "adapters"
    assert tuning_of(shipped(), rank=start.rank + 1, stages=None) == Tuning(
        "adapters", start.stages, start.text_stages, start.rank + 1
    )


def test_training_begins_with_a_design_or_a_checkpoint() -> None:
    options = parse_options("lda", ["width=32"])
    model = begin(Design("lda", "efficientnet-lite0", "minilm", options), Tuning())
    assert (model.image_encoder.name, model.options.width) == ("efficientnet-lite0", 32)
    again: Path = shipped()
    assert begin(again, tuning_of(again)).tuning == tuning_of(again)


def test_every_design_is_described_with_its_switches() -> None:
    cards = describe_designs()
    assert [card.model for card in cards] == list(MODELS)
    assert all(card.parameters > card.trainable > 0 for card in cards)
    assert "width" in cards[-1].switches
