"""Prompt sheets: written by hand, by spreadsheets and by the command, and never half of one."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.home import prompt_sheet_file
from backend.prompts.sheet import (
    EMPTY,
    PromptSheet,
    SheetEntry,
    SheetError,
    edit_sheet,
    load_sheet,
    parse_csv,
    parse_json,
    read_sheet,
)

CSV = (
    "label,prompt,negative,alias\n"
    'person,a person | a cyclist,a statue,"pedestrian | man, woman"\n'
    "person,the driver,,\n"
    "car,,,Pkw\n"
    "tree,,,\n"
)
SHEET = PromptSheet(
    {
        "person": SheetEntry(("a person", "a cyclist", "the driver"), ("a statue",), ("pedestrian", "man, woman")),
        "car": SheetEntry(aliases=("Pkw",)),
    }
)


def test_a_spreadsheet_is_read() -> None:
    assert parse_csv(CSV.encode()) == SHEET
    assert parse_csv(b"\xef\xbb\xbflabel,prompt\r\ncar,the car\r\n") == PromptSheet({"car": SheetEntry(("the car",))})


def test_json_is_read() -> None:
    assert parse_json(json.dumps(SHEET.as_json()).encode()) == SHEET


TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda text: bool(text.strip())
)
SENTENCES = st.lists(TEXTS, max_size=3)


@given(st.dictionaries(TEXTS, st.fixed_dictionaries({"prompts": SENTENCES, "negatives": SENTENCES}), max_size=3))
def test_what_is_written_is_read_again(content: dict[str, dict[str, list[str]]]) -> None:
    sheet = parse_json(json.dumps(content).encode())
    assert parse_json(json.dumps(sheet.as_json()).encode()) == sheet


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "isn't JSON"),
        (b"\xff", "isn't JSON"),
        (b"[" * 100_000, "isn't JSON"),
        (b"[]", "should be an object"),
        (b'{"cat": ["the cat"]}', 'label "cat" of s.json should hold lists'),
        (b'{"cat": {"prompt": ["the cat"]}}', "prompts, negatives, aliases and nothing else"),
        (b'{"cat": {"prompts": "the cat"}}', '"prompts" of the label "cat" of s.json should be a list'),
        (b'{"cat": {"prompts": [3]}}', "should be a list"),
        (b'{"cat": {"prompts": [" "]}}', "sentence of 0 characters: write 1 to 500"),
        (b'{"cat": {"prompts": ["%s"]}}' % (b"x" * 501), "sentence of 501 characters"),
        (b'{" ": {"prompts": ["x"]}}', "entry without a label"),
        (b"%s" % (b" " * ((1 << 20) + 1)), "more than 1048576"),
    ],
)
def test_bad_json_is_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(SheetError) as raised:
        parse_json(content, "s.json")
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "should have the columns"),
        (b"prompt\nthe cat\n", "should have the columns"),
        (b"label,colour\ncat,red\n", "should have the columns"),
        (b"label,prompt\ncat,the cat, the dog\n", "Line 2 of s.csv has more columns"),
        (b"label,prompt\n,the cat\n", "entry without a label"),
        (b'label,prompt\ncat,"the cat\n', "isn't a CSV file"),
        (b"label\n\xff\n", "isn't a CSV file in UTF-8"),
    ],
)
def test_a_bad_spreadsheet_is_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(SheetError) as raised:
        parse_csv(content, "s.csv")
    assert sentence in str(raised.value)


def test_files_are_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.CSV").write_text(CSV)
    (tmp_path / "a.json").write_text(json.dumps(SHEET.as_json()))
    assert read_sheet(tmp_path / "a.CSV") == read_sheet(tmp_path / "a.json") == SHEET
    with pytest.raises(SheetError, match=r"neither \.json nor \.csv"):
        read_sheet(tmp_path / "a.xlsx")
    with pytest.raises(SheetError, match="can't be read"):
        read_sheet(tmp_path / "none.json")


def test_an_entry_goes_by_value_or_alias() -> None:
    assert SHEET.entry("Auto", "car") == SHEET.entry("car", None) == SheetEntry(aliases=("Pkw",))
    assert SHEET.entry("zebra", None) == SheetEntry()
    assert SHEET.names("person") == ["pedestrian", "man, woman", "person", "cyclist", "driver"]


def test_a_change_replaces_what_it_names_and_nothing_else() -> None:
    changed = SHEET.change("car", prompts=["the  car", "the car"]).change("person", aliases=[])
    assert changed.entry("car") == SheetEntry(("the car",), (), ("Pkw",))
    assert changed.entry("person").aliases == ()
    assert changed.entry("person").prompts == SHEET.entry("person").prompts
    assert "car" not in SHEET.change("car", aliases=[]).entries
    with pytest.raises(SheetError):
        SHEET.change("car", prompts=["x" * 501])


def test_a_project_has_its_own_sheet(tmp_path: Path) -> None:
    assert load_sheet(tmp_path, 7) is EMPTY
    edit_sheet(tmp_path, 7, lambda sheet: sheet.change("car", prompts=["das schöne Auto"]))
    assert load_sheet(tmp_path, 7).entry("car").prompts == ("das schöne Auto",)
    assert "schöne" in prompt_sheet_file(tmp_path, 7).read_text(encoding="utf-8")
    assert load_sheet(tmp_path, 8) is EMPTY
    edit_sheet(tmp_path, 7, lambda sheet: EMPTY)
    assert not prompt_sheet_file(tmp_path, 7).exists()


def test_a_failed_change_leaves_the_sheet(tmp_path: Path) -> None:
    edit_sheet(tmp_path, 7, lambda sheet: SHEET)
    with pytest.raises(SheetError):
        edit_sheet(tmp_path, 7, lambda sheet: sheet.change("car", prompts=["x" * 501]))
    assert load_sheet(tmp_path, 7) == SHEET


def test_a_damaged_sheet_names_its_file(tmp_path: Path) -> None:
    prompt_sheet_file(tmp_path, 7).parent.mkdir()
    prompt_sheet_file(tmp_path, 7).write_text("{")
    with pytest.raises(SheetError, match=r"7\.prompts\.json isn't JSON"):
        load_sheet(tmp_path, 7)


def test_editors_wait_for_each_other(tmp_path: Path) -> None:
    """Each of twenty writers adds a label; no one's is lost."""
    writers = [
        threading.Thread(
            target=edit_sheet, args=(tmp_path, 7, lambda sheet, name=f"l{number}": sheet.change(name, prompts=["x"]))
        )
        for number in range(20)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(load_sheet(tmp_path, 7).entries) == 20
