"""What a check is: a probe of one link of the chain, with a result. Knows no link."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import httpx
from redis.exceptions import RedisError

from backend.labelstudio.client import LabelStudio
from backend.settings import Settings, load
from ris_core.errors import RisError

CheckState = Literal["ok", "warning", "broken", "skipped"]


class CheckResult(NamedTuple):
    """How a link is. what: one sentence; remedy: what to do about it, empty where nothing is to be done."""

    state: CheckState
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of a check, with the link's name."""

    link: str
    state: CheckState
    what: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """How a link is probed. needs: the links without which there is nothing to probe."""

    link: str
    probe: Callable[[CheckContext], CheckResult]
    needs: Sequence[str] = ()


class CheckContext(ExitStack):
    """What checks go by; each thing is fetched once, when a check first asks for it. number: the project's, if any."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number

    @cached_property
    def settings(self) -> Settings:
        """Those of the project, if one was named. Raises SettingsError."""
        return load(self.number)

    @cached_property
    def client(self) -> LabelStudio:
        """Label Studio, as the settings' token sees it. Raises SettingsError if that isn't set."""
        return self.enter_context(LabelStudio.from_settings(self.settings))

    @cached_property
    def project(self) -> dict[str, Any]:
        """The project as Label Studio's API shows it, for checks that need one."""
        assert self.number is not None
        return self.client.project(self.number)

    @cached_property
    def registrations(self) -> list[dict[str, Any]]:
        """The project's ML backends, which Label Studio calls before it answers."""
        return self.client.ml_backends(self.project["id"])


def ok(what: str) -> CheckResult:
    """The link holds."""
    return CheckResult("ok", what)


def warning(what: str, remedy: str) -> CheckResult:
    """The link holds, but something is amiss."""
    return CheckResult("warning", what, remedy)


def broken(what: str, remedy: str) -> CheckResult:
    """The link doesn't hold: what needs it is skipped."""
    return CheckResult("broken", what, remedy)


def skipped(what: str, remedy: str = "") -> CheckResult:
    """There is nothing to probe."""
    return CheckResult("skipped", what, remedy)


def explained(error: RisError) -> CheckResult:
    """An error of ours as a result. Its sentences say what happened, then what to do, after a stop or a colon."""
    text = str(error)
    what, _, remedy = text.partition(". " if ". " in text else ": ")
    return broken(f"{what.rstrip('.')}.", remedy[:1].upper() + remedy[1:])


def examine(chain: Sequence[Check], context: CheckContext) -> Iterator[Finding]:
    """Probe each link whose needs are met, in the order given."""
    missing: set[str] = set()
    for check in chain:
        lacking = [need for need in check.needs if need in missing]
        result = skipped(f"Needs {' and '.join(lacking)}.") if lacking else _probe(check, context)
        if result.state in ("broken", "skipped"):
            missing.add(check.link)
        yield Finding(check.link, *result)


def _probe(check: Check, context: CheckContext) -> CheckResult:
    try:
        return check.probe(context)
    except RisError as error:
        return explained(error)
    except (httpx.HTTPError, RedisError, OSError) as error:
        # What answered a moment ago may fall silent in the middle of a check; the other links are worth a probe still.
        return broken(f"It failed on the way ({type(error).__name__}: {error}).", "Try again; else see the logs.")
