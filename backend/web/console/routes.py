"""The console's addresses. Behind the same password as all else; what changes anything is behind `Guard` too.

Each action has a page that says what it will do (GET), whose button does it (POST) and leads on to what comes of it.
Without JavaScript all of it works; with it, what is under way is shown without loading the page anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, get_args

from flask import Blueprint, Response, make_response, redirect, render_template, request
from markupsafe import Markup, escape

from backend.batches.wording import outcome as batch_outcome
from backend.datasets.export import STAGES
from backend.datasets.formats import EXPORT_FORMATS
from backend.datasets.formats.options import ImageFiles
from backend.datasets.selection import Policy
from backend.errors import BadRequest, NotFound
from backend.queue import wording
from backend.web.console import actions, pages
from backend.web.console.guard import FIELD, Guard
from backend.web.console.links import link
from backend.web.console.parts import ConsoleParts
from ris_core.errors import InputError

NAME = "console"
PREFIX = "/console"
_PROJECT = "/projects/<int:number>"
_COMMAND = re.compile(r"`([^`]+)`")
_A_DAY = "private, max-age=86400, immutable"
_DONE = {
    "promoted": "It is in production now. What isn't annotated is predicted anew in the background.",
    "rolled-back": "The version before serves again. What isn't annotated is predicted anew in the background.",
}


def blueprint(parts: ConsoleParts) -> Blueprint:
    """All of it, to be registered at PREFIX. Raises SettingsError if RIS_PASSWORD isn't set."""
    guard = Guard(parts.settings.secret("password"))
    routes = Blueprint(NAME, __name__, template_folder="templates", static_folder="static")
    routes.before_request(guard.check)
    routes.after_request(guard.finish)
    routes.context_processor(lambda: _for_templates(guard))
    _add_pages(routes, parts)
    _add_versions(routes, parts)
    _add_work(routes, parts)
    _add_doctor(routes, parts)
    return routes


def error_page(status: int, code: str, message: str, request_id: str) -> Response:
    """What went wrong, as a page."""
    said = HTTPStatus(status).phrase
    page = render_template("console/error.html", said=said, code=code, message=message, request_id=request_id)
    return make_response(page, status)


def _add_pages(routes: Blueprint, parts: ConsoleParts) -> None:
    @routes.get("/")
    def projects() -> str:
        return _page("projects", pages.projects(parts))

    @routes.get(_PROJECT)
    def project(number: int) -> str:
        shown = pages.project(parts, number)
        return _page("project", shown | {"done": _DONE.get(request.args.get("done", ""))})

    @routes.get(f"{_PROJECT}/acceptance")
    def acceptance(number: int) -> str:
        return _page("acceptance", pages.acceptance(parts, number))

    @routes.get(f"{_PROJECT}/corrections")
    def corrections(number: int) -> str:
        origin, page = request.args.get("origin", ""), request.args.get("page", 1, int)
        return _page("corrections", pages.corrections(parts, number, origin, page))

    @routes.get(f"{_PROJECT}/corrections/<snapshot>/<int:expression>.jpg")
    def picture(number: int, snapshot: str, expression: int) -> Response:
        folder = pages.newest(parts, number)
        if folder is None or folder.name != snapshot:
            raise NotFound("That snapshot isn't the newest of its project any more. Reload the page.")
        drawn = parts.pictures.get(folder, expression, parts.client, number, parts.settings)
        response = Response(drawn.data, mimetype="image/jpeg")
        response.headers["Cache-Control"] = _A_DAY if drawn.is_final else "no-store"
        return response

    @routes.get("/jobs")
    def jobs() -> str:
        return _page("jobs", pages.jobs(parts))

    @routes.get("/jobs/<identity>")
    def job(identity: str) -> str:
        return _page("job", pages.job(parts, identity) | {"stages": STAGES})

    @routes.get("/batches/<identity>")
    def batch(identity: str) -> str:
        return _page("batch", pages.batch(parts, identity))

    @routes.get("/<path:rest>")
    def nowhere(rest: str) -> str:
        raise NotFound(f"The console has no page {rest[:100]!r}.")


def _add_versions(routes: Blueprint, parts: ConsoleParts) -> None:
    @routes.get(f"{_PROJECT}/versions/<name>")
    def version(number: int, name: str) -> str:
        return _page("version", pages.version(parts, number, name))

    @routes.get(f"{_PROJECT}/versions/<name>/promote")
    def promote(number: int, name: str) -> str:
        return _page("promote", pages.version(parts, number, name))

    @routes.post(f"{_PROJECT}/versions/<name>/promote")
    def do_promote(number: int, name: str) -> Response:
        actions.promote(parts, number, name, request.form)
        return _see("project", number=number, done="promoted")

    @routes.get(f"{_PROJECT}/roll-back")
    def roll_back(number: int) -> str:
        return _page("roll_back", pages.head(parts, number) | {"previous": parts.registry.previous(number)})

    @routes.post(f"{_PROJECT}/roll-back")
    def do_roll_back(number: int) -> Response:
        actions.roll_back(parts, number, request.form)
        return _see("project", number=number, done="rolled-back")


def _add_work(routes: Blueprint, parts: ConsoleParts) -> None:
    @routes.get(f"{_PROJECT}/fine-tune")
    def fine_tune(number: int) -> str:
        settings = parts.settings.of_project(number)
        return _page("fine_tune", pages.head(parts, number) | {"seconds": settings.finetune_seconds})

    @routes.post(f"{_PROJECT}/fine-tune")
    def do_fine_tune(number: int) -> Response:
        pages.head(parts, number)
        return _see("job", identity=actions.fine_tune(parts, number))

    @routes.route(f"{_PROJECT}/pre-label", methods=["GET", "POST"])
    def prelabel(number: int) -> str | tuple[str, int] | Response:
        def do() -> Response:
            return _see("batch", identity=actions.prelabel(parts, number, request.form))

        return _form("prelabel", pages.head(parts, number), do)

    @routes.route(f"{_PROJECT}/export", methods=["GET", "POST"])
    def export(number: int) -> str | tuple[str, int] | Response:
        def do() -> Response:
            return _see("job", identity=actions.export(parts, number, request.form))

        choices = {"formats": EXPORT_FORMATS, "policies": get_args(Policy), "image_files": get_args(ImageFiles)}
        return _form("export", pages.head(parts, number) | choices, do)

    @routes.get("/batches/<identity>/cancel")
    def cancel(identity: str) -> str:
        return _page("cancel", pages.batch(parts, identity))

    @routes.post("/batches/<identity>/cancel")
    def do_cancel(identity: str) -> Response:
        parts.batches.cancel(identity)
        return _see("batch", identity=identity)

    @routes.post("/batches/<identity>/resume")
    def do_resume(identity: str) -> Response:
        parts.batches.resume(identity)
        return _see("batch", identity=identity)


def _add_doctor(routes: Blueprint, parts: ConsoleParts) -> None:
    @routes.get("/doctor")
    def doctor() -> str:
        return _page("doctor", pages.doctor(parts))

    @routes.post("/doctor")
    def do_examine() -> Response:
        parts.examiner.start(request.form.get("project", None, int))
        return _see("doctor")


def _form(name: str, shown: dict[str, Any], do: Callable[[], Response]) -> str | tuple[str, int] | Response:
    """A page with a form; what can't be done as it is filled in is said above it, and it stays filled in."""
    if request.method != "POST":
        return _page(name, shown | {"form": {}, "mistake": ""})
    try:
        return do()
    except (BadRequest, InputError) as mistake:
        page = _page(name, shown | {"form": request.form, "mistake": str(mistake)})
        return page, BadRequest.status


def _page(name: str, shown: dict[str, Any]) -> str:
    return render_template(f"console/{name}.html", **shown)


def _see(endpoint: str, **values: Any) -> Response:
    return make_response(redirect(link(endpoint, **values), HTTPStatus.SEE_OTHER))


def _for_templates(guard: Guard) -> dict[str, Any]:
    return {
        "link": link,
        "token": guard.token,
        "token_field": FIELD,
        "wording": wording,
        "batch_outcome": batch_outcome,
        "coded": _coded,
        "percent": _percent,
        "score": _score,
        "when": _when,
        "ago": wording.ago,
        "here": (request.endpoint or "").rpartition(".")[2],
    }


def _coded(text: str) -> Markup:
    """Text whose commands, `between backticks`, are shown as such."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - what it holds is escaped


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _score(value: object) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _when(time: object) -> str:
    """A time, in seconds of the epoch or as a record has it, to the minute."""
    if time in (None, ""):
        return ""
    moment = datetime.fromtimestamp(time, UTC) if isinstance(time, float | int) else datetime.fromisoformat(str(time))
    return f"{moment:%Y-%m-%d %H:%M} UTC"
