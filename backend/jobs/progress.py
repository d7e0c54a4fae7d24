"""How far a job has got, in its record. Knows the record; knows nothing of what jobs do."""

from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import RedisError
from rq.job import Job

from backend.queue.queue import RETRIES


class JobProgress:
    """Called, keeps the progress for /jobs/<id>. Getting further than ever gives a job all its tries back.

    stages: in the order in which the job comes to them.
    """

    def __init__(self, job: Job | None, stages: Sequence[str]) -> None:
        self._job, self._stages, self._last = job, stages, ("", 0.0)

    def __call__(self, stage: str, share: float) -> None:
        # Whole percents: a training takes many more steps than anybody looks.
        progress = stage, round(share, 2)
        if self._job is None or progress == self._last:
            return
        self._last = progress
        self._job.meta["progress"] = {"stage": stage, "share": round(share, 2)}
        # Work must not end for what is only told.
        with suppress(RedisError):
            self._note(self._job, [self._stages.index(stage), round(share, 2)])

    def _note(self, job: Job, reached: list[float]) -> None:
        if reached > job.meta.get("furthest", []):
            # Else a job that is killed at the same place each time would never come to an end.
            job.meta["furthest"], job.retries_left = reached, RETRIES
            job.connection.hset(job.key, "retries_left", RETRIES)
        job.save_meta()  # type: ignore[no-untyped-call]
