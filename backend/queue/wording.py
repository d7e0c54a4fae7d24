"""Jobs in words: what one does, how far it is, and what came of it. From `JobQueue.describe`, for whoever shows it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

# What a job's function does, with its arguments; and how a job of each status goes.
_DOES = {
    "learn": "learns from the corrections of project {0}",
    "distil": "learns what a teacher says about project {0}",
    "export": "exports project {0} to {1}",
    "prelabel": "works on batch {0}",
    "refresh": "looks whether project {0} is to be predicted anew",
}
_GOES = {
    "queued": "waits for a worker",
    "deferred": "waits for another job",
    "scheduled": "waits to be tried again",
    "started": "runs",
    "finished": "has finished",
    "failed": "has failed",
    "stopped": "was stopped",
    "canceled": "was cancelled",
}
_RESULTS = {
    "learn": "{decision}: {reason}",
    "distil": "{decision}: {reason}",
    "export": "{images} images, {annotations} masks, {refs} expressions in {out}",
    "prelabel": "{tasks} tasks in {seconds:.0f} s",
    "refresh": "Predictions: {state}",
}
_OF_PROJECTS = ("learn", "distil", "export", "refresh")
_STRANGE = "is none of ours, and isn't run"


def does(job: Mapping[str, Any]) -> str:
    """What a job is for, such as "exports project 7 to cats"."""
    function = job.get("function")
    return _DOES[function].format(*job.get("arguments") or []) if function in _DOES else _STRANGE


def project_of(job: Mapping[str, Any]) -> int | None:
    """The project that a job is about; None of a batch's runner, which its batch knows, and of what is none of ours."""
    arguments = job.get("arguments") or []
    return int(arguments[0]) if job.get("function") in _OF_PROJECTS and arguments else None


def goes(job: Mapping[str, Any]) -> str:
    """Whether a job waits, runs or has ended, such as "has finished"."""
    return _GOES.get(job["status"], str(job["status"]))


def outcome(job: Mapping[str, Any]) -> str:
    """What came of a job, how far it is while it runs, or why it failed; empty where there is nothing to say."""
    if came := _result(job):
        return came
    if message := _error(job):
        return message
    progress = job.get("progress")
    return f"{progress['stage']} {progress['share']:.0%}" if progress else ""


def sentences(job: Mapping[str, Any]) -> Iterator[str]:
    """All that a person wants to know of a job."""
    yield f"Job {job['id']} {does(job)}."
    progress = job.get("progress") if job["status"] == "started" else None
    far = f": {progress['stage']}, {progress['share']:.0%} done" if progress else ""
    yield f"It {goes(job)}{far}."
    times = [f"{name} {time(job[name])}" for name in ("queued", "started", "ended") if job.get(name)]
    if times:
        yield f"It was {', '.join(times)}."
    if came := _result(job):
        yield f"{came.rstrip('.')}."
    if message := _error(job):
        yield message


def time(when: str) -> str:
    """A time as a record has it, to the second."""
    return f"{datetime.fromisoformat(when):%Y-%m-%d %H:%M:%S} UTC"


def ago(when: str | None) -> str:
    """How long ago a time of a record is; empty where there is none."""
    if when is None:
        return ""
    return f"{duration((datetime.now(UTC) - datetime.fromisoformat(when)).total_seconds())} ago"


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours before them where it is that long."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _result(job: Mapping[str, Any]) -> str:
    function, result = job.get("function"), job.get("result")
    return _RESULTS[function].format(**result) if isinstance(result, dict) and function in _RESULTS else ""


def _error(job: Mapping[str, Any]) -> str:
    return str((job.get("error") or {}).get("message") or "")
