"""A project's versions, with real checkpoints and snapshots: what is said of them, what changes, what stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from checkpoints import random_checkpoint
from held_out import PROJECT, pictures, snapshot
from ports import free_port
from redis import Redis

from backend.datasets.snapshots import Snapshot, snapshots
from backend.errors import NotFound, Unavailable
from backend.inference.model_pool import ImagePrompts, ModelPool
from backend.learning.versions import ProductionChange, describe, promote, prune, rollback
from backend.queue.queue import JobQueue, connect
from backend.registry import NothingEarlier, Registry


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One refuses whatever it is asked for, one answers with the whole photo, and more of the kind."""
    root = tmp_path_factory.mktemp("checkpoints")
    made = {"refuses": random_checkpoint(root / "refuses", finds=False), "finds": random_checkpoint(root / "finds")}
    return made | {str(seed): random_checkpoint(root / str(seed), seed) for seed in (1, 2)}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(home / "models")


def test_versions_are_described(registry: Registry, checkpoints: dict[str, Path]) -> None:
    gate = {"decision": "passed", "numbers": {"before": 0.4123, "after": 0.4551, "expressions": 24}}
    card = {"snapshot": "ab" * 32, "decision": "promoted", "gate": gate, "base": registry.base.name}
    first = registry.add(PROJECT, checkpoints["finds"], card).name
    second = registry.add(PROJECT, checkpoints["refuses"], {"decision": "kept"}).name
    registry.promote(PROJECT, first)
    described = describe(registry, PROJECT)
    assert (described["project"], described["production"]) == (PROJECT, first)
    assert described["since"].startswith("20")
    rows = described["versions"]
    assert [row["name"] for row in rows] == [registry.base.name, first, second]
    assert [row["production"] for row in rows] == [False, True, False]
    assert [row["served"] for row in rows] == [True, True, False]
    assert {name: rows[1][name] for name in card} == card


def test_a_version_is_promoted_and_taken_back(registry: Registry, checkpoints: dict[str, Path]) -> None:
    base, name = registry.base.name, registry.add(PROJECT, checkpoints["finds"], {}).name
    with pytest.raises(NothingEarlier, match=f"no version before {base}"):
        rollback(registry, PROJECT, None)
    # As Label Studio shows it.
    change = promote(registry, PROJECT, f"{name}.3fa2c1", None)
    assert asdict(change) == {"project": PROJECT, "version": name, "before": base, "changed": True}
    assert registry.current(PROJECT).name == name
    assert not promote(registry, PROJECT, name, None).changed
    assert rollback(registry, PROJECT, None) == ProductionChange(PROJECT, base, name, changed=True)
    assert registry.current(PROJECT) == registry.base
    with pytest.raises(NotFound, match="no version lda-00000000"):
        promote(registry, PROJECT, "lda-00000000", None)


def test_a_missing_version_in_production_can_be_taken_back(registry: Registry, checkpoints: dict[str, Path]) -> None:
    version = registry.add(PROJECT, checkpoints["finds"], {})
    registry.promote(PROJECT, version.name)
    version.folder.rename(version.folder.with_name(".lost"))
    assert rollback(registry, PROJECT, None).before == version.name
    assert registry.current(PROJECT) == registry.base


def test_a_change_has_predictions_made_anew_at_once(
    registry: Registry, checkpoints: dict[str, Path], redis: Redis
) -> None:
    name, queue = registry.add(PROJECT, checkpoints["finds"], {}).name, JobQueue(redis)
    for change in (lambda: promote(registry, PROJECT, name, queue), lambda: rollback(registry, PROJECT, queue)):
        change()
        [job] = queue.recent()
        assert (job["function"], job["arguments"]) == ("refresh", [PROJECT])
        redis.flushall()


def test_where_valkey_is_away_the_change_is_made_all_the_same(registry: Registry, checkpoints: dict[str, Path]) -> None:
    name = registry.add(PROJECT, checkpoints["finds"], {}).name
    queue = JobQueue(connect(f"redis://127.0.0.1:{free_port()}/0"))
    assert promote(registry, PROJECT, name, queue).changed
    assert registry.current(PROJECT).name == name


def old(*made: Snapshot) -> None:
    """As if they had last been used yesterday, one after the other."""
    for number, used in enumerate(made):
        os.utime(used.folder, (time.time() - 86400 + number,) * 2)


def test_pruning_deletes_on_demand_what_nothing_needs(
    home: Path, registry: Registry, checkpoints: dict[str, Path]
) -> None:
    used, unused, newest = (snapshot(home, photos) for photos in (3, 4, 5))
    old(used, unused, newest)
    first, second, third = (
        registry.add(PROJECT, checkpoints[name], {"snapshot": made.id}).name
        for name, made in (("1", unused), ("2", unused), ("finds", used))
    )
    registry.promote(PROJECT, third)
    spare = prune(registry, home, PROJECT, 1, delete=False)
    assert ([version.name for version in spare.versions], spare.snapshots) == ([first], ())
    assert len(registry.versions(PROJECT)) == 4
    spare = prune(registry, home, PROJECT, 0, delete=True)
    assert ([version.name for version in spare.versions], spare.snapshots) == ([first, second], (unused.folder,))
    assert spare.bytes > 1000
    assert spare.as_json()["snapshots"] == [unused.id]
    assert [version.name for version in registry.versions(PROJECT)] == [registry.base.name, third]
    assert snapshots(home, PROJECT) == [newest.folder, used.folder]
    assert not list(unused.folder.parent.glob(".*/"))
    spare = prune(registry, home, PROJECT, 0, delete=True)
    assert spare.as_json() == {"versions": [], "snapshots": [], "bytes": 0}


def test_a_snapshot_in_use_stays(home: Path, registry: Registry) -> None:
    first, second = (snapshot(home, photos) for photos in (3, 4))
    prune(registry, home, PROJECT, 0, delete=True)
    assert {first.folder, second.folder} == set(snapshots(home, PROJECT))
    old(first, second)
    # Whoever asks for it again uses it.
    assert snapshot(home, 3).folder == first.folder
    assert snapshots(home, PROJECT)[0] == first.folder
    assert prune(registry, home, PROJECT, 0, delete=True).snapshots == (second.folder,)
    assert snapshots(home, PROJECT) == [first.folder]


def test_nothing_is_pruned_while_the_project_learns(home: Path, registry: Registry) -> None:
    with registry.learning(PROJECT), pytest.raises(Unavailable, match="is learning, and may need"):
        prune(registry, home, PROJECT, 0, delete=True)


def test_going_back_reaches_the_next_prediction_of_another_process(
    home: Path, registry: Registry, checkpoints: dict[str, Path]
) -> None:
    """A thread predicts without a pause, each time by the version that is in production at that moment."""
    good, bad = (registry.add(PROJECT, checkpoints[name], {}).name for name in ("finds", "refuses"))
    registry.promote(PROJECT, good)
    registry.promote(PROJECT, bad)
    models, answers, done = ModelPool(), [], threading.Event()

    def predict() -> None:
        while not done.is_set():
            version = registry.current(PROJECT)
            [[answer]] = models.segment_all(
                version, [ImagePrompts(pictures()[0], ["the cat"], "a photo")], time.monotonic() + 30
            )
            answers.append((time.monotonic(), version.name, answer.present))

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        wait_for(lambda: len(answers) > 3)
        script = "import sys, pathlib, backend.registry as r; r.Registry(pathlib.Path(sys.argv[1])).rollback(7)"
        subprocess.run([sys.executable, "-c", script, str(home / "models")], check=True, timeout=60)
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
