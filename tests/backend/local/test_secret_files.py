"""Secrets of an installation in containers: made once, given anew, and read by the settings."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backend.local.secret_files import make_secrets
from backend.settings import load, secret_knobs

NAMES = {"password", "webhook_secret", "label_studio_password", "redis_url", "postgres_password"}


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_they_are_made_once_and_their_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert set(make_secrets(folder, "valkey:6379", {})) == NAMES
    first = contents(folder)
    assert set(first) == NAMES
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert make_secrets(folder, "elsewhere:1", {}) == []
    assert contents(folder) == first
    # No two alike, nor two installations.
    make_secrets(tmp_path / "other", "valkey:6379", {})
    assert len({*first.values(), *contents(tmp_path / "other").values()}) == 2 * len(NAMES)
    assert min(map(len, first.values())) >= 16


def test_the_address_of_valkey_has_a_password_that_needs_no_encoding(tmp_path: Path) -> None:
    make_secrets(tmp_path, "valkey:6379", {})
    parts = urlsplit(contents(tmp_path)["redis_url"])
    assert (parts.scheme, parts.hostname, parts.port, parts.path) == ("redis", "valkey", 6379, "/0")
    assert parts.password and parts.password.isalnum()


def test_given_ones_are_taken_also_later_and_empty_ones_are_not_given(tmp_path: Path) -> None:
    given = {"RIS_PASSWORD": "mine", "RIS_WEBHOOK_SECRET": ""}
    make_secrets(tmp_path, "valkey:6379", given)
    first = contents(tmp_path)
    assert first["password"] == "mine"
    assert first["webhook_secret"]
    assert make_secrets(tmp_path, "valkey:6379", {**given, "RIS_PASSWORD": "another"}) == ["password"]
    assert contents(tmp_path) == {**first, "password": "another"}
    assert make_secrets(tmp_path, "valkey:6379", {}) == []


def test_the_database_keeps_the_password_that_it_was_made_with(tmp_path: Path) -> None:
    make_secrets(tmp_path, "valkey:6379", {})
    before = contents(tmp_path)
    (tmp_path / "password").unlink()
    assert make_secrets(tmp_path, "valkey:6379", {}) == ["password"]
    assert contents(tmp_path)["postgres_password"] == before["postgres_password"]


def test_the_settings_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    command = [sys.executable, "-m", "backend.local.secret_files", str(tmp_path / "secrets"), "--valkey", "valkey:6379"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = contents(tmp_path / "secrets")
    assert not any(secret in done.stdout + done.stderr for secret in made.values())
    monkeypatch.setenv("RIS_HOME", str(tmp_path))
    shared = set(secret_knobs()) & set(made)
    assert shared == NAMES - {"postgres_password"}
    for name in shared:
        monkeypatch.setenv(f"RIS_{name.upper()}_FILE", str(tmp_path / "secrets" / name))
    settings = load()
    assert {name: settings.secret(name) for name in shared} == {name: made[name] for name in shared}
