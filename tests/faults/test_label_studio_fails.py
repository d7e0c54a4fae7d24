"""Label Studio fails in the middle of work: refuses, is overloaded, breaks, drops the connection, says nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from harness import ROUNDS, STUDIO_TIMEOUT, WORKS, Installation, JobWork, Tally
from labelstudio.site import Answer, Asked

from backend.queue import wording


def silence() -> Answer:
    time.sleep(1.5 * STUDIO_TIMEOUT)
    return Answer(reset=True)


FAILURES: dict[str, tuple[Callable[[], Answer], str]] = {
    "401": (lambda: Answer(401), "doesn't accept the token"),
    "429": (lambda: Answer(429), "asks for fewer requests"),
    "500": (lambda: Answer(500), "Label Studio failed at"),
    "503": (lambda: Answer(503), "Label Studio failed at"),
    "reset": (lambda: Answer(reset=True), "can't be reached"),
    "time-out": (silence, "can't be reached"),
}


@pytest.fixture(autouse=True)
def _works_in_the_end(installation: Installation) -> Iterator[None]:
    yield
    installation.desk.failure = lambda asked: None


def fail(installation: Installation, answer: Callable[[], Answer], after: int) -> None:
    """Fail from the request of that number on; half of the time what is asked for is done all the same."""
    desk, left, luck = installation.desk, [after], installation.luck
    before = desk.failures

    def failure(asked: Asked) -> Answer | None:
        # A job waits until these are answered, for minutes.
        if asked.path in ("/api/current-user/whoami", "/api/token/refresh/"):
            return None
        left[0] -= 1
        if left[0] >= 0 or desk.failures > before + 12:
            return None
        if asked.path.endswith("/import/predictions") and luck.random() < 0.5:
            desk.shelf(asked)
        return answer()

    desk.failure = failure


def order_in_vain(done: JobWork, answer: Callable[[], Answer]) -> None:
    """Order a job, and have Label Studio fail at one of the first things that are asked for it."""
    while True:
        fail(done.at, answer, done.at.luck.randrange(3))
        done.order()
        done.at.until(done.has_ended)
        if not done.has_succeeded():
            return


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("work", WORKS)
def test_label_studio_failing_costs_nothing(installation: Installation, work: str, failure: str, tally: Tally) -> None:
    """A batch waits, and goes on by itself; a job fails with what was said, and does it all when asked again."""
    answer, sentence = FAILURES[failure]
    for _ in range(ROUNDS):
        done, said = WORKS[work](installation), len(installation.log)
        before = installation.desk.failures
        if isinstance(done, JobWork):
            order_in_vain(done, answer)
            assert sentence in done.sentence
            assert sentence in wording.outcome(done.state)
            installation.desk.failure = lambda asked: None
            done.order()
        else:
            fail(installation, answer, installation.luck.randrange(6))
            done.order()
            installation.until(lambda before=before: installation.desk.failures > before + 1)
            installation.until(lambda said=said: sentence in installation.log[said:])
            installation.desk.failure = lambda asked: None
        tally(f"Label Studio: {failure}", work, done.finish())
