"""A category's number is for good: whatever labels come, go, move or claim a number."""

from __future__ import annotations

import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.datasets.categories import number_categories
from backend.labelstudio import label_config
from ris_core.errors import DatasetError


def number(home: Path, *labels: str | tuple[str, str], used: Collection[str] = ()) -> dict[str, int]:
    """Labels by value, or by value and `category`."""
    written = [
        f'value="{each}"' if isinstance(each, str) else 'value="{}" category="{}"'.format(*each) for each in labels
    ]
    tags = "".join(f"<Label {attributes}/>" for attributes in written)
    xml = f'<View><Image name="i" value="$i"/><BrushLabels name="b" toName="i">{tags}</BrushLabels></View>'
    return number_categories(home, 7, label_config.parse(xml), used)


def test_the_first_time_they_are_numbered_as_in_the_interface(tmp_path: Path) -> None:
    assert number(tmp_path, "cat", "dog", used={"zebra", "ant", "dog"}) == {"cat": 1, "dog": 2, "ant": 3, "zebra": 4}


def test_labels_come_go_and_move(tmp_path: Path) -> None:
    number(tmp_path, "cat", "dog", "cup")
    assert number(tmp_path, "cup", "bird", "cat") == {"cup": 3, "bird": 4, "cat": 1}
    assert number(tmp_path, "bird", used={"dog"}) == {"bird": 4, "dog": 2}
    assert number(tmp_path, "fish") == {"fish": 5}
    assert number(tmp_path, "dog", "cat", "cup", "bird") == {"dog": 2, "cat": 1, "cup": 3, "bird": 4}


def test_the_attribute_decides(tmp_path: Path) -> None:
    assert number(tmp_path, ("cat", "40"), "dog", ("cup", "0")) == {"cat": 40, "dog": 41, "cup": 0}
    assert number(tmp_path, ("cat", "7"), ("dog", "41"), "bird") == {"cat": 7, "dog": 41, "bird": 42}
    # Without it the last one stays.
    assert number(tmp_path, "cat", "dog") == {"cat": 7, "dog": 41}


def test_who_is_pushed_out_gets_a_new_number(tmp_path: Path) -> None:
    number(tmp_path, "cat", "dog")
    assert number(tmp_path, "cat", "dog", ("cup", "1")) == {"cat": 3, "dog": 2, "cup": 1}
    assert number(tmp_path, "cat", "dog", "cup") == {"cat": 3, "dog": 2, "cup": 1}


def test_of_two_claims_the_first_counts_and_what_is_no_number_is_none(tmp_path: Path) -> None:
    labels = (
        ("cat", "5"),
        ("dog", "5"),
        ("cup", "-1"),
        ("bird", "animal"),
        ("ant", "1.5"),
        ("bee", "²"),
        ("fly", "9" * 5000),
    )
    assert number(tmp_path, *labels) == {"cat": 5, "dog": 6, "cup": 7, "bird": 8, "ant": 9, "bee": 10, "fly": 11}


NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True)
INTERFACES = st.lists(
    st.tuples(NAMES, st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 9), max_size=2)), max_size=5
)


@settings(deadline=None, max_examples=60)
@given(INTERFACES)
def test_no_two_share_one_and_only_an_attribute_changes_one(
    tmp_path_factory: pytest.TempPathFactory, interfaces: list[tuple[list[str], dict[str, int]]]
) -> None:
    home = tmp_path_factory.mktemp("home")
    before: dict[str, int] = {}
    for names, claims in interfaces:
        labels = [(name, str(claims[name])) if name in claims else name for name in names]
        now = number(home, *labels)
        assert len(set(now.values())) == len(now)
        claimed = {claims[name] for name in names if name in claims}
        for name in names:
            if name in before and name not in claims and before[name] not in claimed:
                assert now[name] == before[name]
        gone = {number for name, number in before.items() if name not in now}
        assert gone & set(now.values()) <= claimed
        # Who was away while its number was claimed has lost it.
        before = {name: number for name, number in before.items() if number not in now.values()} | now


def test_many_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: number(tmp_path, f"label {n % 4}"), range(32)))
    merged: dict[str, int] = {}
    for answer in answers:
        for name, value in answer.items():
            assert merged.setdefault(name, value) == value
    assert sorted(merged.values()) == [1, 2, 3, 4]


@pytest.mark.parametrize("content", ["{", "[]", '{"numbers": 3}', '{"numbers": {"cat": "x"}, "last": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    number(tmp_path, "cat")
    file = tmp_path / "projects" / "7.categories.json"
    assert json.loads(file.read_text()) == {"numbers": {"cat": 1}, "last": 1}
    file.write_text(content)
    with pytest.raises(DatasetError, match=r"7\.categories\.json, which keeps the numbers of the categories"):
        number(tmp_path, "cat")
