"""The whole chain, as the command shows it."""

from __future__ import annotations

import json

import httpx
import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from backend.doctor import CHAIN
from backend.doctor.checks import Check, CheckContext, CheckResult, broken, examine, ok
from backend.errors import NotFound

from .chain import PROJECT, Chain


def diagnose(*arguments: str) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def test_a_whole_chain(chain: Chain) -> None:
    chain.write()
    code, answer = diagnose("--project", str(PROJECT))
    assert (code, answer["ok"]) == (0, True)
    assert [(row["link"], row["state"]) for row in answer["findings"]] == [(check.link, "ok") for check in CHAIN]


def test_a_warning_is_no_failure(chain: Chain) -> None:
    chain.label_studio.project["model_version"] = "RIS"
    chain.write()
    code, answer = diagnose("--project", str(PROJECT))
    assert (code, answer["findings"][-1]["state"]) == (0, "warning")


def test_a_fault_is_one(chain: Chain) -> None:
    chain.label_studio.webhooks.clear()
    chain.write()
    code, answer = diagnose("--project", str(PROJECT))
    assert (code, answer["ok"]) == (1, False)
    assert [row["link"] for row in answer["findings"] if row["state"] == "broken"] == ["webhook"]


def test_the_table_shows_what_to_do(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.cli.local.out.width", 200)
    chain.label_studio.project["title"] = "[red]Cats[/red]"
    chain.label_studio.registrations.clear()
    chain.write()
    result = CliRunner().invoke(app, ["doctor", "--project", str(PROJECT)])
    assert result.exit_code == 1
    assert "[red]Cats[/red]" in result.stdout
    assert f"ris connect --project {PROJECT}" in result.stdout


def test_no_secret_is_shown(chain: Chain) -> None:
    chain.write()
    shown = CliRunner().invoke(app, ["doctor", "--json", "--project", str(PROJECT)]).stdout
    for name in ("password", "webhook_secret", "label_studio_token", "redis_url"):
        assert chain.knobs[name] not in shown


def test_what_hangs_on_a_broken_link_is_skipped() -> None:
    def fail(_: CheckContext) -> CheckResult:
        raise NotFound("There is no cat. Get one.")

    def hang_up(_: CheckContext) -> CheckResult:
        raise httpx.ReadTimeout("")

    chain = (
        Check("a", lambda _: broken("It is.", "Mend it.")),
        Check("b", lambda _: ok("Never seen."), needs=("a",)),
        Check("c", lambda _: ok("Never seen."), needs=("b", "a")),
        Check("d", fail),
        Check("f", hang_up),
        Check("e", lambda _: ok("Fine.")),
    )
    with CheckContext(None) as context:
        findings = [(row.link, row.state, row.what, row.remedy) for row in examine(chain, context)]
    assert findings == [
        ("a", "broken", "It is.", "Mend it."),
        ("b", "skipped", "Needs a.", ""),
        ("c", "skipped", "Needs b and a.", ""),
        ("d", "broken", "There is no cat.", "Get one."),
        ("f", "broken", "It failed on the way (ReadTimeout: ).", "Try again; else see the logs."),
        ("e", "ok", "Fine.", ""),
    ]


def test_a_need_comes_before_what_needs_it() -> None:
    links = [check.link for check in CHAIN]
    assert all(links.index(need) < links.index(check.link) for check in CHAIN for need in check.needs)
