"""MATLAB's arrays against known bytes and against SciPy, which reads and writes the format independently."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ris_core.data.readers import mat
from ris_core.data.readers.mat import read_mat
from ris_core.errors import DatasetError


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    padding = bytes(-len(content) % 8) if kind != 15 else b""
    return struct.pack(f"{order}II", kind, len(content)) + content + padding


def matrix(values: bytes, shape: tuple[int, ...], kind: int = 2, array_class: int = 9, order: str = "<") -> bytes:
    dimensions = struct.pack(f"{order}{len(shape)}i", *shape)
    flags = struct.pack(f"{order}II", array_class, 0)
    parts = (6, flags), (5, dimensions), (1, b"segimg_t"), (kind, values)
    return element(14, b"".join(element(kind, content, order) for kind, content in parts), order)


def mat_file(*elements: bytes, order: str = "<") -> bytes:
    mark = b"IM" if order == "<" else b"MI"
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + mark + b"".join(elements)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "112_1.mat"


def test_known_bytes(path: Path) -> None:
    path.write_bytes(mat_file(matrix(bytes([1, 2, 3, 4, 5, 6]), (2, 3))))
    assert read_mat(path, "segimg_t").tolist() == [[1, 3, 5], [2, 4, 6]]  # MATLAB goes down the columns


def test_big_endian(path: Path) -> None:
    path.write_bytes(mat_file(matrix(struct.pack(">4h", 1, -2, 300, 4), (2, 2), 3, 10, ">"), order=">"))
    assert read_mat(path, "segimg_t").tolist() == [[1, 300], [-2, 4]]


def test_compressed_and_after_another(path: Path) -> None:
    other = matrix(b"\7", (1, 1)).replace(b"segimg_t", b"segimg_x")
    path.write_bytes(mat_file(other, element(15, zlib.compress(matrix(bytes(range(6)), (3, 2))))))
    assert read_mat(path, "segimg_t").tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_what_scipy_writes(path: Path, kind: str, compressed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 3, (37, 23)).astype(kind)
    savemat(path, {"x": np.ones((1, 1)), "segimg_t": values, "y": "text"}, do_compression=compressed)
    assert (read_mat(path, "segimg_t") == values).all()


def test_no_part_of_a_file_passes_for_the_whole(path: Path) -> None:
    for elements in ([matrix(bytes(24), (4, 6))], [element(15, zlib.compress(matrix(bytes(24), (4, 6))))]):
        whole = mat_file(*elements)
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(DatasetError, match=r"112_1\.mat"):
                read_mat(path, "segimg_t")


def test_what_isnt_numbers_is_refused(path: Path) -> None:
    for value in ("text", np.array(["a", {}], dtype=object), {"field": 1}, np.ones((2, 2), complex)):
        savemat(path, {"segimg_t": value})
        with pytest.raises(DatasetError, match="not an array of real numbers"):
            read_mat(path, "segimg_t")


def test_other_versions_and_files_are_refused(path: Path) -> None:
    with pytest.raises(DatasetError, match="is missing"):
        read_mat(path, "segimg_t")
    savemat(path, {"other": np.ones((2, 2))})
    with pytest.raises(DatasetError, match="has no array 'segimg_t'"):
        read_mat(path, "segimg_t")
    savemat(path, {"segimg_t": np.ones((200, 2))}, format="4")
    with pytest.raises(DatasetError, match="isn't a MAT-file of version 5"):
        read_mat(path, "segimg_t")
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    with pytest.raises(DatasetError, match="isn't a MAT-file of version 5"):
        read_mat(path, "segimg_t")


def test_a_bomb_is_refused_undetonated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat, "_LARGEST", 10_000)
    path.write_bytes(mat_file(element(15, zlib.compress(matrix(bytes(20_000), (200, 100))))))
    with pytest.raises(DatasetError, match="larger than a mask"):
        read_mat(path, "segimg_t")


def test_dimensions_must_fit(path: Path) -> None:
    path.write_bytes(mat_file(matrix(bytes(24), (5, 5))))
    with pytest.raises(DatasetError, match="isn't a MAT-file"):
        read_mat(path, "segimg_t")
