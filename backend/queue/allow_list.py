"""Jobs as they come out of Valkey: held to their signature and a list of functions before anything is imported.

RQ imports and calls whatever dotted name a job carries, be it the function or a callback: whoever can write
to the queue could run anything. Here only the listed functions count, and a job with more to it than JSON
arguments is disarmed as it is read: that covers all that RQ does with it, run it, retry it or clean it up.
A job without this installation's signature is disarmed before any of it is parsed (signature.py). Knows nothing of
what the functions do.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from redis import Redis
from redis.exceptions import ResponseError
from rq.exceptions import DeserializationError, NoSuchJobError, TimeoutFormatError
from rq.job import Job, JobStatus

from backend.queue.mending import UNREADABLE
from backend.queue.names import NAME, QUEUES
from backend.queue.signature import Signer
from backend.settings import Settings
from ris_core.errors import RisError

FUNCTIONS = frozenset(f"backend.jobs.functions.{name}" for name in ("learn", "distil", "export", "prelabel", "refresh"))

# A job's record holds its payload, its progress and its result: some kilobytes.
MAX_JOB_BYTES = 16 << 20

_SIGNATURE = "signature"
_NOT_SIGNED = (
    "it isn't signed with this installation's RIS_WEBHOOK_SECRET, as it isn't where it was queued before an update or "
    "before that setting changed; learning and batches are then queued anew, exports have to be started again"
)
_CALLBACKS = ("_success_callback_name", "_failure_callback_name", "_stopped_callback_name")


class ForbiddenJob(RisError, code="forbidden_job"):
    """A job that none of ours would be."""


class GuardedJob(Job):
    """A job that can only run one of `allowed`. `refusal` says why it can't run at all, or is None.

    should_stop: whether it should end as soon as it has saved what it did, see cancellation.py; set where it runs.
    signer: signs and recognises jobs. `sign_jobs` sets it, in each process that queues or runs them.
    """

    allowed: ClassVar[frozenset[str]] = FUNCTIONS
    signer: ClassVar[Signer | None] = None
    refusal: str | None = None
    should_stop: Callable[[], bool] = staticmethod(lambda: False)

    @classmethod
    def fetch(cls, id: str, connection: Redis | None = None, serializer: Any = None) -> Job:
        """As RQ's; a job that can't be read counts as absent, since an error here would stop the worker."""
        try:
            if connection is not None and _bytes_of(connection, cls.key_for(id)) > MAX_JOB_BYTES:
                raise NoSuchJobError(f"The job {id!r:.100} is larger than {MAX_JOB_BYTES >> 20} MiB.")
            return super().fetch(id, connection, serializer)
        except (*UNREADABLE, TimeoutFormatError, ResponseError) as error:
            raise NoSuchJobError(f"The job {id!r:.100} can't be read: {error!r:.200}") from None

    def restore(self, raw_data: Any) -> Any:
        """As RQ's; a job with more to it than JSON arguments is disarmed, and of an unsigned one nothing is read."""
        if not self._is_signed(raw_data):
            self._forget(raw_data)
            return
        super().restore(raw_data)
        self.refusal = self._objection()
        if self.refusal:
            self._disarm()

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """As RQ's, and the signature; a job that was refused gets none."""
        record = super().to_dict(include_meta, include_result)
        if self.signer and not self.refusal:
            record[_SIGNATURE] = self.signer.sign(self.id, record["data"])
        return record

    @property
    def func(self) -> Callable[..., Any] | None:
        """The function that runs. Raises ForbiddenJob where that is none of `allowed`."""
        if self.refusal:
            raise ForbiddenJob(f"Job {self.id} isn't run: {self.refusal}.")
        return super().func  # type: ignore[no-any-return]

    def _is_signed(self, record: Mapping[bytes, bytes]) -> bool:
        payload, signature = record.get(b"data", b""), record.get(_SIGNATURE.encode(), b"")
        return self.signer is None or self.signer.is_ours(self.id, payload, signature)

    def _forget(self, record: Mapping[bytes, bytes]) -> None:
        """Refuse the job as if it had no content; where it lies is all that is looked at."""
        self.refusal, self.data = _NOT_SIGNED, b""
        origin = record.get(b"origin", b"").decode(errors="replace")
        self.origin = origin if origin in QUEUES else NAME
        with suppress(ValueError):
            self._status = JobStatus(record.get(b"status", b"").decode(errors="replace"))

    def _objection(self) -> str | None:
        try:
            name, instance = self.func_name, self.instance
        except (DeserializationError, *UNREADABLE):
            return "its payload isn't JSON of a function and its arguments"
        if not isinstance(name, str) or name not in self.allowed:
            return f"it names {name!r:.100}, which isn't one of this worker's functions"
        if instance is not None:
            return "it carries an object to call"
        if not isinstance(self.args, list) or not isinstance(self.kwargs, dict):
            return "its arguments are malformed"
        if any(getattr(self, callback) for callback in _CALLBACKS):
            return "it carries a callback"
        return "it carries a webhook" if self.webhooks else None

    def _disarm(self) -> None:
        for callback in _CALLBACKS:
            setattr(self, callback, None)
        self.webhooks = []
        self.retries_left = self.repeats_left = None


def sign_jobs(settings: Settings) -> None:
    """From now on this process signs the jobs that it queues, and refuses those that others have made.

    Raises SettingsError if RIS_WEBHOOK_SECRET isn't set.
    """
    GuardedJob.signer = Signer.from_settings(settings)


def _bytes_of(connection: Redis, key: str) -> int:
    try:
        return int(connection.memory_usage(key, samples=0) or 0)
    except ResponseError:
        # Some hosted servers don't know that command.
        return 0
