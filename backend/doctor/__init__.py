"""Each link from the settings to the masks in Label Studio is tried, with what to do where one is broken.

Every check is a real round trip: something is written to Valkey, a prompt goes through the model, the webhook is
called as Label Studio calls it. Nothing is changed on the way. Knows the order of the links; the checks
are in machine.py and studio.py.
"""

from collections.abc import Iterator

from backend.doctor import machine, studio
from backend.doctor.checks import Check, CheckContext, Finding, examine

CHAIN = (
    Check("settings", machine.settings),
    Check("disk", machine.disk, needs=("settings",)),
    Check("store", machine.store, needs=("settings",)),
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


def diagnose(project: int | None) -> Iterator[Finding]:
    """One finding a link, in the order of the chain; without a project, those that need one are skipped."""
    with CheckContext(project) as context:
        yield from examine(CHAIN, context)
