"""The commands over versions: what they print for people and for scripts, and their exit codes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, snapshot
from labelstudio.site import serve
from pointers import fake_pointer
from redis import Redis
from shelf import PROJECT as SHELVED
from shelf import TOKEN, Shelf, data

from backend.queue.queue import JobQueue
from backend.registry import Registry
from ris_core import checkpoint_files

Run = Callable[..., tuple[int, str, str]]
OLD = "lda-0000000a.1"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One refuses whatever it is asked for, one answers with the whole photo."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: random_checkpoint(root / name, finds=name == "finds") for name in ("refuses", "finds")}


@pytest.fixture
def home(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RIS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RIS_FINETUNE_MIN_VALIDATION", "4")
    return tmp_path / "home"


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(home / "models")


@pytest.fixture
def ris(run_ris: Run) -> Run:
    """Run a command on the project -> exit code, standard output in one line, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code, printed, error = run_ris(*arguments, "--project", str(PROJECT))
        return code, " ".join(printed.split()), error

    return run


def test_versions_are_listed(ris: Run, registry: Registry, checkpoints: dict[str, Path]) -> None:
    numbers = {"before": 0.4123, "after": 0.4551, "expressions": 24}
    card = {"snapshot": "ab" * 32, "decision": "promoted", "gate": {"decision": "passed", "numbers": numbers}}
    first = registry.add(PROJECT, checkpoints["finds"], card).name
    registry.add(PROJECT, checkpoints["refuses"], {"decision": "kept", "gate": {"decision": "not yet"}})
    registry.promote(PROJECT, first)
    code, table, _ = ris("versions")
    assert code == 0
    for cell in (first, "shipped", "abababab", "0.412→0.455 (24)", "passed", "trial", "now", "before"):
        assert cell in table
    described = json.loads(ris("versions", "--json")[1])
    assert (described["production"], len(described["versions"])) == (first, 3)


def test_a_version_is_promoted_and_taken_back_in_so_many_words(
    ris: Run, registry: Registry, checkpoints: dict[str, Path]
) -> None:
    base, name = registry.base.name, registry.add(PROJECT, checkpoints["finds"], {}).name
    said = f"{name} is in production in project {PROJECT} now, in place of {base}."
    back = f"{base} is in production in project {PROJECT} again, in place of {name}."
    assert ris("promote", name)[:2] == (0, f"{said} `ris rollback --project {PROJECT}` takes it back.")
    assert ris("promote", name)[1] == f"{name} is in production in project {PROJECT} already."
    assert ris("rollback")[1] == back
    code, _, error = ris("rollback")
    assert code == 1
    assert error.startswith(f"ris: Project {PROJECT} has no version before {base}")


def test_a_change_of_production_is_told_as_json(ris: Run, registry: Registry, checkpoints: dict[str, Path]) -> None:
    base, name = registry.base.name, registry.add(PROJECT, checkpoints["finds"], {}).name
    promoted = {"project": PROJECT, "version": name, "before": base, "changed": True}
    assert json.loads(ris("promote", name, "--json")[1]) == promoted
    assert json.loads(ris("promote", name, "--json")[1]) == {**promoted, "before": name, "changed": False}
    assert json.loads(ris("rollback", "--json")[1]) == {**promoted, "version": base, "before": name}


def test_a_change_of_production_is_seen_to_at_once(
    ris: Run,
    registry: Registry,
    checkpoints: dict[str, Path],
    redis: Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RIS_REDIS_URL", redis_url)
    monkeypatch.setenv("RIS_WEBHOOK_SECRET", "hook-secret")
    for command in (("promote", registry.add(PROJECT, checkpoints["finds"], {}).name), ("rollback",)):
        ris(*command)
        [job] = JobQueue(redis).recent()
        assert (job["function"], job["arguments"]) == ("refresh", [PROJECT])
        redis.flushall()


def test_two_versions_are_compared(
    ris: Run, home: Path, registry: Registry, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    refuses, finds = (registry.add(PROJECT, checkpoints[name], {}).name for name in ("refuses", "finds"))
    code, _, error = ris("compare", refuses, "lda-00000000")
    assert (code, error.count("\n")) == (1, 1)
    assert "has no version lda-00000000" in error
    # What rich would take for markup is shown as it is.
    snapshot(home, sentence="the c[/red]at")
    code, table, _ = ris("compare", refuses, finds, "--out", str(tmp_path / "pictures"))
    assert code == 0
    for cell in ("the c[/red]at", "0.50", "+0.50", "-1.00", f"In place of {refuses}, {finds} wouldn't pass the gate."):
        assert cell in table
    assert f"Look at {tmp_path / 'pictures' / 'better.jpg'}" in table
    assert "and 6 that changed less or not at all" in ris("compare", finds, finds)[1]
    compared = json.loads(ris("compare", finds, finds, "--json")[1])
    assert (compared["gate"]["decision"], compared["pictures"]) == ("passed", [])


def test_pruning_shows_first_and_deletes_on_demand(
    ris: Run, home: Path, registry: Registry, checkpoints: dict[str, Path]
) -> None:
    unused, newest = (snapshot(home, photos) for photos in (4, 5))
    for number, made in enumerate((unused, newest)):
        os.utime(made.folder, (time.time() - 86400 + number,) * 2)
    name = registry.add(PROJECT, checkpoints["finds"], {"snapshot": unused.id}).name
    assert ris("prune")[1] == "Not needed any more: 0 versions and 0 snapshots, 0.0 MB."
    shown = ris("prune", "--keep", "0")[1]
    assert shown.startswith(f"{name}, added 20")
    assert "Not needed any more: 1 versions and 1 snapshots" in shown
    assert shown.endswith("--yes deletes them.")
    listed = json.loads(ris("prune", "--keep", "0", "--json")[1])
    assert (listed["project"], listed["deleted"], listed["snapshots"]) == (PROJECT, False, [unused.id])
    assert [version["name"] for version in listed["versions"]] == [name]
    assert len(registry.versions(PROJECT)) == 2
    assert json.loads(ris("prune", "--keep", "0", "--yes", "--json")[1]) == {**listed, "deleted": True}
    assert registry.versions(PROJECT) == [registry.base]
    assert ris("prune", "--keep", "0", "--yes")[1] == "Deleted: 0 versions and 0 snapshots, 0.0 MB."


@pytest.fixture
def shelf(home: Path, tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "shelf.db")
    shelf.fill(data(3))
    monkeypatch.setattr(checkpoint_files, "shipped", lambda: checkpoints["finds"])
    with serve(shelf) as site:
        monkeypatch.setenv("RIS_LABEL_STUDIO_URL", site.url)
        monkeypatch.setenv("RIS_LABEL_STUDIO_TOKEN", TOKEN)
        yield shelf


def test_old_predictions_are_shown_first_and_deleted_on_demand(
    shelf: Shelf, run_ris: Run, checkpoints: dict[str, Path]
) -> None:
    prune = ("prune", "--predictions", "--project", str(SHELVED))
    assert run_ris(*prune)[1] == "Not needed any more: 0 predictions.\n"
    current = f"{checkpoint_files.version(checkpoints['finds'])}.1"
    for task in (1, 2, 3):
        shelf.predict(task, OLD, 0.5)
        shelf.predict(task, current, 0.5)
    [(parent,)] = shelf.rows("SELECT id FROM prediction WHERE model_version = ? AND task = 2", OLD)
    shelf.annotated = {2: parent}
    said = f"{OLD}: 2 predictions; 1 that annotations were made from stay\n"
    assert run_ris(*prune)[1] == f"{said}Not needed any more: 2 predictions. --yes deletes them.\n"
    listed = {"project": SHELVED, "deleted": False, "versions": [{"name": OLD, "predictions": 2, "parents": 1}]}
    assert json.loads(run_ris(*prune, "--json")[1]) == listed
    assert run_ris(*prune, "--yes")[:2] == (0, f"{said}Deleted: 2 predictions.\n")
    rows = shelf.rows("SELECT model_version, COUNT(*) FROM prediction GROUP BY model_version")
    assert dict(rows) == {OLD: 1, current: 3}


def test_a_zero_shot_segmenter_is_promoted_by_name_listed_and_taken_back(
    ris: Run, registry: Registry, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIS_CACHE", str(tmp_path / "cache"))
    code, _, error = ris("promote", "owlv2+sam2")
    assert (code, "Run `ris fetch owlv2+sam2`" in error) == (1, True)
    name = checkpoint_files.version(fake_pointer("owlv2+sam2", tmp_path / "cache", monkeypatch))
    base = registry.base.name
    for named in ("owlv2+sam2", name, f"{name}.3fa2c1"):
        assert f"{name} is in production in project {PROJECT}" in ris("promote", named)[1]
    [_, row] = json.loads(ris("versions", "--json")[1])["versions"]
    assert (row["name"], row["origin"], row["production"]) == (name, "zero-shot", True)
    assert name in ris("versions")[1]
    assert ris("rollback")[1].startswith(f"{base} is in production in project {PROJECT} again, in place of {name}.")


def test_a_zero_shot_segmenter_is_compared(
    ris: Run,
    registry: Registry,
    checkpoints: dict[str, Path],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot(home)
    pointer = fake_pointer("owlv2+sam2", tmp_path / "cache", monkeypatch)
    before = registry.add(PROJECT, checkpoints["refuses"], {}).name
    code, printed, error = ris("compare", before, "owlv2+sam2", "--json")
    assert code == 0, error
    compared = json.loads(printed)
    assert compared["after"]["version"] == checkpoint_files.version(pointer)
    assert compared["expressions"]
