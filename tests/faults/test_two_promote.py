"""Two workers, and a person, put versions into production at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ANNOTATED, ROUNDS, Damage, Installation, Tally, Training

RIS = str(Path(sys.executable).with_name("ris"))


@pytest.fixture
def second(installation: Installation) -> Iterator[None]:
    """A second worker."""
    installation.cast.commands["second"] = installation.cast.commands["worker"]
    installation.until(lambda: installation.jobs.workers()["training"] == 2)
    yield
    del installation.cast.commands["second"]
    installation.cast.kill("second")


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("second")
def test_of_two_workers_that_learn_at_once_one_does(installation: Installation, tally: Tally) -> None:
    """The other waits, then says that nothing is new: what one person said is learnt once."""
    for _ in range(ROUNDS):
        done = Training(installation)
        done.begin()
        # That one has started, so this is another, which the second worker takes.
        other = Training(installation)
        other.job = installation.jobs.learn(ANNOTATED, min_new=1).job
        assert other.job != done.job
        installation.until(other.has_ended)
        damage = done.finish()
        assert other.state["result"]["decision"] == "waiting"
        assert "0 of 1 new corrections are there." in installation.ris("job", other.job)
        tally("two learn at once", done.name, damage)


@pytest.mark.timeout(3600)
def test_who_promotes_at_once_gets_one_version_in_production(installation: Installation, tally: Tally) -> None:
    """A worker judges a version while two people promote others; none is promoted twice, and what lost says so."""
    registry = installation.registry
    while len(registry.versions(ANNOTATED)) < 4:
        first = Training(installation)
        first.order()
        first.finish()
    for _ in range(ROUNDS):
        done = Training(installation)
        done.order()
        installation.until(lambda done=done: done.stage == "evaluating" or done.has_ended())
        before = registry.pointer(ANNOTATED)
        own = [version.name for version in registry.versions(ANNOTATED) if version.name != registry.base.name]
        others = [name for name in own if name != before.version][-2:]
        people = [
            subprocess.Popen(
                [RIS, "promote", name, "--project", str(ANNOTATED)],
                env=os.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in others
        ]
        told = [person.communicate(timeout=120)[0] for person in people]
        installation.until(done.has_ended)
        assert done.has_succeeded(), done.sentence
        result, after = done.state["result"], registry.pointer(ANNOTATED)
        moved = [name for name, said in zip(others, told, strict=True) if f"{name} is in production" in said]
        assert moved == others, told
        if result["decision"] == "promoted":
            moved.append(result["version"])
        # Of many more the pointer keeps the last.
        steps = after.earlier[-len(moved) :]
        assert set(steps) == {before.version, *moved} - {after.version}
        assert after.version in moved
        assert registry.current(ANNOTATED).name == after.version
        if result["decision"] == "kept" and result["gate"]["decision"] == "passed":
            assert "is in production now. Compare them again." in installation.ris("job", done.job)
        missing = len({*moved} - {*after.served})
        tally("promoted at once", "promotion", Damage(missing, len(steps) - len({*steps})))
