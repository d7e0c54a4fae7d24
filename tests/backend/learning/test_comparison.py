"""Two versions on what is held out: their scores, what the gate says, and pictures of what changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, snapshot
from PIL import Image

from backend.errors import NotFound
from backend.learning.comparison import compare, reference_scores
from backend.registry import Registry, Version
from ris_core.errors import DatasetError


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def test_two_versions_are_compared_on_what_is_held_out(registry: Registry, tmp_path: Path) -> None:
    """One refuses whatever it is asked for, one answers with the whole photo."""
    refuses, finds = (
        registry.add(PROJECT, random_checkpoint(tmp_path / str(answer), finds=answer), {}).name
        for answer in (False, True)
    )
    with pytest.raises(DatasetError, match="no snapshot to compare on"):
        compare(registry, tmp_path, PROJECT, (refuses, finds), 4)
    made = snapshot(tmp_path)
    with pytest.raises(NotFound, match="no version lda-00000000"):
        compare(registry, tmp_path, PROJECT, (refuses, "lda-00000000"), 4)
    compared = compare(registry, tmp_path, PROJECT, (refuses, f"{finds}.3fa2c1"), 4, tmp_path / "pictures")
    shown = compared.as_json()
    assert shown["snapshot"] == made.id
    assert (shown["before"]["version"], shown["after"]["version"]) == (refuses, finds)
    assert (shown["before"]["mIoU"], shown["after"]["mIoU"]) == (0.0, 0.5)
    assert (shown["before"]["N-acc"], shown["after"]["N-acc"]) == (1.0, 0.0)
    assert [(row["task"], row["before"], row["after"]) for row in shown["expressions"]] == [
        *((number, 0.0, 0.5) for number in range(1, 6)),
        (6, 1.0, 0.0),
    ]
    assert [row.task for row in compared.changed] == [6, 1, 2, 3, 4, 5]
    assert shown["gate"]["numbers"]["difference"] == pytest.approx((5 * 0.5 - 1) / 6)
    assert shown["pictures"] == [str(tmp_path / "pictures" / name) for name in ("better.jpg", "worse.jpg")]
    # Two answers for each of five photos, four a row; two for the one that got worse.
    heights = []
    for path in compared.pictures:
        with Image.open(path) as picture:
            picture.load()
            heights.append(picture.height)
    assert heights[0] > 2 * heights[1]


def test_equal_versions_have_no_pictures(registry: Registry, tmp_path: Path) -> None:
    name = registry.add(PROJECT, random_checkpoint(tmp_path / "finds"), {}).name
    snapshot(tmp_path)
    compared = compare(registry, tmp_path, PROJECT, (name, name), 4, tmp_path / "pictures")
    assert (compared.pictures, compared.changed, compared.verdict.decision) == ((), [], "passed")


def test_what_was_accepted_against_the_gate_is_accepted() -> None:
    for decision, scores in (("promoted", {"key": 0.9}), ("kept", {})):
        version = Version("lda-1", Path(), {"decision": decision, "worked": {"key": 0.9}})
        assert reference_scores(version) == scores
    assert reference_scores(Version("lda-0", Path(), {"origin": "shipped"})) == {}
