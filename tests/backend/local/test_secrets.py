"""The home folder: modes, secrets that are made once, and a lock that dies with its holder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import StartError
from backend.home import env_file
from backend.local.secrets import locked, prepare, read_env, remember
from backend.settings import Settings

NAMES = {"RIS_PASSWORD", "RIS_WEBHOOK_SECRET", "RIS_REDIS_URL", "RIS_LABEL_STUDIO_PASSWORD"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    prepare(tmp_path / "home")
    return tmp_path / "home"


def test_only_the_owner_reads_anything(home: Path) -> None:
    assert mode(home) == mode(home / "logs") == 0o700
    assert mode(env_file(home)) == 0o600


def test_an_open_folder_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (env_file(home)).write_text("RIS_PASSWORD=mine\n")
    (env_file(home)).chmod(0o644)
    prepare(home)
    assert mode(home) == 0o700
    assert mode(env_file(home)) == 0o600
    assert read_env(home)["RIS_PASSWORD"] == "mine"


def test_secrets_are_long_and_all_different(home: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "other")
    first, second = read_env(home), read_env(tmp_path / "other")
    assert set(first) == set(second) == NAMES
    values = [*first.values(), *second.values()]
    assert len(set(values)) == len(values)
    assert min(map(len, values)) >= 16


def test_a_second_start_changes_nothing(home: Path) -> None:
    before = (env_file(home)).read_bytes()
    prepare(home)
    assert (env_file(home)).read_bytes() == before


@pytest.mark.parametrize("lost", sorted(NAMES))
@pytest.mark.parametrize("left", ["", "{name}=\n"], ids=["line gone", "value gone"])
def test_a_lost_secret_is_made_again_and_the_others_stay(home: Path, lost: str, left: str) -> None:
    before, file = read_env(home), env_file(home)
    kept = [line for line in file.read_text().splitlines(keepends=True) if not line.startswith(f"{lost}=")]
    file.write_text("".join(kept) + left.format(name=lost))
    prepare(home)
    after = read_env(home)
    assert after[lost] != before[lost]
    assert {**after, lost: ""} == {**before, lost: ""}
    assert file.read_text().count(f"{lost}=") == 1


def test_remember_keeps_comments_and_other_settings(home: Path) -> None:
    file = env_file(home)
    file.write_text("# mine\nRIS_PORT=9191\nRIS_LABEL_STUDIO_TOKEN=old\nRIS_USERNAME='a b'\n")
    remember(home, {"RIS_LABEL_STUDIO_TOKEN": "new"})
    assert file.read_text() == "# mine\nRIS_PORT=9191\nRIS_USERNAME='a b'\nRIS_LABEL_STUDIO_TOKEN=new\n"
    assert mode(file) == 0o600


def test_the_settings_know_every_name_that_is_written(home: Path) -> None:
    assert set(read_env(home)) <= {f"RIS_{name}".upper() for name in Settings.model_fields}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"file/home can't be made .* RIS_HOME"):
        prepare(tmp_path / "file" / "home")


def test_the_lock_keeps_a_second_holder_out_and_ends_with_the_first(home: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from backend.local.secrets import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, home], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StartError, match=f"process {holder.pid}"), locked(home):
            pytest.fail("two holders")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with locked(home):
        assert (home / "lock").read_text() == str(os.getpid())
