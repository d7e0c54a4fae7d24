"""The server: an instance a request, made by number and interface; then one call."""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, jsonify, request

from .model import LabelStudioMLBase

EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


def init_app(model_class: type[Any], basic_auth_user: str | None = None, basic_auth_pass: str | None = None) -> Flask:
    if not issubclass(model_class, LabelStudioMLBase):
        raise ValueError("not a model of this package")  # noqa: TRY004 - as published
    app = Flask("label_studio_ml")

    @app.post("/predict")
    def predict() -> Response:
        body = request.get_json()
        parameters = body.get("params", {})
        context = parameters.pop("context", {})
        model = model_class(project_id=str(body["project"]).split(".")[0], label_config=body.get("label_config"))
        return jsonify(results=model.predict(body.get("tasks"), context=context, **parameters))

    @app.post("/setup")
    def setup() -> Response:
        body = request.get_json()
        model = model_class(project_id=body["project"].split(".")[0], label_config=body.get("schema"))
        if body.get("extra_params"):
            model.set_extra_params(body["extra_params"])
        return jsonify(model_version=model.get("model_version"))

    @app.post("/webhook")
    def webhook() -> tuple[Response, int]:
        body = request.get_json()
        event = body.pop("action")
        if event not in EVENTS:
            return jsonify(status="Unknown event"), 200
        model = model_class(str(body["project"]["id"]), label_config=body["project"]["label_config"])
        return jsonify(result=model.fit(event, body), status="ok"), 201

    @app.get("/health")
    def health() -> Response:
        return jsonify(status="UP", model_class=model_class.__name__)

    return app
