"""One installation for the tests of a file; and the table of what each fault cost."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROUNDS, SEED, Damage, Installation, Tally, installed

_PROPERTY = "fault"
_rounds: Counter[tuple[str, str]] = Counter()
_lost: Counter[tuple[str, str]] = Counter()
_doubled: Counter[tuple[str, str]] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of each test here `make test` takes the first case; the others are slow."""
    taken: set[tuple[Path, str]] = set()
    for item in items:
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent:
            test = item.path, item.originalname
            if test in taken:
                item.add_marker("slow")
            taken.add(test)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as installation:
        yield installation


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Note what a round of a fault in a work cost, and have the test fail unless that is nothing."""

    def note(fault: str, work: str, damage: Damage) -> None:
        request.node.user_properties.append((_PROPERTY, [fault, work, damage.lost, damage.doubled]))
        assert damage == Damage(0, 0), (fault, work)

    return note


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == _PROPERTY:
                fault, work, lost, doubled = value
                _rounds[fault, work] += 1
                _lost[fault, work] += lost
                _doubled[fault, work] += doubled


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if "RIS_FAULTS" not in os.environ or not _rounds:
        return
    terminalreporter.section(f"faults, {ROUNDS} rounds, RIS_FAULTS_SEED={SEED}")
    terminalreporter.line("| fault | work | rounds | lost | doubled |")
    terminalreporter.line("|---|---|---:|---:|---:|")
    for key in sorted(_rounds):
        terminalreporter.line(f"| {key[0]} | {key[1]} | {_rounds[key]} | {_lost[key]} | {_doubled[key]} |")
