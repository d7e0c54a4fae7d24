"""The commands over versions, with real models and snapshots: what they print, what they change, what they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, pictures, snapshot
from PIL import Image

from backend.cli.versions import compare, list_versions, promote, prune, rollback
from backend.datasets.snapshots import snapshots
from backend.errors import NotFound, Unavailable
from backend.inference.model_pool import ModelPool
from backend.registry import NothingEarlier, Registry
from backend.settings import Settings
from ris_core import checkpoint
from ris_core.errors import DatasetError


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One refuses whatever it is asked for, one answers with the whole photo, and more of the kind."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {"refuses": random_checkpoint(root / "refuses", finds=False), "finds": random_checkpoint(root / "finds")}
    return made | {str(seed): random_checkpoint(root / str(seed), seed) for seed in (1, 2)}


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(finetune_min_validation=4)


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry(settings.home / "models")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, in one line however narrow the terminal is."""
    return " ".join(capsys.readouterr().out.split())


def test_versions_are_listed(
    settings: Settings, registry: Registry, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = {"before": 0.4123, "after": 0.4551, "expressions": 24}
    card = {"snapshot": "ab" * 32, "decision": "promoted", "gate": {"decision": "passed", "numbers": numbers}}
    first = registry.add(PROJECT, checkpoints["finds"], {**card, "base": registry.base.name}).name
    second = registry.add(PROJECT, checkpoints["refuses"], {"decision": "kept", "gate": {"decision": "not yet"}}).name
    registry.promote(PROJECT, first)
    list_versions(settings, PROJECT, True)
    found = json.loads(printed(capsys))
    assert (found["project"], found["production"]) == (PROJECT, first)
    assert found["since"].startswith("20")
    rows = found["versions"]
    assert [row["name"] for row in rows] == [registry.base.name, first, second]
    assert [row["production"] for row in rows] == [False, True, False]
    assert [row["served"] for row in rows] == [True, True, False]
    assert rows[1]["gate"]["numbers"] == numbers
    assert (rows[1]["base"], rows[1]["snapshot"]) == (registry.base.name, "ab" * 32)
    list_versions(settings, PROJECT, False)
    table = printed(capsys)
    for cell in (first, "shipped", "abababab", "0.412→0.455 (24)", "passed", "not yet", "now", "before"):
        assert cell in table


def test_a_version_is_promoted_and_taken_back_in_so_many_words(
    settings: Settings, registry: Registry, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, name = registry.base.name, registry.add(PROJECT, checkpoints["finds"], {}).name
    with pytest.raises(NothingEarlier, match=f"no version before {base}"):
        rollback(settings, PROJECT)
    # As Label Studio shows it.
    promote(settings, PROJECT, f"{name}.3fa2c1")
    said = f"{name} is in production in project {PROJECT} now, in place of {base}."
    assert printed(capsys) == f"{said} `ris rollback --project {PROJECT}` takes it back."
    assert registry.current(PROJECT).name == name
    promote(settings, PROJECT, name)
    assert printed(capsys) == f"{name} is in production in project {PROJECT} already."
    rollback(settings, PROJECT)
    assert printed(capsys) == f"{base} is in production in project {PROJECT} again, in place of {name}."
    assert registry.current(PROJECT) == registry.base
    with pytest.raises(NotFound, match="no version lda-00000000"):
        promote(settings, PROJECT, "lda-00000000")


def test_a_missing_version_in_production_can_be_taken_back(
    settings: Settings, registry: Registry, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    version = registry.add(PROJECT, checkpoints["finds"], {})
    registry.promote(PROJECT, version.name)
    version.folder.rename(version.folder.with_name(".lost"))
    rollback(settings, PROJECT)
    assert "again, in place of" in printed(capsys)
    assert registry.current(PROJECT) == registry.base


def test_two_versions_are_compared_on_what_is_held_out(
    settings: Settings,
    registry: Registry,
    checkpoints: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    refuses, finds = (registry.add(PROJECT, checkpoints[name], {}).name for name in ("refuses", "finds"))
    with pytest.raises(DatasetError, match="no snapshot to compare on"):
        compare(settings, PROJECT, (refuses, finds), None, True)
    made = snapshot(settings.home)
    compare(settings, PROJECT, (refuses, finds), tmp_path / "pictures", True)
    found = json.loads(printed(capsys))
    assert found["snapshot"] == made.id
    assert (found["before"]["version"], found["after"]["version"]) == (refuses, finds)
    assert (found["before"]["mIoU"], found["after"]["mIoU"]) == (0.0, 0.5)
    assert (found["before"]["N-acc"], found["after"]["N-acc"]) == (1.0, 0.0)
    assert [(row["task"], row["before"], row["after"]) for row in found["expressions"]] == [
        *((number, 0.0, 0.5) for number in range(1, 6)),
        (6, 1.0, 0.0),
    ]
    assert found["gate"]["numbers"]["difference"] == pytest.approx((5 * 0.5 - 1) / 6)
    assert found["pictures"] == [str(tmp_path / "pictures" / name) for name in ("better.jpg", "worse.jpg")]
    # Two answers for each of five photos, four a row; two for the one that got worse.
    heights = []
    for path in found["pictures"]:
        with Image.open(path) as picture:
            picture.load()
            heights.append(picture.height)
    assert heights[0] > 2 * heights[1]
    compare(settings, PROJECT, (refuses, finds), None, False)
    table = printed(capsys)
    for cell in ("the cat", "0.50", "+0.50", "-1.00", f"In place of {refuses}, {finds} wouldn't pass the gate."):
        assert cell in table


def test_equal_versions_have_no_pictures(
    settings: Settings,
    registry: Registry,
    checkpoints: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    name = registry.add(PROJECT, checkpoints["finds"], {}).name
    snapshot(settings.home)
    compare(settings, PROJECT, (name, name), tmp_path / "pictures", True)
    found = json.loads(printed(capsys))
    assert found["pictures"] == []
    assert found["gate"]["decision"] == "passed"
    compare(settings, PROJECT, (name, name), None, False)
    assert "and 6 that changed less or not at all" in printed(capsys)


def old(folder: Path) -> Path:
    """As if it had last been used yesterday."""
    os.utime(folder, (time.time() - 86400,) * 2)
    return folder


def test_pruning_shows_first_and_deletes_on_demand(
    settings: Settings, registry: Registry, checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    used, unused, newest = (snapshot(settings.home, photos) for photos in (3, 4, 5))
    for number, each in enumerate((used, unused, newest)):
        os.utime(each.folder, (time.time() - 86400 + number,) * 2)
    first, second, third = (
        registry.add(PROJECT, checkpoints[name], {"snapshot": each.id}).name
        for name, each in (("1", unused), ("2", unused), ("finds", used))
    )
    registry.promote(PROJECT, third)
    prune(settings, PROJECT, 1, False)
    shown = printed(capsys)
    assert shown.startswith(f"{first}, added 20")
    assert "Not needed any more: 1 versions and 0 snapshots" in shown
    assert "--yes deletes them." in shown
    assert len(registry.versions(PROJECT)) == 4
    prune(settings, PROJECT, 0, False)
    assert "2 versions and 1 snapshots" in printed(capsys)
    prune(settings, PROJECT, 0, True)
    said = printed(capsys)
    assert f"{second}, added" in said
    assert "Deleted: 2 versions and 1 snapshots" in said
    assert [version.name for version in registry.versions(PROJECT)] == [registry.base.name, third]
    assert snapshots(settings.home, PROJECT) == [newest.folder, used.folder]
    assert not list(unused.folder.parent.glob(".*/"))
    prune(settings, PROJECT, 0, True)
    assert printed(capsys) == "Deleted: 0 versions and 0 snapshots, 0.0 MB."


def test_a_snapshot_in_use_stays(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (snapshot(settings.home, photos) for photos in (3, 4))
    prune(settings, PROJECT, 0, True)
    assert {first.folder, second.folder} == set(snapshots(settings.home, PROJECT))
    old(first.folder)
    old(second.folder)
    # Whoever asks for it again uses it.
    assert snapshot(settings.home, 3).folder == first.folder
    assert snapshots(settings.home, PROJECT)[0] == first.folder
    prune(settings, PROJECT, 0, True)
    assert snapshots(settings.home, PROJECT) == [first.folder]
    assert "1 snapshots" in printed(capsys)


def test_nothing_is_pruned_while_the_project_learns(settings: Settings, registry: Registry) -> None:
    with registry.learning(PROJECT), pytest.raises(Unavailable, match="is learning, and may need"):
        prune(settings, PROJECT, 0, True)


def test_going_back_reaches_the_next_prediction_of_another_process(
    settings: Settings, registry: Registry, checkpoints: dict[str, Path]
) -> None:
    """A thread predicts without a pause, each time by the version that is in production at that moment."""
    good, bad = (registry.add(PROJECT, checkpoints[name], {}).name for name in ("finds", "refuses"))
    registry.promote(PROJECT, good)
    registry.promote(PROJECT, bad)
    models, answers, done = ModelPool(), [], threading.Event()

    def predict() -> None:
        while not done.is_set():
            version = registry.current(PROJECT)
            (found,) = models.segment(version, pictures()[0], ["the cat"], time.monotonic() + 30)
            answers.append((time.monotonic(), version.name, found.present))

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        wait_for(lambda: len(answers) > 3)
        script = "import sys, pathlib, backend.registry as r; r.Registry(pathlib.Path(sys.argv[1])).rollback(7)"
        subprocess.run([sys.executable, "-c", script, str(settings.home / "models")], check=True, timeout=60)
        went_back = time.monotonic()
        wait_for(lambda: answers[-1][1] == good)
    finally:
        done.set()
        thread.join(30)
    first = next(at for at, name, _ in answers if name == good)
    assert first - went_back < 5
    names = [name for _, name, _ in answers]
    assert names == sorted(names, key=[bad, good].index), "once it is back it stays"
    # Each answer is that of the version it names.
    assert {(name, present) for _, name, present in answers} == {(good, True), (bad, False)}


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_the_commands_reach_the_services(
    settings: Settings,
    registry: Registry,
    checkpoints: dict[str, Path],
    run_ris: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RIS_HOME", str(settings.home))

    def ris(*arguments: str) -> tuple[int, str, str]:
        code, out, err = run_ris(*arguments, "--project", str(PROJECT))
        return code, " ".join(out.split()), err

    name = registry.add(PROJECT, checkpoints["finds"], {}).name
    assert ris("promote", name)[0] == 0
    assert json.loads(ris("versions", "--json")[1])["production"] == name
    code, _, err = ris("compare", name, checkpoint.version(checkpoints["1"]))
    assert (code, err.count("\n")) == (1, 1)
    assert f"has no version {checkpoint.version(checkpoints['1'])}" in err
    snapshot(settings.home)
    assert json.loads(ris("compare", name, name, "--json")[1])["gate"]["decision"] == "not yet"
    assert "0 versions" in ris("prune", "--keep", "0")[1]
    assert ris("rollback")[1].startswith(registry.base.name)
    code, _, err = ris("rollback")
    assert code == 1
    assert err.startswith("ris: Project 7 has no version before")
