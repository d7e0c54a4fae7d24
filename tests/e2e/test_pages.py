"""Whoever follows a page notices where it and the program part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page, Step, missing

words = st.text("abcxyz019 ./:-", min_size=1, max_size=30).filter(lambda line: line.strip(" .") and "..." not in line)


def page(tmp_path: Path, text: str) -> Page:
    file = tmp_path / "page.md"
    file.write_text(text)
    return Page(file)


def test_each_command_comes_with_what_it_prints(tmp_path: Path) -> None:
    text = "Do\n```sh\nmake up\n```\nand read\n```text\nOpen  http\nLog in\n```\nthen\n```python\nprint(1)\n```\n"
    assert page(tmp_path, text).steps() == [
        Step("sh", "make up\n", ("Open  http", "Log in")),
        Step("python", "print(1)\n", ()),
    ]


@pytest.mark.parametrize("block", ["```\nmake up\n```\n", "```text\nOpen\n```\n", "```yaml\na: 1\n```\n"])
def test_a_block_that_nobody_would_run_or_compare_is_refused(tmp_path: Path, block: str) -> None:
    with pytest.raises(ValueError, match="what to do with this block"):
        page(tmp_path, block).steps()


def test_what_is_quoted_has_to_stand_in_the_page(tmp_path: Path) -> None:
    quoting = page(tmp_path, "Press *Roll\nback*: `It is in production now.` Or don't press Submit.")
    assert quoting.says("Roll back") == "Roll back"
    assert quoting.says("It is in production now.")
    with pytest.raises(AssertionError, match="Submit"):
        quoting.says("Submit")


@given(st.lists(words, min_size=1, max_size=5), st.lists(words, max_size=5))
def test_lines_that_are_printed_in_this_order_among_others_are_not_missing(lines: list[str], others: list[str]) -> None:
    printed = "\n".join([*others, *(f"│ {line} and more │" for line in lines)])
    assert missing(tuple(lines), printed) == []


@given(st.lists(words, min_size=1, max_size=5))
def test_a_line_that_is_not_printed_is_missing(lines: list[str]) -> None:
    assert missing((*lines, "Q"), "\n".join(lines)) == ["Q"]


def test_lines_in_another_order_and_middles_of_lines_are_missing() -> None:
    assert missing(("a", "b"), "b\na") == ["b"]
    assert missing(("up",), "make up") == ["up"]


def test_dots_stand_for_anything() -> None:
    assert missing(("['the cup'] (400, 600) ...",), "['the cup'] (400, 600) 61234") == []
    assert missing(("a ... c",), "a b d") == ["a ... c"]
