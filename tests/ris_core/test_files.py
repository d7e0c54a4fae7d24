"""Files and folders are whole or absent, whatever dies in between."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ris_core.files import atomic_dir, atomic_write, sha256


def test_a_file_is_replaced_and_has_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    atomic_write(path, b"old")
    atomic_write(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_appears_only_when_it_is_done(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "folder") as temporary:
        (temporary / "inside").write_text("x")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "inside").read_text() == "x"


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_dir(tmp_path / "folder") as temporary:
        (temporary / "inside").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileExistsError), atomic_dir(tmp_path / "folder") as temporary:
        (temporary / "inside").write_text("x")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_killed_writer_leaves_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ris_core.files import atomic_dir\n"
        "with atomic_dir(Path(sys.argv[1]) / 'folder') as t:\n"
        "    (t / 'half').write_text('x'); print('written', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "folder").exists()


def test_digests_agree(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256(tmp_path / "file") == sha256(data) == hashlib.sha256(data).hexdigest()
