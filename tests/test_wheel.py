"""The wheel in an environment that has what it declares and nothing else: no checkout, no tools, no tests' libraries.

What is installed there is what its metadata asks for, and what that asks for in turn, linked from this environment; so
an import that isn't declared fails, as it would for somebody who types `pip install`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, requires
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from backend.projects.samples import photos

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
# Read the settings when they are imported, as servers do.
SERVERS = {"backend.web.wsgi", "backend.web.gunicorn_conf"}
SECRETS = ("PASSWORD", "WEBHOOK_SECRET", "LABEL_STUDIO_TOKEN")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment of the wheel and what it needs."""
    environment = tmp_path_factory.mktemp("empty") / "venv"
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    python = environment / "bin" / "python"
    packages = next((environment / "lib").glob("python3.*")) / "site-packages"
    link(closure(declared(wheel)), packages)
    uv("pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel))
    return python.parent


def uv(*arguments: str) -> None:
    done = subprocess.run([str(UV), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def declared(wheel: Path) -> list[Requirement]:
    """What the wheel's metadata asks for, extras aside."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", text, flags=re.M)]


def closure(wanted: list[Requirement]) -> list[Distribution]:
    """The distributions that fulfil them, and theirs. Fails where this environment has another version."""
    taken: dict[str, set[str]] = {}
    waiting = [(requirement, {""}) for requirement in wanted]
    while waiting:
        requirement, extras = waiting.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(installed_version(name), prereleases=True), requirement
        known, asked = taken.get(name), {"", *requirement.extras}
        if known is not None and asked <= known:
            continue
        taken[name] = asked | (known or set())
        waiting += [(Requirement(text), taken[name]) for text in requires(name) or ()]
    return [distribution(name) for name in taken]


def link(distributions: list[Distribution], packages: Path) -> None:
    """Link what distributions installed into a folder of packages; a folder that two share, file by file."""
    owners = Counter(top for found in distributions for top in set(tops(found)))
    for found in distributions:
        for top in set(tops(found)):
            source = Path(str(found.locate_file(top)))
            if top.endswith(".dist-info"):
                # What looks for distributions doesn't follow links.
                shutil.copytree(source, packages / top)
            elif owners[top] == 1:
                (packages / top).symlink_to(source)
        for file in found.files or ():
            if file.parts[0] != ".." and owners[file.parts[0]] > 1:
                target = packages / str(file)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    target.symlink_to(Path(str(found.locate_file(file))))


def tops(found: Distribution) -> Iterator[str]:
    """First parts of its files' paths, within the folder of packages."""
    return (file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__"))


def run(programs: Path, folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of that environment in an empty one, from an empty folder."""
    return subprocess.run(
        [str(programs / command[0]), *command[1:]],
        cwd=folder,
        env={"HF_HUB_OFFLINE": "1", "PATH": "", "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_it_segments_with_the_model_that_it_carries(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(dict(photos())["chelsea.png"])
    done = run(programs, tmp_path, "ris", "segment", "cat.png", "the cat", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["present"]


def test_nothing_of_the_checkout_or_the_tests_is_in_reach(programs: Path, tmp_path: Path) -> None:
    code = "import sys, ris_core, backend; print(sys.path, ris_core.__file__, backend.__file__)"
    done = run(programs, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout.replace(str(tmp_path), "")
    for name in ("pytest", "skimage", "hypothesis", "compose"):
        assert "ModuleNotFoundError" in run(programs, tmp_path, "python", "-c", f"import {name}").stderr


def test_every_module_imports_with_what_is_declared(programs: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "for package in ('ris_core', 'backend'):\n"
        "    found = pkgutil.walk_packages(importlib.import_module(package).__path__, f'{package}.')\n"
        "    for module in found:\n"
        f"        if module.name not in {SERVERS!r} and not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "print(len([name for name in sys.modules if name.startswith(('ris_core', 'backend'))]))\n"
    )
    done = run(programs, tmp_path, "python", "-W", "error::ImportWarning", "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


def test_the_backend_starts(programs: Path, tmp_path: Path) -> None:
    secrets = {f"RIS_{name}": "a-secret" for name in SECRETS}
    done = run(
        programs,
        tmp_path,
        "python",
        "-m",
        "gunicorn",
        "--check-config",
        "-c",
        "python:backend.web.gunicorn_conf",
        "backend.web.wsgi:app",
        RIS_REDIS_URL="redis://:word@127.0.0.1:1/0",
        RIS_HOME=str(tmp_path / "home"),
        **secrets,
    )
    assert done.returncode == 0, done.stderr


def test_all_commands_are_there(programs: Path, tmp_path: Path) -> None:
    done = run(programs, tmp_path, "ris", "--help", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for command in ("up", "segment", "train", "export", "backup", "restore", "settings"):
        assert f" {command} " in done.stdout


def test_what_is_declared_fits_together(programs: Path) -> None:
    done = subprocess.run(
        [str(UV), "pip", "check", "--python", str(programs / "python")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_holds_all_that_lies_beside_the_modules(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for package in ("backend", "ris_core"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT).as_posix() in names
    for path in (ROOT / "weights").rglob("*"):
        if path.is_file():
            assert f"ris_core/{path.relative_to(ROOT).as_posix()}" in names
    assert not [
        name for name in names if name.split("/")[0] not in {"backend", "ris_core"} and ".dist-info/" not in name
    ]
    assert any(name.endswith("licenses/NOTICE") for name in names)


def test_what_is_not_declared_is_not_there(wheel: Path) -> None:
    """The tests above can fail: of what isn't asked for, nothing is linked."""
    kept = [requirement for requirement in declared(wheel) if requirement.name != "cachetools"]
    assert "cachetools" in {canonicalize_name(found.name) for found in closure(declared(wheel))}
    assert "cachetools" not in {canonicalize_name(found.name) for found in closure(kept)}
    with pytest.raises(PackageNotFoundError):
        closure([Requirement("no-such-distribution-here")])
