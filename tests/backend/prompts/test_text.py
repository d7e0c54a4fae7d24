"""When two prompts are one expression."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.prompts.text import clean


@given(st.text(), st.text())
def test_cleaning_is_idempotent_and_blind_to_space(first: str, second: str) -> None:
    assert clean(clean(first)) == clean(first)
    assert clean(f" {first}\n\t{second} ") == clean(f"{first} {second}")
