"""`make release`: the version everywhere, the changelog closed, a wheel; or nothing changed and the reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "CITATION.cff", "docker-compose.yml", "CHANGELOG.md", "README.md", "LICENSE", "NOTICE")
FOLDERS = ("ris_core", "backend", "weights", "deploy")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def release(checkout: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "release.py"), version, "--root", str(checkout)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def contents(checkout: Path) -> dict[str, str]:
    return {name: (checkout / name).read_text() for name in FILES}


def versions(checkout: Path) -> set[str]:
    """Every place that says which version this is."""
    text = contents(checkout)
    found = re.findall(r'^version = "(.*)"', text["pyproject.toml"], flags=re.M)
    found += [yaml.safe_load(text["CITATION.cff"])["version"]]
    found += re.findall(r"image: ris-studio:([\d.]+)", text["docker-compose.yml"])
    for file in (checkout / "deploy").rglob("kustomization.yaml"):
        images = {image["name"]: image["newTag"] for image in yaml.safe_load(file.read_text())["images"]}
        found.append(images["ris-studio"].removesuffix("-gpu"))
    assert len(found) >= 6
    return set(found)


def test_all_places_agree_on_the_version() -> None:
    assert len(versions(ROOT)) == 1


def test_a_release_is_one_version_everywhere_and_a_wheel(checkout: Path) -> None:
    before = contents(checkout)
    done = release(checkout, "7.8.9")
    assert done.returncode == 0, done.stderr
    assert versions(checkout) == {"7.8.9"}
    (wheel,) = (checkout / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        assert "\nVersion: 7.8.9\n" in archive.read(name).decode()
    for said in (str(wheel), "ris-studio:7.8.9 ", "ris-studio:7.8.9-gpu", "git tag v7.8.9"):
        assert said in done.stdout
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert re.search(r"## Unreleased\n\n## 7\.8\.9 \(\d{4}-\d\d-\d\d\)\n- ", changelog)
    notes = before["CHANGELOG.md"].partition("## Unreleased\n")[2]
    assert changelog.endswith(notes)
    # Nothing else has changed: the tags of other images, dependencies' versions.
    for name in ("docker-compose.yml", "pyproject.toml"):
        once, now = before[name].splitlines(), (checkout / name).read_text().splitlines()
        changes = [line for line, other in zip(now, once, strict=True) if line != other]
        assert changes
        assert all("7.8.9" in line for line in changes)
    # The next one has nothing to say yet.
    done = release(checkout, "7.9.0")
    assert done.returncode == 1
    assert "says nothing under Unreleased" in done.stderr


@pytest.mark.parametrize(
    ("version", "changelog", "sentence"),
    [
        ("1.2", None, "1.2 isn't a version"),
        ("v1.2.3", None, "v1.2.3 isn't a version"),
        ("", None, "VERSION isn't a version"),
        ("0.0.1", None, "0.0.1 is older than"),
        ("7.8.9", "# Changelog\n", "has no section"),
        ("7.8.9", "# Changelog\n\n## Unreleased\n\n## 0.1.0\n- That.\n", "says nothing under Unreleased"),
        (
            "7.8.9",
            "# Changelog\n\n## Unreleased\n- This.\n\n## 7.8.9 (2026-01-01)\n- That.\n",
            "has a section of 7.8.9",
        ),
    ],
)
def test_whatever_is_wrong_changes_nothing(checkout: Path, version: str, changelog: str | None, sentence: str) -> None:
    if changelog is not None:
        (checkout / "CHANGELOG.md").write_text(changelog)
    before = contents(checkout)
    done = release(checkout, version)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert contents(checkout) == before
    assert not (checkout / "dist").exists()


def test_the_changelog_says_something_of_the_next_release_or_of_this() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.count("## Unreleased\n") == 1
    assert re.search(r"^- \S", text, flags=re.M)
