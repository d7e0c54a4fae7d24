"""The HTTP door: who may come in, how much they may bring, and what an error looks like. Holds no logic of its own.

Every route is there twice: by itself, and below /projects/<id>, the address of one project; beside them stands the
console (console/routes.py), /metrics and /ready, once. /health is open. /webhook wants the secret header that `connect`
installs, or the password: Label Studio signs only START_TRAINING with the latter. All else wants the password.
"""

import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from backend import logs, metrics
from backend.doctor.aside import Examiner
from backend.errors import BackendError, BadRequest, TooLarge, Unauthorized
from backend.labelstudio.json_values import read_json
from backend.labelstudio.webhooks import SECRET_HEADER
from backend.queue.queue import connect
from backend.settings import Settings
from backend.web import ready
from backend.web.console import routes as console
from backend.web.console.parts import ConsoleParts
from backend.web.ml_backend import MLBackend
from backend.web.scrape import CONTENT_TYPE, Scrape
from ris_core.errors import InputError, RisError

_log = logging.getLogger(__name__)

RETRY_SECONDS = 5

_HEALTH = {"status": "UP", "model_class": "RISModel"}
_ADDRESS_OF_A_PROJECT = "/projects/<int(min=1, max=2147483647):project>"
_LONGEST_REASON = 300
_TRY_AGAIN = (429, 503)
# What a message may quote, and no status line may hold.
_UNPRINTABLE = re.compile(r"[^ -~]")
# The one view that asks for no password.
_OPEN = "health"
_METHODS = ("GET", "HEAD", "OPTIONS", "POST")


class App(Flask):
    """The app, which can also say from a request's head alone whether it would read the body."""

    def wants_body(self, environ: dict[str, Any]) -> bool:
        """Whether the request may come in, and to where a body is of use."""
        with self.request_context(environ):
            try:
                # The app's own: a blueprint's may look into the body.
                for check in self.before_request_funcs[None]:
                    check()
            except (BackendError, HTTPException):
                return False
            return _view() not in (None, _OPEN)


def create_app(settings: Settings, backend: MLBackend) -> App:
    """The app. Raises SettingsError if RIS_PASSWORD or RIS_WEBHOOK_SECRET isn't set: nothing is open by default."""
    app = App("backend", static_folder=None)
    # One more than is allowed: of a body without announced length, Werkzeug cuts off the rest in silence.
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes + 1
    app.before_request(_start)
    app.before_request(_gate(settings))
    app.after_request(_finish)
    app.teardown_request(_forget)
    app.register_error_handler(Exception, _answer_error)
    routes = _routes(backend, settings.max_request_bytes)
    app.register_blueprint(routes, name="all")
    app.register_blueprint(routes, name="project", url_prefix=_ADDRESS_OF_A_PROJECT)
    parts = ConsoleParts(settings, backend.batches, backend.project_models, Examiner(settings.home))
    app.register_blueprint(console.blueprint(parts), url_prefix=console.PREFIX)
    connection = connect(settings.secret("redis_url"))
    scrape = Scrape(settings, parts.registry, backend.queue, connection)
    app.add_url_rule("/ready", "ready", lambda: jsonify(ready.check(parts.registry, connection)))
    app.add_url_rule("/metrics", "metrics", lambda: Response(scrape.text(), content_type=CONTENT_TYPE))
    return app


def _routes(backend: MLBackend, max_bytes: int) -> Blueprint:
    routes = Blueprint("routes", __name__)

    # Not open, unlike /health: its own name.
    @routes.get("/", endpoint="root", strict_slashes=False)
    @routes.get("/health")
    def health(project: int | None = None) -> Response:
        return jsonify(_HEALTH)

    @routes.post("/setup")
    def setup(project: int | None = None) -> Response:
        return jsonify(backend.setup(_body(max_bytes), project))

    @routes.post("/predict")
    def predict(project: int | None = None) -> Response:
        return jsonify(backend.predict(_body(max_bytes), project))

    @routes.post("/webhook")
    def webhook(project: int | None = None) -> Response:
        return jsonify(backend.webhook(_body(max_bytes), project))

    @routes.get("/versions")
    def versions(project: int | None = None) -> Response:
        return jsonify(backend.versions(project))

    @routes.get("/jobs/<job_id>")
    def job(job_id: str, project: int | None = None) -> Response:
        return jsonify(backend.job(job_id))

    return routes


def _gate(settings: Settings) -> Callable[[], None]:
    login = settings.username, settings.secret("password")
    secret = settings.secret("webhook_secret")

    def check() -> None:
        view = _view()
        if view == _OPEN:
            return
        if view == "webhook" and _same(request.headers.get(SECRET_HEADER), secret):
            return
        # Both are compared, whatever the first says, so that time tells nothing about either.
        given = request.authorization
        username, password = (given.username, given.password) if given else (None, None)
        matches = [_same(username, login[0]), _same(password, login[1])]
        if not all(matches):
            raise Unauthorized(
                "The user name or password is missing or wrong. In Label Studio, give the ML backend those in ris.env."
            )

    return check


def _view() -> str | None:
    """The name of what answers; None where there is no such address, which nobody learns without the password."""
    # <blueprint>.<function>
    return request.endpoint.rpartition(".")[2] if request.endpoint else None


def _same(given: str | None, expected: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), expected.encode())


def _body(max_bytes: int) -> object:
    # What announces more comes without its body, see buffering_worker.py.
    if (request.content_length or 0) > max_bytes or len(content := request.get_data(cache=False)) > max_bytes:
        raise RequestEntityTooLarge
    try:
        return read_json(content)
    except (ValueError, RecursionError):
        raise BadRequest("The request's body isn't JSON.") from None


def _start() -> None:
    g.request_id = secrets.token_hex(8)
    logs.request_id.set(g.request_id)
    g.started = time.perf_counter()


def _forget(_: BaseException | None) -> None:
    # The thread goes on with other things.
    logs.request_id.set("")


def _finish(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    seconds = time.perf_counter() - g.started
    _count(response.status_code, seconds)
    # The path is quoted, for it may hold line breaks.
    what = request.method, repr(request.path[:200]), response.status_code, 1000 * seconds, g.request_id
    _log.info("%s %s %s in %.0f ms (%s)", *what)
    return response


def _count(status: int, seconds: float) -> None:
    # Of what the caller chooses freely nothing becomes a label: each would be kept for ever.
    route = request.url_rule.rule if request.url_rule else "none"
    method = request.method if request.method in _METHODS else "other"
    metrics.HTTP_REQUESTS.labels(route, method, str(status)).inc()
    metrics.HTTP_SECONDS.labels(route, method).observe(seconds)


def _answer_error(error: Exception) -> Response:
    status, code, message = _explain(error)
    if request.blueprint == console.NAME:
        response = console.error_page(status, code, message, g.request_id)
    else:
        response = jsonify(code=code, message=message, request_id=g.request_id)
    # Label Studio shows people the HTTP reason, never the body.
    reason = _UNPRINTABLE.sub(" ", message.encode("ascii", "replace").decode())
    response.status = f"{status} {reason[:_LONGEST_REASON]}"
    if status in _TRY_AGAIN:
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
    if status == Unauthorized.status:
        response.headers["WWW-Authenticate"] = 'Basic realm="ris"'
    return response


def _explain(error: Exception) -> tuple[int, str, str]:
    """HTTP status, stable code and sentence. What isn't meant for a caller is logged, and only named by its id."""
    if isinstance(error, RequestEntityTooLarge):
        error = TooLarge("The request is larger than RIS_MAX_REQUEST_BYTES allows. Send fewer tasks, or raise it.")
    if isinstance(error, BackendError):
        _log.warning("%s (%s): %s", error.code, g.request_id, error)
        return error.status, error.code, str(error)
    if isinstance(error, InputError):
        return BadRequest.status, error.code, str(error)
    if isinstance(error, HTTPException):
        return error.code or 500, "http_error", f"{error.name}: there is no {request.method} {request.path[:200]} here."
    _log.error("Request %s failed.", g.request_id, exc_info=error)
    code = error.code if isinstance(error, RisError) else "internal_error"
    return 500, code, f"Something went wrong in the backend. Its log says what, under {g.request_id}."
