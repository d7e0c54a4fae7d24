"""Labels for a dataset's categories: which are missing, and an interface that has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from backend.datasets.categories import kept_numbers, number_categories
from backend.datasets.imports.folders import FoundFolder, FoundObject, FoundPicture
from backend.datasets.imports.labels import check_labels, interface_for, with_labels
from backend.labelstudio.label_config import LabelConfig, parse
from backend.projects.connect import LABEL_CONFIG
from ris_core.errors import InputError

XML = (
    '<View><!-- kept --><Image name="img" value="$image"/><BrushLabels name="brush" toName="img">'
    '<Label value="cat"/><Label value="big dog" alias="dog" category="9"/></BrushLabels>'
    '<Text name="t" value="$t"/></View>'
)


def folder(categories: Mapping[str, int], *used: str) -> FoundFolder:
    objects = tuple(FoundObject(n, name, None) for n, name in enumerate(used))
    return FoundFolder("coco", categories, 1, lambda: iter([FoundPicture("a", Path("a"), objects=objects)]))


def numbers(config: LabelConfig) -> dict[str, str | None]:
    return {label.value: label.attributes.get("category") for label in config.labels}


def test_missing_labels_are_listed_as_they_can_be_added() -> None:
    config = parse(XML)
    check_labels(folder({"cat": 1, "unused": 2, "big dog": 3}, "cat", "big dog", "unlabelled"), config)
    with pytest.raises(InputError, match="2 of the dataset's categories") as caught:
        check_labels(folder({'a "b" & c': 4, "cup": 5, "unused": 6}, "cup", 'a "b" & c'), config)
    assert '<Label value="cup" category="5"/>' in str(caught.value) and "&amp;" in str(caught.value)


def test_added_labels_keep_their_numbers_unless_they_are_others() -> None:
    config, kept = parse(XML), {"cat": 1, "cup": 7, "gone": 8}
    found = folder({"cat": 5, "car": 1, "cup": 7, "bus": 8, "tree": 9, 'a "b" <c> & d': 10, "ten": 10})
    xml = with_labels(XML, config, found, kept)
    assert numbers(parse(xml)) == {
        "cat": None,
        "big dog": "9",
        "car": None,
        "cup": "7",
        "bus": None,
        "tree": None,
        'a "b" <c> & d': "10",
        "ten": None,
    }
    assert "<!-- kept -->" in xml and '<Text name="t" value="$t"' in xml
    assert with_labels(xml, parse(xml), found, kept) == xml


def test_a_project_of_its_own_has_the_folders_categories(tmp_path: Path) -> None:
    config = parse(interface_for(folder({"cat": 17, "dog": 18, "unlabelled": 19})))
    assert numbers(config) == {"cat": "17", "dog": "18"}
    assert config.absent and config.prompt and config.answer
    assert kept_numbers(tmp_path, 1) == {}
    assert number_categories(tmp_path, 1, config, ()) == kept_numbers(tmp_path, 1) == {"cat": 17, "dog": 18}
    assert interface_for(folder({})) == LABEL_CONFIG
