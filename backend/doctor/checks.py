"""What a check is: a look at one link of the chain, which ends in a verdict. Knows no link."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

import httpx
from redis.exceptions import RedisError

from backend.labelstudio.client import LabelStudio
from backend.settings import Settings, load
from ris_core.errors import RisError

CheckState = Literal["ok", "warning", "broken", "skipped"]


class CheckResult(NamedTuple):
    """How a link is. what: one sentence; remedy: what to do about it."""

    state: CheckState
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """The verdict on a link, by the link's name."""

    link: str
    state: CheckState
    what: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """A look at a link. needs: the links without which there is nothing to look at."""

    link: str
    look: Callable[[CheckContext], CheckResult]
    needs: Sequence[str] = ()


class CheckContext:
    """What the checks look at; each thing is fetched once, when a check first asks for it."""

    def __init__(self, number: int | None) -> None:
        self.number = number
        self._client: LabelStudio | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client:
            self._client.close()

    @cached_property
    def settings(self) -> Settings:
        return load(self.number)

    @property
    def client(self) -> LabelStudio:
        if self._client is None:
            self._client = LabelStudio.from_settings(self.settings)
        return self._client

    @cached_property
    def project(self) -> dict[str, Any] | None:
        """The project's row in Label Studio; None if no project is looked at."""
        return None if self.number is None else self.client.project(self.number)

    @cached_property
    def registrations(self) -> list[dict[str, Any]]:
        """The project's ML backends, which Label Studio calls before it answers."""
        assert self.number is not None
        return self.client.ml_backends(self.number)


def ok(what: str) -> CheckResult:
    return CheckResult("ok", what)


def warning(what: str, remedy: str) -> CheckResult:
    return CheckResult("warning", what, remedy)


def broken(what: str, remedy: str) -> CheckResult:
    return CheckResult("broken", what, remedy)


def skipped(what: str, remedy: str = "") -> CheckResult:
    return CheckResult("skipped", what, remedy)


def explained(error: RisError) -> CheckResult:
    """An error of ours as a verdict. Its sentences say what happened, then what to do, after a stop or a colon."""
    text = str(error)
    what, _, remedy = text.partition(". " if ". " in text else ": ")
    return broken(f"{what.rstrip('.')}.", remedy[:1].upper() + remedy[1:])


def examine(chain: Sequence[Check], scene: CheckContext) -> Iterator[Finding]:
    """Look at each link whose needs are met."""
    missing: set[str] = set()
    for check in chain:
        lacking = [need for need in check.needs if need in missing]
        verdict = skipped(f"Needs {' and '.join(lacking)}.") if lacking else _look(check, scene)
        if verdict.state in ("broken", "skipped"):
            missing.add(check.link)
        yield Finding(check.link, *verdict)


def _look(check: Check, scene: CheckContext) -> CheckResult:
    try:
        return check.look(scene)
    except RisError as error:
        return explained(error)
    except (httpx.HTTPError, RedisError, OSError) as error:
        # What answered a moment ago may fall silent in the middle of a check; the other links are worth a look still.
        return broken(f"It failed on the way ({type(error).__name__}: {error}).", "Try again; else see the logs.")
