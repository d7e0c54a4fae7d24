"""A recipe that can't be followed is refused before anything is read or built, torch included."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ris_core.errors import InputError
from ris_core.training.recipe import Recipe


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"side": 100}, "multiple of 96"),
        ({"side": 0}, "multiple of 96"),
        ({"paste": 1.5}, "between 0 and 1"),
        ({"paste": 0.1, "views": 2}, "Nothing can be pasted onto views"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused_at_once(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Recipe(**change)


def test_a_recipe_is_named_without_torch() -> None:
    code = "import sys, ris_core.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
