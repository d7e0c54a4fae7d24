"""What people see of learning in Label Studio: a last line of the project's instructions, one click away in the editor.

    RIS: 12 of 20 changed tasks until it learns. Last: promoted 2026-11-27 21:40 UTC, held-out score 0.61 to 0.65.

What people wrote there stays. The line is written when it says something else than before, by the worker, and never in
answer to a change of the project: Label Studio's event of that change (PROJECT_UPDATED) is nobody's here.
"""

import re
import time
from contextlib import suppress
from datetime import datetime
from html import escape

import httpx
from redis import Redis
from redis.exceptions import LockError

from backend.labelstudio.client import LabelStudio
from backend.learning.events import Changes, EventLog
from backend.learning.triggers import logged_errors, usual_min_new
from backend.registry import ProjectVersions, Registry
from backend.settings import Settings

# Label Studio keeps this much of HTML as it is written.
_LINE = re.compile(r"\n?<p>RIS: .*?</p>", re.DOTALL)
_TIMEOUT = httpx.Timeout(5.0)
# For all projects of one tick: the worker has jobs to do.
_TICK_SECONDS = 10
_LOCK_SECONDS = 50
_WRITTEN = "ris:notices"


def sentence(changes: Changes, versions: ProjectVersions, min_new: int) -> str:
    """How far a project's learning is, and what came of the last one."""
    count = changes.fresh + changes.pending
    far = f"{count} of {min_new} changed tasks until it learns."
    if changes.job:
        far = f"It is learning from {changes.pending} changed tasks."
    elif count >= min_new or changes.forced:
        far = f"{count} changed tasks: it learns as soon as a worker is free."
    tried = [version.card for version in versions.versions if version.card.get("decision") in ("promoted", "kept")]
    if not tried:
        return f"RIS: {far}"
    card = tried[-1]
    numbers = (card.get("gate") or {}).get("numbers") or {}
    score = ", held-out score {before:.2f} to {after:.2f}".format(**numbers) if "after" in numbers else ""
    when = f"{datetime.fromisoformat(str(card['added'])):%Y-%m-%d %H:%M} UTC"
    if card["decision"] == "promoted":
        return f"RIS: {far} Last: promoted {when}{score}."
    what = "kept as a trial" if (card.get("gate") or {}).get("decision") == "not yet" else "held back"
    return f"RIS: {far} Last: {what} {when}{score}. {card.get('reason', '')}".rstrip()


def current(project: int, log: EventLog, registry: Registry, settings: Settings) -> str:
    """The `sentence` of a project as things stand. settings: of that project."""
    counts, _ = log.last_probe(project)
    min_new = usual_min_new(settings, counts.tasks if counts else None)
    return sentence(log.changes(project), registry.read(project), min_new)


def with_line(instructions: str, line: str) -> str:
    """The instructions with that last line in place of the one before."""
    return f"{_LINE.sub('', instructions)}\n<p>{escape(line, quote=False)}</p>".lstrip()


def tick(connection: Redis, settings: Settings, registry: Registry) -> None:
    """What a worker does each minute: write the lines that say something new. Takes seconds, one worker at a time.

    What goes wrong with Label Studio is logged, and tried again in a minute.
    """
    if settings.label_studio_token is None:
        return
    with suppress(LockError), connection.lock("ris:notices:lock", timeout=_LOCK_SECONDS, blocking=False):
        _write_all(connection, settings, registry)


def _write_all(connection: Redis, settings: Settings, registry: Registry) -> None:
    log, end = EventLog(connection, settings.home), time.monotonic() + _TICK_SECONDS
    with LabelStudio.from_settings(settings, _TIMEOUT) as client:
        for project in sorted(log.projects()):
            if time.monotonic() >= end:
                return
            with logged_errors(project):
                own = settings.of_project(project)
                line = current(project, log, registry, own)
                if own.finetune_notice and connection.hget(_WRITTEN, str(project)) != line.encode():
                    _write(client, project, line)
                    connection.hset(_WRITTEN, str(project), line)


def _write(client: LabelStudio, project: int, line: str) -> None:
    before = str(client.project(project).get("expert_instruction") or "")
    after = with_line(before, line)
    if after != before:
        client.update_project(project, expert_instruction=after)
