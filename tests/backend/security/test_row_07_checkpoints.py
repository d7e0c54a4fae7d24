"""Row 7, weights: whatever a checkpoint's config.json says, it is loaded or refused at once, and nothing is built."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from checkpoints import random_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ris_core import checkpoint, checkpoint_files
from ris_core.checkpoint_files import CONFIG, OperatingPoint
from ris_core.errors import CheckpointError
from ris_core.models import OPTIONS, listener
from ris_core.switches import MOST, checked
from ris_core.tuning import Tuning
from ris_core.zero_shot.pointer import parts_of

READERS: tuple[Callable[[Path], object], ...] = (
    checkpoint.load,
    checkpoint_files.read_config,
    checkpoint_files.operating_point,
    checkpoint_files.version,
    checkpoint_files.is_zero_shot,
    checkpoint_files.trainable_config,
    checkpoint_files.answers_clicks,
    checkpoint.tuning,
    parts_of,
    listener.load,
)
DEEP = "[" * 100_000

RAW: dict[str, bytes] = {
    "empty": b"",
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "not UTF-8": b"\xff\xfe\x00{",
    "no JSON": b"{",
    "deeply nested": DEEP.encode() + b"]" * 100_000,
    "deeply nested inside": b'{"format": 2, "model": "lda", "options": ' + DEEP.encode() + b"]" * 100_000 + b"}",
    "a number of 10,000 digits": b'{"format": ' + b"9" * 10_000 + b"}",
    "5 MB": b'{"format": 2, "model": "' + b"a" * 5_000_000 + b'"}',
    "zero bytes": b"\0" * 100,
}
HUGE = 10**30

CHANGES: dict[str, dict[str, Any]] = {
    "model is a list": {"model": []},
    "model is an object": {"model": {}},
    "no weights": {"weights": None},
    "weights are a list": {"weights": []},
    "no options": {"options": None},
    "options are a list": {"options": []},
    "a pointer without sources": {"model": "clipseg"},
    "a pointer's sources are a list": {"model": "clipseg", "sources": []},
    "a pointer's source is text": {"model": "clipseg", "sources": {"model": "x"}},
    "a pointer out of the cache": {
        "model": "clipseg",
        "sources": {"model": {"folder": "../..", "files": {"etc/passwd": "0"}}},
    },
    "a pointer to a file elsewhere": {
        "model": "clipseg",
        "sources": {"model": {"folder": "a", "files": {"../../../etc/passwd": "0"}}},
    },
    "format is a list": {"format": [2]},
    "encoder is a list": {"image_encoder": ["efficientnet-lite2"]},
    "encoder is an object": {"text_encoder": {"a": 1}},
    "encoder is a path": {"image_encoder": "../../etc"},
    "a width of 10**9": {"options": {"width": 10**9}},
    "a width of 100,000": {"options": {"width": 100_000}},
    "a width of 10**30": {"options": {"width": HUGE}},
    "a width of 0": {"options": {"width": 0}},
    "a width of -1": {"options": {"width": -1}},
    "a width of 1.5": {"options": {"width": 1.5}},
    "a width that isn't finite": {"options": {"width": float("inf")}},
    "a width that is a list": {"options": {"width": [[128]]}},
    "a thousand rates": {"options": {"rates": [1] * 1000}},
    "a rate of 10**9": {"options": {"rates": [10**9]}},
    "rates are text": {"options": {"rates": "1,2"}},
    "no such fusion": {"options": {"fusion": "magic"}},
    "fusion is a list": {"options": {"fusion": []}},
    "no tuning": {"tuning": None},
    "a rank of 10**9": {"tuning": {"encoders": "adapters", "rank": 10**9}},
    "a rank of 0": {"tuning": {"encoders": "adapters", "rank": 0}},
    "no such tuning": {"tuning": {"encoders": "all"}},
    "no operating point": {"operating_point": None},
    "an operating point that is a list": {"operating_point": [1]},
    "a side of 10**9": {"operating_point": {"side": 10**9}},
    "a side of 0": {"operating_point": {"side": 0}},
    "a threshold that is text": {"operating_point": {"mask": "half"}},
    "a threshold that is no number": {"operating_point": {"mask": float("nan")}},
    "names are numbers": {"operating_point": {"names": [1, 2]}},
    "a million names": {"operating_point": {"names": ["a"] * 1_000_000}},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("weights") / "model", clicks=True)


@pytest.fixture
def changed(saved: Path, tmp_path: Path) -> Callable[[bytes | dict[str, Any]], Path]:
    """A copy of a checkpoint with another config.json: of these bytes, or with these changes."""

    def write(change: bytes | dict[str, Any]) -> Path:
        folder = tmp_path / "changed"
        folder.mkdir()
        for name in (checkpoint_files.WEIGHTS, checkpoint_files.CARD):
            (folder / name).write_bytes((saved / name).read_bytes())
        if isinstance(change, dict):
            change = json.dumps(json.loads((saved / CONFIG).read_text()) | change).encode()
        (folder / CONFIG).write_bytes(change)
        return folder

    return write


def assert_is_refused_or_read(folder: Path) -> None:
    for read in READERS:
        start = time.monotonic()
        try:
            read(folder)
        except CheckpointError as error:
            assert len(str(error)) < 1000, read.__name__
        assert time.monotonic() - start < 2, read.__name__


@pytest.mark.parametrize("content", RAW.values(), ids=RAW.keys())
def test_what_is_no_configuration_is_refused(changed: Callable[[bytes | dict[str, Any]], Path], content: bytes) -> None:
    folder = changed(content)
    assert_is_refused_or_read(folder)
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_odd_value_is_refused_at_once(
    changed: Callable[[bytes | dict[str, Any]], Path], change: dict[str, Any]
) -> None:
    folder = changed(change)
    assert_is_refused_or_read(folder)
    with pytest.raises(CheckpointError):
        checkpoint.load(folder)


@pytest.mark.parametrize("missing", ["model", "image_encoder", "text_encoder", "options", "tuning", "operating_point"])
def test_what_is_missing_is_named(saved: Path, changed: Callable[[bytes | dict[str, Any]], Path], missing: str) -> None:
    config = json.loads((saved / CONFIG).read_text())
    del config[missing]
    with pytest.raises(CheckpointError, match=missing):
        checkpoint.load(changed(json.dumps(config).encode()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SWITCHES = (*OPTIONS.values(), Tuning, OperatingPoint, listener.ListenerOptions)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_switches_are_read_or_refused(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(SWITCHES))
    own = asdict(kind())
    values = data.draw(json_values | st.dictionaries(st.sampled_from(list(own)), json_values))
    try:
        read = checked(kind, values)
    except CheckpointError:
        return
    assert isinstance(read, kind)


@pytest.mark.parametrize("kind", SWITCHES)
def test_what_a_checkpoint_says_of_itself_is_read_back(kind: type[Any]) -> None:
    assert checked(kind, json.loads(json.dumps(asdict(kind())))) == kind()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_widest_model_is_built_in_time(name: str) -> None:
    """Within the bounds there is nothing that takes a minute."""
    from ris_core.encoders import image_encoder, text_encoder

    image_encoder("efficientnet-lite2"), text_encoder("minilm")
    config = {
        "model": name,
        "image_encoder": "efficientnet-lite2",
        "text_encoder": "minilm",
        "options": {"width": MOST},
        "tuning": {},
    }
    start = time.monotonic()
    checkpoint.build(config)
    assert time.monotonic() - start < 20
