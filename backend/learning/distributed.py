"""A candidate trained by several processes of this machine together, one for each GPU. Knows no queue.

Each is `python -m backend.learning.distributed SPEC RANK`, a group of its own that ends when the one that started it
does: then its standard input, over which it is also asked to stop, is closed. The first writes on its standard output
how it goes, a line of JSON at a time.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from backend.errors import DiskFull
from backend.learning.candidate import CHECKPOINT, CandidateSpec, train_candidate
from backend.queue.cancellation import STOP, Cancellation
from ris_core.data import read_folder
from ris_core.errors import OutOfMemory, RisError, TrainingError
from ris_core.files import atomic_write
from ris_core.inference.passes import is_out_of_memory
from ris_core.training.loop import Interrupted

_SPEC, _MEETING = "order.json", "meeting"
_POLL_SECONDS = 0.1
# What their exit status says.
_INTERRUPTED, _OUT_OF_MEMORY = 3, 4
_END_SECONDS = 10.0

Message = Mapping[str, Any]


def train_together(
    processes: int,
    folders: Sequence[Path],
    spec: CandidateSpec,
    run: Path,
    on_progress: Callable[[float], None],
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """`train_candidate` in so many processes. The samples are of these dataset folders, where each reads them.

    Raises Interrupted if `stop` was true (the state of that step is saved), OutOfMemory if one of them was killed for
    it or said so, TrainingError if one of them failed; what it said besides is in the log.
    """
    refs = sorted({sample.ref_id for sample in spec.samples})
    paths = {"base": spec.base.absolute(), "features": spec.features and spec.features.absolute()}
    content = {
        "processes": processes,
        "folders": [folder.absolute() for folder in folders],
        "run": run.absolute(),
        "spec": {**vars(spec), "samples": refs, "new": sorted(spec.new), **paths},
    }
    run.mkdir(parents=True, exist_ok=True)
    atomic_write(run / _SPEC, json.dumps(content, default=str).encode())
    # Where they find each other: what an earlier group left there would mislead them.
    (run / _MEETING).unlink(missing_ok=True)
    with _started(run / _SPEC, processes) as group:
        _follow(group, on_progress, stop)
    return run / CHECKPOINT


@contextmanager
def _started(spec: Path, processes: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes, none of which is left in the end."""
    threads = max(1, torch.get_num_threads() // processes)
    group: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "OMP_NUM_THREADS": threads}
            process = subprocess.Popen(
                [sys.executable, "-m", "backend.learning.distributed", str(spec), str(rank)],
                env={**os.environ, **{name: str(value) for name, value in names.items()}},
                stdin=subprocess.PIPE,
                stdout=None if rank else subprocess.PIPE,
                process_group=0,
            )
            group.append(process)
        yield group
    finally:
        for process in group:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                stream.close()


def _follow(
    group: list[subprocess.Popen[bytes]], on_progress: Callable[[float], None], stop: Callable[[], bool]
) -> None:
    """Until all have ended: pass on what the first says, and to all that they should stop."""
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_messages, args=(group[0], messages), daemon=True)
    reader.start()
    is_stopping = False
    last: Message = {}
    while True:
        codes = [process.poll() for process in group]
        while not messages.empty():
            last = messages.get()
            if "share" in last:
                on_progress(last["share"])
        if any(codes) or all(code == 0 for code in codes):
            break
        if not is_stopping and stop():
            is_stopping = True
            _ask_to_stop(group)
        time.sleep(_POLL_SECONDS)
    _judge(group, reader, messages, last)


def _ask_to_stop(group: list[subprocess.Popen[bytes]]) -> None:
    for process in group:
        assert process.stdin
        # One that has just ended hears nothing any more.
        with suppress(BrokenPipeError):
            process.stdin.write(STOP)
            process.stdin.flush()


def _judge(
    group: list[subprocess.Popen[bytes]],
    reader: threading.Thread,
    messages: queue.SimpleQueue[Message],
    last: Message,
) -> None:
    """Raise what the end of the first process to end means."""
    codes = [code for process in group if (code := process.poll())]
    if not codes:
        return
    # Who waits for one that failed would do so for ever, but what the first has to say is on its way.
    with suppress(subprocess.TimeoutExpired):
        group[0].wait(_END_SECONDS)
    reader.join(1)
    while not messages.empty():
        last = messages.get()
    if _INTERRUPTED in codes:
        raise Interrupted
    if {_OUT_OF_MEMORY, -signal.SIGKILL} & {*codes}:
        raise OutOfMemory(
            "One of the processes that train together was killed for memory, or found none: lower RIS_FINETUNE_PHOTOS."
        )
    if "error" in last:
        raise TrainingError(last["error"])
    raise TrainingError("One of the processes that train together failed; the worker's log says why.")


def _read_messages(process: subprocess.Popen[bytes], messages: queue.SimpleQueue[Message]) -> None:
    assert process.stdout
    for line in process.stdout:
        # A library may print something as well.
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                messages.put(message)


def _send(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _read_spec(content: Mapping[str, Any]) -> CandidateSpec:
    fields, refs = content["spec"], set(content["spec"]["samples"])
    read = chain.from_iterable(read_folder(Path(folder)) for folder in content["folders"])
    samples = [sample for sample in read if sample.ref_id in refs]
    features = fields["features"] and Path(fields["features"])
    return CandidateSpec(**{**fields, "base": Path(fields["base"]), "samples": samples, "features": features})


def main(file: Path, rank: int) -> int:
    """Be one of the processes -> exit status."""
    should_stop = Cancellation(sys.stdin.fileno())
    content = json.loads(file.read_bytes())
    device = torch.cuda.is_available()
    if device:
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if device else "gloo",
        init_method=f"file://{Path(content['run']) / _MEETING}",
        rank=rank,
        world_size=content["processes"],
    )
    try:
        train_candidate(
            _read_spec(content),
            Path(content["run"]),
            lambda share: None if rank else _send(share=share),
            should_stop,
        )
    except Interrupted:
        return _INTERRUPTED
    except RisError as error:
        if not rank:
            _send(error=str(error))
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _OUT_OF_MEMORY
    except OSError as error:
        if rank or not (full := DiskFull.of(error, Path(content["run"]), "start it again")):
            raise
        _send(error=str(full))
        return 1
    finally:
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
