"""Memory runs out: what torch raises on a full GPU is raised where torch would, in the worker's own process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROUNDS, TASKS, Installation, PreLabelling, Tally, Training


class Memory:
    """Room for so many photos together."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def holds(self, count: int | None) -> None:
        """None: as many as anybody wants."""
        self._file.unlink(missing_ok=True)
        if count is not None:
            self._file.write_text(str(count))


@pytest.fixture
def memory(installation: Installation) -> Iterator[Memory]:
    memory = Memory(Path(os.environ["MEMORY"]))
    yield memory
    memory.holds(None)


@pytest.mark.timeout(3600)
def test_a_batch_is_predicted_in_smaller_passes(installation: Installation, memory: Memory, tally: Tally) -> None:
    """As many photos together as there is room for."""
    for _ in range(ROUNDS):
        memory.holds(installation.luck.randint(1, 3))
        done = PreLabelling(installation)
        done.order()
        tally("out of memory: less room", done.name, done.finish())
        assert done.state.failed == 0


@pytest.mark.timeout(3600)
def test_where_no_photo_fits_each_task_says_so_and_can_be_tried_again(
    installation: Installation, memory: Memory, tally: Tally
) -> None:
    """Nothing is lost: with more memory all of it is predicted."""
    for _ in range(ROUNDS):
        memory.holds(0)
        done = PreLabelling(installation)
        done.order()
        done.finish()
        assert done.state.failed == TASKS
        assert {*done.state.reasons.values()} == {
            "Memory ran out on a single photo or prompt. Use a smaller model or side, or a larger machine."
        }
        memory.holds(None)
        installation.ris("resume", done.batch)
        tally("out of memory: none", done.name, done.finish())
        assert done.state.failed == 0


@pytest.mark.timeout(3600)
def test_a_training_goes_on_with_smaller_batches(installation: Installation, memory: Memory, tally: Tally) -> None:
    """Half as many photos at a time, until they fit; the log says so."""
    for _ in range(ROUNDS):
        memory.holds(1)
        done, said = Training(installation), len(installation.log)
        done.order()
        tally("out of memory: less room", done.name, done.finish())
        assert "Memory ran out with 8 photos a batch: learning begins anew with 4." in installation.log[said:]


@pytest.mark.timeout(3600)
def test_a_training_for_which_there_is_no_room_says_what_to_do(
    installation: Installation, memory: Memory, tally: Tally
) -> None:
    """What is annotated is learnt once there is room."""
    for _ in range(ROUNDS):
        memory.holds(0)
        done = Training(installation)
        done.order()
        installation.until(done.has_ended)
        assert not done.has_succeeded()
        assert done.sentence in installation.ris("jobs")
        assert done.sentence == (
            "Memory ran out while learning: lower RIS_FINETUNE_PHOTOS (now 8), or give the worker more memory."
        )
        memory.holds(None)
        done.order()
        tally("out of memory: none", done.name, done.finish())
