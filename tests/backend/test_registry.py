"""The registry under fire: writers killed at every step, readers meanwhile, and two that promote at once."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from killed import run_in_child
from pointers import fake_pointer
from version_folders import assert_whole, make_checkpoint

from backend.errors import NotFound, Unavailable
from backend.registry import NothingEarlier, ProjectVersions, PromotionConflict, Registry, RegistryError, Version
from ris_core import checkpoint_files
from ris_core.errors import CheckpointError


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "shipped", "shipped")


@pytest.fixture
def registry(tmp_path: Path, shipped: Path) -> Registry:
    return Registry(tmp_path / "models", shipped)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "candidate", "candidate")


def test_a_project_starts_at_the_shipped_model(registry: Registry, shipped: Path) -> None:
    version = registry.current(7)
    assert version == registry.base
    assert version.folder == shipped
    assert version.name == checkpoint_files.version(shipped)
    assert version.name.startswith("lda-")
    assert registry.versions(7) == [version]
    assert registry.projects() == []


def test_a_version_is_added_and_promoted_and_taken_back(registry: Registry, candidate: Path) -> None:
    version = registry.add(7, candidate, {"iou": 0.5})
    assert version.name == checkpoint_files.version(candidate)
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
    (candidate / checkpoint_files.WEIGHTS).write_bytes(b"other")
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


def test_all_of_a_project_is_read_at_one_moment(
    registry: Registry, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.read(7) == ProjectVersions(7, registry.base.name, None, (registry.base.name,), (registry.base,))
    version = registry.add(7, candidate, {})
    read = registry.versions

    def promoted_meanwhile(project: int) -> list[Version]:
        monkeypatch.setattr(registry, "versions", read)
        registry.promote(7, version.name)
        return [registry.base]

    monkeypatch.setattr(registry, "versions", promoted_meanwhile)
    versions = registry.read(7)
    assert versions.versions == (registry.base, version)
    assert (versions.base, versions.current) == (registry.base, version)
    assert (versions.since, versions.served) == (registry.pointer(7).promoted, registry.pointer(7).served)
    registry.rollback(7)
    assert versions.current == version, "it doesn't change any more"


def test_a_missing_production_version_is_named(registry: Registry, candidate: Path) -> None:
    version = registry.add(7, candidate, {})
    registry.promote(7, version.name)
    version.folder.rename(version.folder.with_name(".gone"))
    with pytest.raises(RegistryError, match=f"{version.name} of project 7 is missing"):
        registry.current(7)
    with pytest.raises(RegistryError, match=f"{version.name} of project 7 is missing"):
        assert registry.read(7).current
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


def added(registry: Registry, tmp_path: Path, names: str) -> list[str]:
    """A version for each letter, by name."""
    return [registry.add(7, make_checkpoint(tmp_path / each, each), {}).name for each in names]


def test_one_can_go_back_more_than_once(registry: Registry, tmp_path: Path) -> None:
    names = [registry.base.name, *added(registry, tmp_path, "abc")]
    for name in names[1:]:
        registry.promote(7, name)
    assert registry.pointer(7).served == tuple(names)
    for name in reversed(names[:-1]):
        assert registry.previous(7) == registry.version(7, name)
        assert registry.rollback(7).name == registry.current(7).name == registry.pointer(7).version == name
    assert registry.previous(7) is None
    with pytest.raises(NothingEarlier, match=r"no version before .* `ris versions --project 7`"):
        registry.rollback(7)
    assert registry.current(7) == registry.base
    assert set(registry.pointer(7).served) == set(names)


def test_what_was_taken_back_is_not_gone_back_to(registry: Registry, tmp_path: Path) -> None:
    first, second, third = added(registry, tmp_path, "abc")
    registry.promote(7, first)
    registry.promote(7, second)
    registry.rollback(7)
    registry.promote(7, third)
    assert registry.rollback(7).name == first
    assert second in registry.pointer(7).served


def test_promoting_again_what_serves_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    first, second = added(registry, tmp_path, "ab")
    registry.promote(7, first)
    registry.promote(7, second)
    pointer = (tmp_path / "models" / "project-7" / "production.json").read_bytes()
    registry.promote(7, second)
    assert (tmp_path / "models" / "project-7" / "production.json").read_bytes() == pointer
    assert registry.rollback(7).name == first


def test_going_back_leaves_out_what_is_missing(registry: Registry, tmp_path: Path) -> None:
    first, second, third = added(registry, tmp_path, "abc")
    for name in (first, second, third):
        registry.promote(7, name)
    for name in (second, third):
        folder = registry.version(7, name).folder
        folder.rename(folder.with_name(f".{name}"))
    # Even though what is in production is missing itself.
    assert registry.rollback(7).name == first


def test_two_who_go_back_at_once_go_back_one_step(registry: Registry, tmp_path: Path) -> None:
    first, second = added(registry, tmp_path, "ab")
    registry.promote(7, first)
    registry.promote(7, second)

    def go_back(_: int) -> bool:
        try:
            return registry.rollback(7, instead_of=second).name == first
        except PromotionConflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(go_back, range(8))) == [False] * 7 + [True]
    assert registry.current(7).name == first


def test_the_pointer_does_not_grow_without_end(registry: Registry, tmp_path: Path) -> None:
    names = added(registry, tmp_path, "abc")
    for number in range(60):
        registry.promote(7, names[number % 3])
    size = (tmp_path / "models" / "project-7" / "production.json").stat().st_size
    for number in range(60, 90):
        registry.promote(7, names[number % 3])
    assert (tmp_path / "models" / "project-7" / "production.json").stat().st_size == size < 2000
    back = [registry.rollback(7).name for _ in range(20)]
    assert back == [names[number % 3] for number in range(88, 68, -1)]
    with pytest.raises(NothingEarlier):
        registry.rollback(7)


def test_a_pointer_of_an_earlier_release_is_understood(registry: Registry, tmp_path: Path) -> None:
    first, second = added(registry, tmp_path, "ab")
    content = {"version": second, "previous": first, "promoted": "2026-11-21T08:00:00+00:00"}
    (tmp_path / "models" / "project-7" / "production.json").write_text(json.dumps(content))
    assert registry.current(7).name == second
    assert registry.pointer(7).served == (first, second)
    assert registry.rollback(7).name == first


def test_what_is_needed_is_not_pruned(registry: Registry, tmp_path: Path) -> None:
    first, second, third = added(registry, tmp_path, "abc")
    based = registry.add(7, make_checkpoint(tmp_path / "d", "d"), {"base": first}).name
    others = added(registry, tmp_path, "efgh")
    # Production is trained from the first; before it, the third was in production.
    for name in (second, third, based):
        registry.promote(7, name)
    assert [version.name for version in registry.prunable(7, 2)] == [second, *others[:2]]
    assert [version.name for version in registry.prune(7, 2)] == [second, *others[:2]]
    left = [version.name for version in registry.versions(7)]
    assert left == [registry.base.name, first, third, based, *others[2:]]
    assert registry.prune(7, 2) == []
    assert [version.name for version in registry.prune(7, 0)] == others[2:]
    assert registry.rollback(7).name == third
    assert registry.rollback(7) == registry.base, "the second is gone"


def test_open_files_of_a_pruned_version_can_be_read_on(registry: Registry, tmp_path: Path) -> None:
    (name,) = added(registry, tmp_path, "a")
    weights = registry.version(7, name).folder / checkpoint_files.WEIGHTS
    with weights.open("rb") as file:
        start = file.read(10)
        registry.prune(7, 0)
        assert start + file.read() == b"a" * 1000
    assert not weights.exists()
    with pytest.raises(NotFound):
        registry.promote(7, name)


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
    name = checkpoint_files.version(candidate)
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


@pytest.mark.parametrize("move", ["promote", "rollback"])
def test_a_move_killed_at_any_step_happened_or_did_not(
    registry: Registry, tmp_path: Path, shipped: Path, move: str
) -> None:
    first, second, third = added(registry, tmp_path, "abc")
    goal = {"promote": third, "rollback": first}[move]
    seen = set()
    for step in range(1, 100):
        for name in (first, second):
            registry.promote(7, name)

        def act() -> None:
            writer = Registry(tmp_path / "models", shipped)
            writer.promote(7, third) if move == "promote" else writer.rollback(7)

        code = run_in_child(act, kill_at=step)
        found = registry.current(7).name
        assert found in (second, goal)
        seen.add(found)
        # The dead hold no lock, and the next move works.
        assert registry.promote(7, third, instead_of=found).name == registry.current(7).name == third
        if code == 0:
            break
    else:
        pytest.fail("the writer never finished")
    assert step > 5
    assert seen == {second, goal}


def test_of_two_that_promote_one_is_killed_at_any_step(registry: Registry, tmp_path: Path, shipped: Path) -> None:
    """The other gets through, or is told that it comes too late: never both, and never neither."""
    first, second = added(registry, tmp_path, "ab")
    wins = set()
    for step in range(1, 100):
        registry.promote(7, registry.base.name)

        def promote(name: str) -> None:
            Registry(tmp_path / "models", shipped).promote(7, name, instead_of=registry.base.name)

        def survive() -> int:
            return run_in_child(lambda: promote(second))

        with ThreadPoolExecutor(1) as threads:
            survivor = threads.submit(survive)
            killed = run_in_child(lambda: promote(first), kill_at=step)
            survived = survivor.result() == 0
        assert registry.current(7).name == (second if survived else first)
        wins.add(survived)
        if killed == 0:
            assert not survived
        if step > 30:
            break
    assert True in wins


def test_pruning_killed_at_any_step_leaves_whole_versions(tmp_path: Path, shipped: Path) -> None:
    left = set()
    for step in range(1, 200):
        root = tmp_path / f"models-{step}"
        registry = Registry(root, shipped)
        *_, third = added(registry, tmp_path / str(step), "abc")
        registry.promote(7, third)

        def prune(root: Path = root) -> None:
            Registry(root, shipped).prune(7, 0)

        code = run_in_child(prune, kill_at=step)
        for version in registry.versions(7):
            assert_whole(version.folder, version.name)
        assert registry.current(7).name == third
        left.add(len(registry.versions(7)))
        registry.prune(7, 0)
        assert [path.name for path in (root / "project-7" / "versions").iterdir()] == [third]
        if code == 0:
            break
    else:
        pytest.fail("the writer never finished")
    assert left == {4, 3, 2}


def test_what_is_promoted_at_that_moment_is_not_pruned(tmp_path: Path, shipped: Path, registry: Registry) -> None:
    """Whichever comes first: a version is promoted and stays, or it is gone and that is said."""
    for number in range(20):
        (name,) = added(registry, tmp_path / str(number), "a")

        def promote(name: str = name) -> None:
            Registry(tmp_path / "models", shipped).promote(7, name)

        def prune() -> None:
            Registry(tmp_path / "models", shipped).prune(7, 0)

        with ThreadPoolExecutor(2) as threads:
            promoted, pruned = (threads.submit(run_in_child, action) for action in (promote, prune))
            assert pruned.result() == 0
            assert (promoted.result() == 0) is (registry.current(7).name == name)
        assert_whole(registry.current(7).folder, registry.current(7).name)
        registry.promote(7, registry.base.name)


def test_readers_see_a_version_while_others_promote_go_back_and_prune(
    registry: Registry, tmp_path: Path, shipped: Path
) -> None:
    folders = [make_checkpoint(tmp_path / str(n), str(n)) for n in range(15)]
    done = threading.Event()
    seen = []

    def read() -> None:
        reader = Registry(tmp_path / "models", shipped)
        while not done.is_set():
            seen.append(reader.current(7).name)
            assert reader.versions(7)[0] == reader.base
            # Read in this order: what is in production has served.
            assert reader.pointer(7).version in reader.pointer(7).served

    with ThreadPoolExecutor(2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        for number, folder in enumerate(folders):
            registry.promote(7, registry.add(7, folder, {}).name)
            if number % 3 == 2:
                registry.rollback(7)
            registry.prune(7, 1)
        done.set()
        for each in readers:
            each.result()
    assert len(set(seen)) > 3
    assert len(registry.versions(7)) <= 5


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


def test_who_does_not_want_to_wait_for_a_learner_is_told_so(registry: Registry) -> None:
    with registry.learning(7), pytest.raises(Unavailable, match="It learns"), registry.learning(7, "It learns"):
        pytest.fail("two hold the lock")
    with registry.learning(7, "It learns"):
        pass


def test_who_waits_for_a_learner_may_give_up_or_go_on_after_it(registry: Registry) -> None:
    class GivenUp(Exception):
        pass

    def give_up() -> None:
        raise GivenUp

    with ExitStack() as other, ThreadPoolExecutor(1) as threads:
        threads.submit(other.enter_context, registry.learning(7)).result()
        with pytest.raises(GivenUp), registry.learning(7, waiting=give_up):
            pytest.fail("two hold the lock")
        with registry.learning(7, waiting=other.close):
            pass


@pytest.fixture
def pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_pointer("grounding-dino+sam2", tmp_path / "cache", monkeypatch)


def test_learning_starts_at_what_serves(registry: Registry, candidate: Path) -> None:
    assert registry.read(7).start == registry.base
    version = registry.add(7, candidate, {})
    assert registry.read(7).start == registry.base
    registry.promote(7, version.name)
    assert registry.read(7).start == version
    registry.rollback(7)
    assert registry.read(7).start == registry.base


def test_a_zero_shot_segmenter_serves_and_another_learns(registry: Registry, candidate: Path, pointer: Path) -> None:
    version, zero_shot = registry.add(7, candidate, {}), registry.add(7, pointer, {"origin": "zero-shot"})
    assert re.fullmatch(r"grounding-dino\+sam2-[0-9a-f]{8}", zero_shot.name)
    registry.promote(7, version.name)
    registry.promote(7, zero_shot.name)
    versions = registry.read(7)
    assert (versions.current, versions.start, versions.shipped) == (zero_shot, version, registry.base)
    # What was taken back isn't gone on from.
    registry.rollback(7)
    registry.rollback(7)
    registry.promote(7, zero_shot.name)
    assert registry.read(7).start == registry.base


def test_what_learning_goes_on_from_is_not_pruned(registry: Registry, tmp_path: Path, pointer: Path) -> None:
    learnt, trial = (registry.add(7, make_checkpoint(tmp_path / str(n), str(n)), {}) for n in range(2))
    first = registry.add(7, pointer, {})
    point = checkpoint_files.OperatingPoint(mask=0.4)
    checkpoint_files.with_point(pointer, point, tmp_path / "again")
    second = registry.add(7, tmp_path / "again", {})
    for version in (learnt, first, second):
        registry.promote(7, version.name)
    assert registry.prune(7, 0) == [trial]
    assert registry.read(7).start == learnt


def test_a_project_may_start_at_a_zero_shot_segmenter(tmp_path: Path, candidate: Path, pointer: Path) -> None:
    registry = Registry(tmp_path / "models", pointer)
    ours = checkpoint_files.shipped()
    versions = registry.read(7)
    assert versions.current == versions.base == registry.current(7)
    assert versions.base.folder == pointer
    assert versions.start.folder == versions.shipped.folder == ours
    assert [version.folder for version in registry.versions(7)] == [pointer, ours]
    assert registry.add(7, ours, {}) == versions.shipped
    # The shipped model can be put in its place without being copied, and pruning leaves both alone.
    assert registry.promote(7, versions.shipped.name).folder == ours
    assert registry.rollback(7) == registry.base
    version = registry.add(7, candidate, {})
    assert registry.prune(7, 0) == [version]
    assert registry.versions(7) == list(registry.given)


def test_the_shipped_model_is_found_by_name_whatever_projects_start_at(tmp_path: Path, pointer: Path) -> None:
    """A project that went back to it keeps it when the settings change."""
    ours = Registry(tmp_path / "models")
    ours.promote(7, ours.add(7, pointer, {}).name)
    ours.rollback(7)
    assert ours.pointer(7).version == ours.base.name
    assert Registry(tmp_path / "models", pointer).current(7) == ours.base


def test_a_zero_shot_segmenter_is_found_by_its_name(registry: Registry, pointer: Path, tmp_path: Path) -> None:
    version = registry.find(7, "grounding-dino+sam2")
    assert version.name == checkpoint_files.version(pointer)
    assert version.folder != pointer
    assert version.card["origin"] == "zero-shot"
    assert registry.find(7, "grounding-dino+sam2") == registry.find(7, version.name) == version
    assert registry.versions(7) == [registry.base, version]
    assert sorted(file.name for file in version.folder.iterdir()) == ["card.md", "config.json", "version.json"]
    with pytest.raises(CheckpointError, match="ris fetch owlv2"):
        registry.find(7, "owlv2+sam2")
    with pytest.raises(NotFound, match="has no version yolo"):
        registry.find(7, "yolo")
    assert Registry(tmp_path / "models", pointer).find(8, "grounding-dino+sam2").folder == pointer


def test_what_served_stays_when_the_settings_name_another(tmp_path: Path, candidate: Path, pointer: Path) -> None:
    """Projects that ever left it: in production, or a step back."""
    named = Registry(tmp_path / "models", pointer)
    ours = named.add(7, candidate, {})
    assert named.promote(7, ours.name) == ours
    assert len(named.versions(7)) == 3, "it isn't listed twice"
    now = Registry(tmp_path / "models")
    assert now.current(7) == ours
    assert now.read(7).start == ours
    assert now.rollback(7).name == named.base.name
    assert now.current(7).card["origin"] == "zero-shot"
    assert now.read(7).start == now.base
    assert now.prune(7, 0) == [ours]
    assert Registry(tmp_path / "models", pointer).current(7) == named.base
