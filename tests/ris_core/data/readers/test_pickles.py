"""Python 2's pickles read exactly; whatever else a pickle can do is refused before it happens."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import python2
from python2 import Long

from ris_core.data.readers.pickles import read_plain_pickle
from ris_core.errors import DatasetError

# What Python 2.7.18 prints for cPickle.dumps([{'raw': u'caf\xe9', 'also': val, 'ann_id': 1719310L, 'split': val}], 2)
# and for the same at protocol 0.
BYTES = (
    b"\x80\x02]q\x01}q\x02(U\x03rawq\x03X\x05\x00\x00\x00caf\xc3\xa9q\x04U\x04alsoq\x05U\x03valq\x06U\x06ann_idq\x07"
    b"\x8a\x03\x0e<\x1aU\x05splitq\x08h\x06ua."
)
OLDEST = (
    b"(lp1\n(dp2\nS'raw'\np3\nVcaf\xe9\np4\nsS'also'\np5\nS'val'\np6\nsS'ann_id'\np7\nL1719310L\nsS'split'\np8\ng6\nsa."
)
VALUE = [{"raw": "café", "also": "val", "ann_id": 1719310, "split": "val"}]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        (tmp_path / "refs.p").write_bytes(data)
        return read_plain_pickle(tmp_path / "refs.p")

    return read


def test_known_bytes(read) -> None:
    source = [{b"raw": "café", b"also": b"val", b"ann_id": Long(1719310), b"split": b"val"}]
    assert python2.dumps(source) == BYTES
    assert read(BYTES) == read(OLDEST) == VALUE


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (b"\xe9t\xe9", "été"),  # Latin-1
        (b"long " * 60, "long " * 60),
        ([0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31)],) * 2,
        ([Long(0), Long(-128), Long(2**63)], [0, -128, 2**63]),
        ([0.25, -1e300, None, True, False],) * 2,
        ({b"empty": [], b"none": {}}, {"empty": [], "none": {}}),
        ([[number] for number in range(300)],) * 2,  # memo numbers of more than a byte
    ],
    ids=lambda value: repr(value)[:30],
)
def test_all_that_is_plain(read, source: Any, value: Any) -> None:
    assert read(python2.dumps(source)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python_3_writes_plain_data_too(read, protocol: int) -> None:
    assert read(pickle.dumps(VALUE, protocol)) == VALUE


class Runs:
    """Pickled, it makes a folder when it is read by anything careless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_is_refused_unrun(read, tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps([{"ref_id": 1}, Runs(tmp_path / "ran")], protocol)
    with pytest.raises(DatasetError, match=r"refs\.p isn't a pickle of plain data \(it asks for posix\.mkdir\)"):
        read(data)
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"(S'touch ran'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch ran'\no.",  # OBJ
        b"\x80\x02c__builtin__\neval\n(U\x04exitq\x01tR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01a\x85R.",  # STACK_GLOBAL
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\nN.",
        b"\x80\x02ccollections\nOrderedDict\n)R.",
        b"\x80\x02c__builtin__\nset\n]\x85R.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pnumber\n.",  # a persistent id
        b"\x80\x02}U\x01a}b.",  # BUILD upon plain data
        b"\x80\x02]U\x01a\x85R.",  # a list, called
        b"\x80\x02]]s.",
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"I1\n(J.",
        b"",
        b"PK\x03\x04",
        b"not a pickle",
    ],
    ids=repr,
)
def test_all_else_is_refused(read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="isn't a pickle of plain data"):
        read(data)
    assert [path.name for path in tmp_path.iterdir()] == ["refs.p"]


def test_no_part_of_a_pickle_passes_for_the_whole(read) -> None:
    for length in range(len(BYTES)):
        with pytest.raises(DatasetError, match="isn't a pickle of plain data"):
            read(BYTES[:length])
