"""The checks in a process of their own: their findings come one by one, and one that hangs comes to an end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from backend.doctor import CHAIN
from backend.doctor.aside import ExaminationRuns, Examiner

from .chain import PROJECT, Chain


def test_a_whole_chain_is_examined_aside(chain: Chain) -> None:
    chain.write()
    examiner = Examiner(chain.home)
    assert examiner.last is None
    thread = examiner.start(PROJECT)
    with pytest.raises(ExaminationRuns):
        examiner.start(None)
    assert examiner.last and examiner.last.next_link == CHAIN[len(examiner.last.findings)].link
    thread.join(120)
    last = examiner.last
    assert last and last.ended and last.next_link is None and last.project == PROJECT
    # The other process has the shipped model, and the project here was predicted by one of random weights.
    states = {finding.link: finding.state for finding in last.findings}
    assert list(states) == [check.link for check in CHAIN]
    assert "broken" not in states.values(), last.findings


def test_what_takes_too_long_is_ended(chain: Chain) -> None:
    chain.write()
    examiner = Examiner(chain.home, longest=0.1)
    started = time.monotonic()
    examiner.start(None).join(30)
    last = examiner.last
    assert last and last.ended and time.monotonic() - started < 20
    assert [finding.link for finding in last.findings] == [check.link for check in CHAIN]
    assert last.findings[-1].state == "broken"
    assert "took too long" in last.findings[-1].what
    # And another can begin.
    examiner.start(None).join(30)


def test_a_server_that_knows_the_links_has_no_torch() -> None:
    code = "import sys, backend.doctor.aside; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
