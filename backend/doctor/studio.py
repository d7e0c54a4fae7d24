"""The links to Label Studio and back: its address, the token, the project, the backend, the webhook, an image.

Each is tried as it is used: the backend is asked as Label Studio asks it, with the password or the header that
Label Studio holds for it. Knows nothing of Valkey and the model.
"""

import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from backend import services
from backend.doctor.checks import CheckContext, CheckResult, broken, explained, ok, skipped, warning
from backend.errors import LabelStudioError, LabelStudioNotFound, LabelStudioUnauthorized
from backend.labelstudio.auth import MAKE_ONE, is_legacy
from backend.labelstudio.images import project_credentials
from backend.labelstudio.label_config import Defaults, LabelConfig, parse
from backend.labelstudio.outbound import DIRECT, Outbound
from backend.labelstudio.responses import unreachable
from backend.labelstudio.task_data import image_address
from backend.labelstudio.webhooks import ACTIONS, SECRET_HEADER, START_TRAINING
from backend.projects.connect import BACKEND, backend_url, project_url
from backend.settings import SettingsError
from ris_core.checkpoint_files import answers_clicks, is_zero_shot
from ris_core.images import read_image

# What Label Studio gives /health and webhooks, and /setup (ML_TIMEOUT_HEALTH, WEBHOOK_TIMEOUT, ML_TIMEOUT_SETUP).
HEALTH_SECONDS, SETUP_SECONDS = 1.0, 3.0
TIMEOUT = httpx.Timeout(5.0)
# Signed addresses of buckets begin to fail at some minutes; a log is confusing before that.
CLOCK_SECONDS = 60.0
_KEY_POINT = '<KeyPoint name="point" toName="{0}" smart="true" smartOnly="true"/>'
_RECTANGLE = '<Rectangle name="box" toName="{0}" smart="true" smartOnly="true"/>'
# How Label Studio 1.23.2 says that it doesn't call private addresses.
_BLOCKED = ("reserved network address", "URL was not allowed")
_UNBLOCK = (
    "Set LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false for Label Studio, and name what it must not call in "
    "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS (docker-compose.yml has a list). "
    "LABEL_STUDIO_ML_BLOCK_LOCAL_IP=false alone isn't enough: its webhooks stay blocked."
)


def label_studio(context: CheckContext) -> CheckResult:
    """Label Studio answers at RIS_LABEL_STUDIO_URL, and is Label Studio."""
    url = context.settings.label_studio_url
    try:
        answer = _http("GET", f"{url}/api/version/", Outbound.from_settings(context.settings))
    except httpx.RequestError as error:
        result = explained(unreachable(url, error))
        if httpx.URL(url).host in ("localhost", "127.0.0.1") and Path("/.dockerenv").exists():
            return broken(result.what, f"{result.remedy} In a container, {url} is the container itself.")
        return result
    if answer.is_redirect:
        return broken(
            f"{url} redirects to {answer.headers.get('Location')}.",
            "Set RIS_LABEL_STUDIO_URL to where it leads, https and path included.",
        )
    versions = _json(answer)
    if not any(key.startswith("label-studio") for key in versions):
        return broken(
            f"What answers at {url} isn't Label Studio ({answer.status_code}).",
            "Set RIS_LABEL_STUDIO_URL to Label Studio's address, as this machine reaches it.",
        )
    return ok(f"Label Studio {versions.get('release', 'of unknown version')} at {url}.")


def clock(context: CheckContext) -> CheckResult:
    """Label Studio's clock and ours agree."""
    before = time.time()
    answer = _http("GET", f"{context.settings.label_studio_url}/health/", Outbound.from_settings(context.settings))
    try:
        there = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return skipped("Label Studio's answers carry no date.")
    # Its date has whole seconds, and was set some time between question and answer.
    off = there + 0.5 - (before + time.time()) / 2
    if abs(off) > CLOCK_SECONDS:
        return warning(
            f"Label Studio's clock is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} this machine's.",
            "Set both by NTP (timedatectl set-ntp true): signed addresses of images expire by the clock.",
        )
    return ok(f"Within {max(1.0, abs(off)):.0f} s of Label Studio's.")


def token(context: CheckContext) -> CheckResult:
    """Label Studio accepts the token."""
    legacy = is_legacy(context.settings.secret("label_studio_token"))
    try:
        owner = context.client.whoami()
    except LabelStudioUnauthorized as error:
        if legacy:
            return broken(f"RIS_LABEL_STUDIO_TOKEN is a legacy token. {explained(error).what}", MAKE_ONE)
        return explained(error)
    if legacy:
        return warning("A legacy token: newer versions of Label Studio refuse those.", MAKE_ONE)
    return ok(f"Accepted, as {owner.get('email')}.")


def project(context: CheckContext) -> CheckResult:
    """The project is there, and its labelling interface can carry masks."""
    if context.number is None:
        return skipped("No project was named.", "ris doctor --project N, with the number in its address.")
    try:
        title = context.project.get("title")
    except LabelStudioNotFound:
        return broken(
            f"The owner of the token sees no project {context.number}.",
            "Its number is in its address, /projects/N; RIS_LABEL_STUDIO_TOKEN must belong to someone who sees it.",
        )
    return ok(f"{title!r}; its labelling interface can carry masks. {_config(context).prompt_place}")


def clicks(context: CheckContext) -> CheckResult:
    """People can point at things, and the version in production answers that."""
    tools = _config(context).pointing
    version = services.registry(context.settings).current(int(context.project["id"]))
    if not answers_clicks(version.folder):
        if is_zero_shot(version.folder):
            return warning(
                f"Clicks and boxes aren't answered: {version.name} knows words alone.",
                "Promote another version, or a zero-shot segmenter that `ris models` says clicks of.",
            )
        return warning(
            f"Clicks and boxes aren't answered: {version.name} was never trained with them.",
            "Train its decoder (ris train-clicks), or promote a version over the shipped model's image encoder.",
        )
    if missing := {"click": _KEY_POINT, "box": _RECTANGLE}.keys() - {tool.kind for tool in tools}:
        tags = " and ".join(tag for kind, tag in (("click", _KEY_POINT), ("box", _RECTANGLE)) if kind in missing)
        return warning(
            f"The labelling interface has no smart tag for a {' or a '.join(sorted(missing, reverse=True))}.",
            f"Add {tags.format(_config(context).image.name)} to it.",
        )
    if labelled := [tool.name for tool in tools if tool.labelled]:
        return warning(
            f"In {', '.join(labelled)} a label has to be chosen anew for each click: without one Label Studio draws "
            "nothing.",
            'Switch on "Keep label selected after creating a region" in the editor\'s settings, or use KeyPoint and '
            "Rectangle, which need no labels.",
        )
    return ok("Clicks and boxes are answered, behind Auto-Detect (M) where Auto-Annotation is on.")


def backend(context: CheckContext) -> CheckResult:
    """The backend is up at its address, in time, and knows the password."""
    url = backend_url(context.settings)
    try:
        health = _http("GET", f"{url}/health")
        versions = _http("GET", f"{url}/versions", auth=_login(context))
    except httpx.RequestError as error:
        return broken(
            f"The backend doesn't answer at {url} ({type(error).__name__}).",
            "Start it (`ris up` does), or set RIS_BACKEND_URL to where Label Studio reaches it.",
        )
    if _json(health).get("status") != "UP":
        return broken(
            f"What answers at {url} isn't the backend ({health.status_code}).",
            "Set RIS_BACKEND_URL, or RIS_HOST and RIS_PORT, to where the backend is.",
        )
    return _refusal(versions, url) or _in_time(health, HEALTH_SECONDS, f"Up at {url}, and open to its password.")


def setup(context: CheckContext) -> CheckResult:
    """The backend answers for the project as Label Studio asks it."""
    url = _address(context)
    body = {
        "project": f"{context.number}.0",
        "schema": context.project["label_config"],
        "hostname": context.settings.label_studio_url,
        "access_token": "",
        "extra_params": None,
    }
    answer = _http("POST", f"{url}/setup", json=body, auth=_login(context))
    version = _json(answer).get("model_version")
    return _refusal(answer, url) or _in_time(answer, SETUP_SECONDS, f"Predictions are to be called {version}.")


def registration(context: CheckContext) -> CheckResult:
    """Label Studio has the backend at this address, reaches it, and sends it what people type."""
    url, connect = _address(context), f"`ris connect --project {context.number}`"
    row = _row(context)
    if row is None:
        elsewhere = [other["url"] for other in context.registrations if other["title"] == BACKEND]
        if elsewhere:
            return broken(
                f"Label Studio calls the backend at {elsewhere[0]}, but it is to be at {url}.",
                f"{connect} corrects that; if the other address is right, set RIS_BACKEND_URL to it.",
            )
        return broken(f"The project has no ML backend at {url}.", f"{connect} adds it.")
    if row["state"] in ("DI", "ER"):
        return _disconnected(_reason(context, row), row["url"], connect)
    if url == backend_url(context.settings):
        return warning(f"Connected at {url}, which every project shares.", f"{connect} gives it an address of its own.")
    return _not_asked(context, row, connect) or ok(
        f"Connected, as {row['title']!r}, with version {row['model_version']}."
    )


def webhook(context: CheckContext) -> CheckResult:
    """Label Studio's events reach the backend, and are let in."""
    url, connect = f"{_address(context)}/webhook", f"`ris connect --project {context.number}`"
    rows = context.client.webhooks(context.project["id"])
    row = next((row for row in rows if row["url"] == url), None)
    if row is None:
        others = ", ".join(row["url"] for row in rows)
        return broken(
            f"No webhook goes to {url}{f', but to {others}' if others else ''}: corrections don't arrive.",
            f"{connect} adds it. If Label Studio refuses the address: {_UNBLOCK}",
        )
    missing = ACTIONS - {START_TRAINING} - set(row.get("actions") or ())
    if not row["is_active"] or not row["send_payload"] or (missing and not row["send_for_all_actions"]):
        return broken(
            f"The webhook to {url} is switched off, or sends too little.",
            "Switch it on under the project's Settings, Webhooks, with payload and all events; "
            f"or delete it there, and {connect} makes it anew.",
        )
    event = {"action": "PROJECT_UPDATED", "project": {"id": context.number}}
    answer = _http("POST", url, json=event, headers=row["headers"] or {})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return _unsigned(context, row["headers"] or {}, connect)
    return _refusal(answer, url) or _in_time(answer, HEALTH_SECONDS, "Events arrive, and are let in by their secret.")


def image(context: CheckContext) -> CheckResult:
    """The image of the project's first task can be fetched and read, past every cache."""
    task = next(context.client.tasks(context.project["id"]), None)
    if task is None:
        return skipped("The project has no task yet.", "Import an image.")
    address = image_address(task, _config(context))
    credentials = project_credentials(context.project)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        resolver = services.image_resolver(context.settings.model_copy(update={"home": Path(folder)}))
        content = resolver.fetch(address, task["id"], credentials)
    seconds = time.perf_counter() - start
    height, width, _ = read_image(content, context.settings.max_image_pixels).shape
    return ok(f"Task {task['id']}: {width} x {height} pixels, {len(content) / 1e6:.1f} MB in {seconds:.1f} s.")


def predictions(context: CheckContext) -> CheckResult:
    """The project shows the predictions of the version in production, in the order of their scores."""
    row = _row(context)
    assert row is not None
    shown, version = context.project.get("model_version"), row["model_version"]
    where = "in the project's Settings, Annotation, Use predictions to prelabel tasks"
    refresh = f"ris refresh --project {context.number} predicts what isn't annotated, then has {version} shown."
    if not shown or context.project.get("show_collab_predictions") is False:
        return warning("The project shows no predictions.", f"Choose {row['title']} {where}.")
    if shown == row["title"]:
        return warning(
            f"The project shows {shown!r}, whatever its version: Label Studio can't order tasks by score then.",
            f"To have them ordered: {refresh}",
        )
    if shown != version:
        return warning(f"The project shows {shown}, but {version} is in production.", f"If that lasts: {refresh}")
    return ok(f"{shown} is shown, and tasks can be ordered by its scores.")


def _row(context: CheckContext) -> dict[str, Any] | None:
    """The backend among the project's, at the project's own address or the one that all share; None if it isn't."""
    urls = (project_url(context.settings, context.project["id"]), backend_url(context.settings))
    rows = (row for url in urls for row in context.registrations if row["url"].rstrip("/") == url)
    return next(rows, None)


def _address(context: CheckContext) -> str:
    """Where Label Studio calls the backend for this project, or should."""
    row = _row(context)
    return row["url"].rstrip("/") if row else project_url(context.settings, context.project["id"])


def _not_asked(context: CheckContext, row: dict[str, Any], connect: str) -> CheckResult | None:
    """What keeps typed prompts from the backend, if anything: Label Studio asks the first interactive one alone."""
    first = next((row for row in context.registrations if row["is_interactive"]), None)
    if first is None:
        return broken("Label Studio doesn't send the backend what people type.", f"{connect} switches that on.")
    if first is not row:
        return warning(
            f"What people type goes to {first['title']!r} at {first['url']}, the first interactive backend.",
            "Switch off interactive preannotations there, or remove it, under the project's Settings, Model.",
        )
    return None


def _reason(context: CheckContext, row: dict[str, Any]) -> str:
    """Why Label Studio can't talk to the backend, in its words."""
    if row["state"] == "ER" and row["error_message"]:
        return str(row["error_message"])
    # Of a failed health check it keeps no word. Asked to save what it has already, it says what is the matter; an
    # empty password stands for the one that it knows.
    try:
        context.client.update_ml_backend(row["id"], row["url"], row["title"], row["basic_auth_user"], "")
    except LabelStudioError as error:
        return str(error)
    return "it failed a moment ago, but not now"


def _disconnected(reason: str, url: str, connect: str) -> CheckResult:
    if any(text in reason for text in _BLOCKED):
        return broken(f"Label Studio doesn't call {url}, since that is a private address.", _UNBLOCK)
    if "401" in reason or "uthenticat" in reason:
        return broken("Label Studio has another password for the backend.", f"{connect} writes the right one.")
    return broken(
        f"Label Studio can't talk to the backend at {url}: {reason}",
        "Set RIS_BACKEND_URL to an address that is right from where Label Studio runs (in a container, localhost is "
        f"the container itself), then {connect}.",
    )


def _unsigned(context: CheckContext, headers: dict[str, str], connect: str) -> CheckResult:
    if headers.get(SECRET_HEADER) == context.settings.secret("webhook_secret"):
        return broken("The backend runs with another RIS_WEBHOOK_SECRET than the settings here.", "Start it again.")
    return broken(
        "The backend turns Label Studio's events away: the webhook carries "
        f"{'a wrong secret' if SECRET_HEADER in headers else 'no secret'} ({SECRET_HEADER}).",
        f"{connect} writes the right one.",
    )


def _refusal(answer: httpx.Response, url: str) -> CheckResult | None:
    """What the backend says against a request, if anything."""
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return broken(
            f"The backend at {url} has another user name or password than the settings here.",
            "Start it again, so that it reads them anew; or run this with its RIS_HOME.",
        )
    if answer.is_success:
        return None
    message = _json(answer).get("message") or answer.reason_phrase
    return broken(f"The backend refuses {answer.request.url.path} ({answer.status_code}): {message}", "See its log.")


def _in_time(answer: httpx.Response, most: float, what: str) -> CheckResult:
    seconds = answer.elapsed.total_seconds()
    if seconds > most:
        return warning(
            f"{what} But it took {seconds:.1f} s, and Label Studio waits {most:g} s.",
            "Give the backend's machine less other work, or raise RIS_THREADS.",
        )
    return ok(what)


def _config(context: CheckContext) -> LabelConfig:
    settings = context.settings.of_project(int(context.project["id"]))
    return parse(str(context.project.get("label_config", "")), Defaults.of(settings))


def _login(context: CheckContext) -> tuple[str, str]:
    return context.settings.username, context.settings.secret("password")


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _http(method: str, url: str, outbound: Outbound = DIRECT, **request: Any) -> httpx.Response:
    try:
        with outbound.client(url, timeout=TIMEOUT) as http:
            return http.request(method, url, **request)
    except httpx.InvalidURL as error:
        raise SettingsError(f"{url} isn't an address ({error}). Correct the setting that it comes from.") from None
