"""What a training does when memory runs out: half as many photos at a time, then the CPU, then it says so.

How much room there was is kept in the run folder, so that a training that is killed doesn't run into it again.
"""

import gc
import json
import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from ris_core.errors import OutOfMemory
from ris_core.files import atomic_write
from ris_core.inference.passes import is_out_of_memory
from ris_core.models.base import best_device, without_gpu

_log = logging.getLogger(__name__)
_ROOM = "room.json"

T = TypeVar("T")


@dataclass(frozen=True)
class Room:
    """photos: that memory holds at a time, as far as is known. gpu: whether the GPU is tried, if there is one."""

    photos: int
    gpu: bool = True

    def device(self) -> AbstractContextManager[None]:
        """Inside, models lie where there is room."""
        return nullcontext() if self.gpu else without_gpu()

    def less(self, wanted: int) -> "Room | None":
        """What to try next, where as many photos as are `wanted` were tried first; None: nothing is left."""
        if self.photos > 1:
            return Room(self.photos // 2, self.gpu)
        with self.device():
            return None if best_device().type == "cpu" else Room(wanted, gpu=False)


def in_room(run: Path, wanted: int, train: Callable[[int], T]) -> T:
    """`train` with as many of the `wanted` photos at a time as memory holds -> what it returns.

    run: the training's folder. What is in it of an attempt that was too large is deleted: another batch is another run.
    Raises what `train` raises; where not even one photo fits on the CPU, that is how torch says so, or OutOfMemory.
    """
    room = _known(run, wanted)
    while True:
        try:
            with room.device():
                return train(room.photos)
        except (MemoryError, RuntimeError, OutOfMemory) as error:
            if not is_out_of_memory(error):
                raise
            if (smaller := room.less(wanted)) is None:
                raise
        # Out here nothing holds the tensors of the attempt any more.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _tell(room, smaller)
        _begin_anew(run, smaller)
        room = smaller


def _known(run: Path, wanted: int) -> Room:
    file = run / _ROOM
    return Room(**json.loads(file.read_bytes())) if file.is_file() else Room(wanted)


def _tell(room: Room, smaller: Room) -> None:
    if smaller.gpu is room.gpu:
        what = "Memory ran out with %d photos a batch: learning begins anew with %d."
        _log.warning(what, room.photos, smaller.photos)
    else:
        _log.warning("The GPU's memory doesn't hold a single photo: learning begins anew on the CPU, and takes longer.")


def _begin_anew(run: Path, room: Room) -> None:
    # Killed in here, it begins anew with what was too much.
    for path in run.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    atomic_write(run / _ROOM, json.dumps(asdict(room)).encode())
