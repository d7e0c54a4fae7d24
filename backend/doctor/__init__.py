"""`ris doctor`: try each link from the settings to the masks in Label Studio, and say what to do where one is broken.

Every check is a real round trip: something is written to Valkey, a prompt goes through the model, the webhook is
called as Label Studio calls it. Nothing is changed on the way. Knows the order of the links and how they are shown;
the checks are in machine.py and studio.py.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from backend.doctor import machine, studio
from backend.doctor.checks import Check, CheckContext, Finding, examine
from backend.terminal import err, out

CHAIN = (
    Check("settings", machine.settings),
    Check("disk", machine.disk, needs=("settings",)),
    Check("weights", machine.weights, needs=("settings",)),
    Check("redis", machine.redis, needs=("settings",)),
    Check("worker", machine.worker, needs=("redis",)),
    Check("label-studio", studio.label_studio, needs=("settings",)),
    Check("clock", studio.clock, needs=("label-studio",)),
    Check("token", studio.token, needs=("label-studio",)),
    Check("project", studio.project, needs=("token",)),
    Check("clicks", studio.clicks, needs=("project", "weights")),
    Check("backend", studio.backend, needs=("settings",)),
    Check("setup", studio.setup, needs=("project", "backend")),
    Check("registration", studio.registration, needs=("project", "backend")),
    Check("webhook", studio.webhook, needs=("project", "backend")),
    Check("image", studio.image, needs=("project",)),
    Check("predictions", studio.predictions, needs=("registration",)),
)
"""The links, each after those that it hangs on. A check whose need is broken or skipped is skipped."""

_COLOURS = {"ok": "green", "warning": "yellow", "broken": "red", "skipped": "dim"}


def diagnose(project: int | None) -> Iterator[Finding]:
    """One finding a link, in the order of the chain; without a project, those that need one are skipped."""
    with CheckContext(project) as context:
        yield from examine(CHAIN, context)


def run(project: int | None, as_json: bool) -> bool:
    """Print all findings, as a table or as one JSON object. Returns whether nothing is broken."""
    findings = []
    with err.status("settings") as status:
        for finding, following in zip(diagnose(project), [*CHAIN[1:], None], strict=True):
            findings.append(finding)
            status.update(following.link if following else "")
    whole = all(finding.state != "broken" for finding in findings)
    if as_json:
        print(json.dumps({"ok": whole, "findings": [asdict(finding) for finding in findings]}))
    else:
        out.print(_table(findings))
    return whole


def _table(findings: list[Finding]) -> Table:
    table = Table("link", "state", "what", "what to do", show_lines=True)
    for finding in findings:
        colour = _COLOURS[finding.state]
        # Sentences may hold brackets, which rich would read as markup.
        table.add_row(finding.link, f"[{colour}]{finding.state}[/]", escape(finding.what), escape(finding.remedy))
    return table
