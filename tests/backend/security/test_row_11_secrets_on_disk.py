"""Row 11, secrets: the files that hold any are their owner's alone, and the password isn't printed into logs."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from recorded import recorded
from rich.console import Console

from backend.cli.local import StudioDisplay
from backend.datasets.categories import number_categories
from backend.datasets.edits import EditLedger
from backend.datasets.records import open_records
from backend.home import env_file, label_studio_folder, logs_folder, models_folder, projects_folder, valkey_folder
from backend.inference.project_model import ProjectModels
from backend.labelstudio.label_config import parse
from backend.local.secrets import prepare
from backend.local.supervisor import Service, Supervisor
from backend.local.up import RunningStudio
from backend.prompts.last_prompt import FileLastPrompt
from backend.prompts.sheet import edit_sheet
from backend.registry import Registry
from backend.settings import Settings
from ris_core import checkpoint_files


@pytest.fixture(autouse=True)
def _permissive() -> Iterator[None]:
    """As on most machines: what says nothing else is for all to read."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_a_service_writes_and_its_log_are_its_users_alone(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, print)
    database = f"sqlite3.connect({str(tmp_path / 'db')!r}).execute('CREATE TABLE t (a)')"
    code = f"import sqlite3, time; {database}; time.sleep(60)"
    supervisor.start(Service("writer", (sys.executable, "-S", "-c", code), os.environ, lambda _: True))
    end = time.monotonic() + 20
    while not (tmp_path / "db").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    supervisor.stop()
    assert mode(tmp_path / "db") == mode(tmp_path / "writer.log") == 0o600


def test_files_of_earlier_starts_are_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = [
        label_studio_folder(home) / "label_studio.sqlite3",
        logs_folder(home) / "backend.log",
        logs_folder(home) / "backend.old.log",
        projects_folder(home) / "7.env",
        projects_folder(home) / "7.interface.xml",
        valkey_folder(home) / "dump.rdb",
        env_file(home),
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(mode=0o644)
    (logs_folder(home) / "link.log").symlink_to(elsewhere)
    prepare(home)
    assert {mode(file) for file in files} == {0o600}
    assert mode(elsewhere) == 0o644, "what a link leads to isn't ours"


def test_what_is_kept_of_a_project_is_its_owners_alone(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    home = settings.home
    config = parse(recorded("setup")["body"]["schema"])
    FileLastPrompt(home).remember(7, "the car")
    EditLedger(home, 7).add({"1": {"iou": 1.0}})
    number_categories(home, 7, config, set())
    edit_sheet(home, 7, lambda sheet: sheet.change("Thing", prompts=["the car"]))
    ProjectModels(Registry(models_folder(home), checkpoint_files.shipped()), settings).note_interface(7, "<View/>")
    with open_records(home, 7):
        files = [file for file in projects_folder(home).iterdir() if file.suffix != ".lock"]
        assert len(files) == 6
        assert {mode(file) for file in files} == {0o600}


def shown(is_terminal: bool, home: Path) -> str:
    text = StringIO()
    display = StudioDisplay(Console(file=text, force_terminal=is_terminal, width=200))
    console = "http://here:9090/console/", ("ris", "console-pass")
    display.running(RunningStudio("http://here/projects/1/data", "me@here", "login-pass", home, *console))
    return text.getvalue()


def test_the_password_is_shown_to_a_person_and_not_to_a_log(tmp_path: Path) -> None:
    seen, logged = shown(True, tmp_path), shown(False, tmp_path)
    for password in ("login-pass", "console-pass"):
        assert password in seen
        assert password not in logged
    assert "RIS_LABEL_STUDIO_PASSWORD" in logged
    assert "ris.env" in logged.replace("\n", "")
