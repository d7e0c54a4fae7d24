"""The registry under fire: writers killed at every step, readers meanwhile, and two that promote at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.errors import NotFound
from backend.registry import PromotionConflict, Registry, RegistryError
from ris_core import checkpoint
from ris_core.files import sha256

STEPS = ("open", "os.", "shutil.", "tempfile.", "fcntl.")


def make_checkpoint(folder: Path, seed: str) -> Path:
    """The files of a checkpoint, as `ris_core.checkpoint` names and describes them."""
    folder.mkdir(parents=True)
    weights = seed.encode() * 1000
    (folder / checkpoint.WEIGHTS).write_bytes(weights)
    config = {"format": 2, "model": "lda", "weights": sha256(weights)}
    (folder / checkpoint.CONFIG).write_text(json.dumps(config))
    (folder / checkpoint.CARD).write_text(f"# {seed}")
    return folder


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "shipped", "shipped")


@pytest.fixture
def registry(tmp_path: Path, shipped: Path) -> Registry:
    return Registry(tmp_path / "models", shipped)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "candidate", "candidate")


def assert_whole(folder: Path, name: str) -> None:
    assert checkpoint.version(folder) == name
    config = json.loads((folder / checkpoint.CONFIG).read_text())
    assert sha256(folder / checkpoint.WEIGHTS) == config["weights"]
    assert (folder / checkpoint.CARD).is_file()


def test_a_project_starts_at_the_shipped_model(registry: Registry, shipped: Path) -> None:
    version = registry.current(7)
    assert version == registry.base
    assert version.folder == shipped
    assert version.name == checkpoint.version(shipped)
    assert version.name.startswith("lda-")
    assert registry.versions(7) == [version]
    assert registry.projects() == []


def test_a_version_is_added_and_promoted_and_taken_back(registry: Registry, candidate: Path) -> None:
    version = registry.add(7, candidate, {"iou": 0.5})
    assert version.name == checkpoint.version(candidate)
    assert version.card["iou"] == 0.5
    assert_whole(version.folder, version.name)
    assert registry.current(7) == registry.base
    assert registry.promote(7, version.name) == version
    assert registry.current(7) == version
    assert registry.current(8) == registry.base
    registry.promote(7, registry.base.name)
    assert registry.current(7) == registry.base
    assert registry.versions(7) == [registry.base, version]
    assert registry.projects() == [7]


def test_a_version_does_not_follow_its_source(registry: Registry, candidate: Path) -> None:
    version = registry.add(7, candidate, {})
    (candidate / checkpoint.WEIGHTS).write_bytes(b"other")
    assert_whole(version.folder, version.name)


def test_the_same_weights_are_the_same_version(registry: Registry, candidate: Path, shipped: Path) -> None:
    first = registry.add(7, candidate, {"run": 1})
    assert registry.add(7, candidate, {"run": 2}).card["run"] == first.card["run"] == 1
    assert registry.add(7, shipped, {}) == registry.base
    assert len(registry.versions(7)) == 2


def test_versions_are_listed_by_age(registry: Registry, tmp_path: Path) -> None:
    added = [registry.add(7, make_checkpoint(tmp_path / str(n), str(n)), {}).name for n in range(5)]
    assert [version.name for version in registry.versions(7)[1:]] == added


@pytest.mark.parametrize("name", ["lda-00000000", "", ".", "..", "../../shipped", "a/b", "\0", "x" * 300])
def test_an_unknown_version_is_not_promoted(registry: Registry, name: str) -> None:
    with pytest.raises(NotFound, match="has no version"):
        registry.promote(7, name)
    assert registry.current(7) == registry.base


def test_a_missing_production_version_is_named(registry: Registry, candidate: Path) -> None:
    version = registry.add(7, candidate, {})
    registry.promote(7, version.name)
    version.folder.rename(version.folder.with_name(".gone"))
    with pytest.raises(RegistryError, match=f"{version.name} of project 7 is missing"):
        registry.current(7)
    # As the message says.
    registry.promote(7, registry.base.name)
    assert registry.current(7) == registry.base


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_pointer_is_named(registry: Registry, tmp_path: Path, content: bytes) -> None:
    pointer = tmp_path / "models" / "project-7" / "production.json"
    pointer.parent.mkdir(parents=True)
    pointer.write_bytes(content)
    with pytest.raises(RegistryError, match=r"production.json of project-7"):
        registry.current(7)


def test_a_promotion_that_comes_too_late_is_refused(registry: Registry, tmp_path: Path) -> None:
    first, second = (registry.add(7, make_checkpoint(tmp_path / name, name), {}) for name in "ab")
    registry.promote(7, first.name, instead_of=registry.base.name)
    with pytest.raises(PromotionConflict, match=f"{first.name} is in production now"):
        registry.promote(7, second.name, instead_of=registry.base.name)
    assert registry.current(7) == first


def test_of_many_that_promote_at_once_one_wins(tmp_path: Path, shipped: Path, registry: Registry) -> None:
    names = [registry.add(7, make_checkpoint(tmp_path / str(n), str(n)), {}).name for n in range(8)]

    def promote(name: str) -> int:
        def child() -> None:
            try:
                Registry(tmp_path / "models", shipped).promote(7, name, instead_of=registry.base.name)
            except PromotionConflict:
                os._exit(3)

        return run_in_child(child)

    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(promote, names))
    assert sorted(codes) == [0] + [3] * 7
    assert registry.current(7).name == names[codes.index(0)]


def test_a_writer_killed_at_any_step_leaves_nothing_torn(tmp_path: Path, shipped: Path, candidate: Path) -> None:
    name = checkpoint.version(candidate)
    seen = set()
    for step in range(1, 500):
        root = tmp_path / f"models-{step}"

        def write(root: Path = root) -> None:
            writer = Registry(root, shipped)
            writer.promote(7, writer.add(7, candidate, {"n": 1}).name)

        code = run_in_child(write, kill_at=step)
        reader = Registry(root, shipped)
        for version in (reader.current(7), *reader.versions(7)):
            assert_whole(version.folder, version.name)
        seen.add((len(reader.versions(7)), reader.current(7).name == name))
        # Whatever was left, the next writer gets through and cleans up.
        write()
        assert reader.current(7).name == name
        assert [path.name for path in (root / "project-7" / "versions").iterdir()] == [name]
        if code == 0:
            break
    else:
        pytest.fail("the writer never finished")
    assert step > 15
    assert seen == {(1, False), (2, False), (2, True)}


def test_readers_see_whole_versions_while_writers_write(registry: Registry, tmp_path: Path, shipped: Path) -> None:
    folders = [make_checkpoint(tmp_path / str(n), str(n)) for n in range(30)]
    done = threading.Event()
    seen = []

    def read() -> None:
        while not done.is_set():
            version = Registry(tmp_path / "models", shipped).current(7)
            assert_whole(version.folder, version.name)
            seen.append(version.name)

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for folder in folders:
            registry.promote(7, registry.add(7, folder, {}).name)
        done.set()
        for reader in readers:
            reader.result()
    assert len(set(seen)) > 3


def test_one_learns_at_a_time_and_a_killed_learner_makes_way(registry: Registry) -> None:
    def learn_and_die() -> None:
        with registry.learning(7):
            os.kill(os.getpid(), signal.SIGKILL)

    def learn_second() -> None:
        with registry.learning(7):
            order.append("second")

    order: list[str] = []
    assert run_in_child(learn_and_die) == -signal.SIGKILL
    with ThreadPoolExecutor(1) as threads:
        with registry.learning(7):
            second = threads.submit(learn_second)
            with registry.learning(8):
                time.sleep(0.1)
            order.append("first")
        second.result()
    assert order == ["first", "second"]


def run_in_child(action: Callable[[], None], kill_at: int = 0) -> int:
    """Runs `action` in a forked process, which kills itself outright at its n-th step on files."""
    pid = os.fork()
    if pid == 0:
        try:
            if kill_at:
                sys.addaudithook(_killer(kill_at))
            action()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - or the child would run on as a second pytest
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _killer(step: int) -> Callable[[str, tuple[object, ...]], None]:
    left = step

    def hook(event: str, _args: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(STEPS) and event != "os.kill":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
