"""What people have written down elsewhere still works, and names the module's new place."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.moved import MOVED

SECRETS = (
    "RIS_PASSWORD=a\nRIS_WEBHOOK_SECRET=b\nRIS_LABEL_STUDIO_TOKEN=c\nRIS_REDIS_URL=redis://:d@127.0.0.1:1/0\n"
    "RIS_LOG_LEVEL=ERROR\n"
)


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RIS_")}
    return subprocess.run(
        [sys.executable, *arguments],
        env=clean | {"RIS_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("old", MOVED)
def test_every_new_name_is_a_modules(old: str) -> None:
    assert find_spec(MOVED[old]) is not None


@pytest.mark.parametrize("old", ["backend.label_studio_ml", "backend.connect", "backend.studio.valkey"])
def test_an_import_by_the_old_name_is_the_new_module(tmp_path: Path, old: str) -> None:
    done = python(tmp_path, "-c", f"import {old}, {MOVED[old]}\nassert {old} is {MOVED[old]}")
    assert done.returncode == 0, done.stderr
    assert f"{old} has moved to {MOVED[old]}. Name that instead." in done.stderr


def test_the_class_for_label_studio_ml_comes_from_the_old_name(tmp_path: Path) -> None:
    done = python(tmp_path, "-c", "from backend.label_studio_ml import RISModel; print(RISModel.__module__)")
    assert done.stdout == "backend.web.label_studio_ml\n"


@pytest.mark.parametrize(
    ("old", "arguments"),
    [
        ("backend.connect", ("login",)),
        ("backend.connect", ("project",)),
        ("backend.studio.readiness", ("http://127.0.0.1:1/health",)),
        ("backend.studio.valkey", ("--bind", "127.0.0.1")),
    ],
)
def test_a_command_by_the_old_name_does_the_same(tmp_path: Path, old: str, arguments: tuple[str, ...]) -> None:
    """Without settings or servers each of them fails, in words of its own."""
    before, after = (python(tmp_path, "-m", name, *arguments) for name in (old, MOVED[old]))
    warning, _, rest = before.stderr.partition("\n")
    assert f"{old} has moved to {MOVED[old]}. Name that instead." in warning
    assert (before.returncode, before.stdout, rest) == (after.returncode, after.stdout, after.stderr)
    assert after.returncode == 1


def test_gunicorn_finds_its_configuration_and_the_app_by_their_old_names(tmp_path: Path) -> None:
    (tmp_path / "ris.env").write_text(SECRETS)
    done = python(
        tmp_path, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", "backend.wsgi:app", "--check-config"
    )
    assert done.returncode == 0, done.stderr
    for old in ("backend.gunicorn_conf", "backend.wsgi"):
        assert f"{old} has moved to {MOVED[old]}." in done.stderr


@pytest.mark.parametrize("name", ["backend.nothing", "backend.studio.nothing", "backend.web.nothing"])
def test_what_never_was_is_not_found(tmp_path: Path, name: str) -> None:
    done = python(tmp_path, "-c", f"import {name}")
    assert f"No module named '{name}'" in done.stderr
