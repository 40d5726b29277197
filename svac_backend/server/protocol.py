"""Label Studio's routes, and what a submitted annotation starts. Payloads are those of Label Studio 1.23.2."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Blueprint, Response, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from svac_backend.errors import StoreError, SvacError
from svac_backend.jobs.engine import BATCH, LEASE_S, REJECTED
from svac_backend.jobs.payloads import PROPAGATE, PropagatePayload
from svac_backend.jobs.services import Metrics, Services, reasons_not_ready
from svac_backend.labelstudio.api.access import LabelStudioAccess, label_studio_name
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.tasks import video_url
from svac_backend.server.bodies import MAX_CONFIG_CHARS, BadRequest, project_id, read_json, text
from svac_backend.server.predicting import Predictor
from svac_backend.server.security import Gate, Unauthorized
from svac_backend.server.webhooks import PROOF_TIMEOUT_S, WebhookRegistrar, bind
from svac_backend.settings import names_project
from svac_backend.store.events import ProjectConnection

SUBMITTED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED"})

log = logging.getLogger(__name__)


def on_webhook(backend: Services, action: str, project_id: str, body: Mapping[str, Any], event: int) -> None:
    """Queue the propagation of a submitted annotation's corrections, if its project asks for it.

    The job reads the annotation from the stored event and pushes a prediction; it never changes the annotation. A
    webhook that cannot be used is recorded, too, as a failed job.

    Args:
        backend: state and engine.
        action: of the webhook.
        project_id: of the webhook.
        body: of the webhook.
        event: the number that the webhook is stored under.
    """
    if action not in SUBMITTED or not names_project(backend.settings.propagate_on_submit, project_id):
        return
    task = body.get("task")
    number = str(task.get("id") or "") if isinstance(task, Mapping) else ""
    try:
        payload = _payload(backend, project_id, body, event)
        work = (PROPAGATE, payload.to_json(), payload.job_key(""))
        job = backend.engine.submit(*work, priority=BATCH)
        log.info("task %s: job %s looks for corrections to propagate", payload.task_id, job.id)
    except StoreError:
        raise
    except SvacError as error:
        log.warning("webhook %d is not propagated: %s", event, error)
        named = {"project_id": project_id, "task_id": number[:32]}
        key = f"{PROPAGATE}:{project_id}:{number[:32]}{REJECTED}"
        backend.engine.reject(PROPAGATE, named, key, error.message, error.hint)


def _payload(backend: Services, project_id: str, body: Mapping[str, Any], event: int) -> PropagatePayload:
    task = body.get("task")
    data = task.get("data") if isinstance(task, Mapping) else None
    if not isinstance(task, Mapping) or not isinstance(data, dict) or task.get("id") is None:
        raise SvacError("The webhook does not say which task was annotated.", "Have its payload sent along.")
    connection = backend.connections.get(project_id)
    project = body.get("project")
    config = project.get("label_config") if isinstance(project, Mapping) else None
    if not isinstance(config, str) or not config:
        config = connection.label_config if connection else ""
    return PropagatePayload(
        project_id=project_id,
        task_id=str(task["id"])[:32],
        task_data=data,
        label_config=config,
        hostname=label_studio_name(backend.settings, connection),
        video_url=video_url(data, cached_config(config)),
        event=event,
    )


MAX_TASKS = 10_000
START_TRAINING = "START_TRAINING"


def create_blueprint(backend: Services, gate: Gate, predictor: Predictor, metrics: Metrics) -> Blueprint:
    """Return the routes / /health /ready /setup /predict /webhook /versions /metrics."""
    routes = Blueprint("protocol", __name__)
    access = LabelStudioAccess(backend.settings, backend.connections)
    registrar = WebhookRegistrar(access, gate.webhook_secret)

    @routes.before_request
    def check_caller() -> None:
        # /webhook needs the body's action first; /ready answers everybody, but tells only authorized callers why not.
        if request.endpoint not in ("protocol.webhook", "protocol.ready"):
            gate.check(request)

    @routes.get("/")
    def root() -> Response | AnyResponse:
        # A person who follows the address on Label Studio's model card, not Label Studio itself.
        best = request.accept_mimetypes.best_match(("application/json", "text/html"), "application/json")
        return redirect(url_for("ui.projects")) if best == "text/html" else health()

    @routes.get("/health")
    def health() -> Response:
        return jsonify(_health(backend))

    @routes.get("/ready")
    def ready() -> tuple[Response, int]:
        reasons = reasons_not_ready(backend)
        answer: dict[str, Any] = {"ready": not reasons}
        if gate.knows(request):
            answer["reasons"] = reasons
        return jsonify(answer), 503 if reasons else 200

    @routes.post("/setup")
    def setup() -> Response:
        body = read_json()
        project = project_id(body)
        if not project:
            raise BadRequest("The body's 'project' is missing.", "Send the project as Label Studio does.")
        told = ProjectConnection(
            project,
            text(body, "hostname", default=""),
            text(body, "access_token", default=""),
            text(body, "schema", default="", most=MAX_CONFIG_CHARS),
        )
        is_new = backend.connections.get(project) is None
        bind(backend.settings, backend.connections, told, partial(access.accepts, timeout=PROOF_TIMEOUT_S))
        if is_new:
            registrar.adopt(project, backend.registry.names())
        registrar.begin(project, request.host)
        return jsonify({"model_version": backend.model_version})

    @routes.post("/predict")
    def predict() -> Response:
        body = read_json()
        project = project_id(body)
        params = body.get("params") or {}
        if not isinstance(params, dict):
            raise BadRequest("The body's 'params' is not an object.", "Send an object, or leave it out.")
        context = params.get("context")
        if context is not None and not isinstance(context, dict):
            raise BadRequest("The body's 'params.context' is not an object.", "Send an object, or null.")
        answers = predictor.predict(_tasks(body), _label_config(body, project, backend), project, context)
        items = b",".join(b"[]" if answer is None else answer.to_json_text() for answer in answers)
        return Response(b'{"results":[' + items + b"]}", mimetype="application/json")

    @routes.post("/webhook")
    def webhook() -> tuple[Response, int]:
        body = read_json()
        action = text(body, "action")
        project = project_id(body)
        try:
            gate.check_webhook(request, action, project)
        except Unauthorized:
            if backend.connections.get(project) is not None:
                registrar.begin(project, request.host)
            raise
        event = backend.events.add(action[:100], project, request.get_data())
        log.info("webhook %.100r recorded as event %d", action, event)
        on_webhook(backend, action, project, body, event)
        if action == START_TRAINING:
            asked = backend.trigger.request("Start Training was pressed in Label Studio", project)
            log.info("%s job %s", asked.message, asked.job.id)
            # Not under the key `job`: Label Studio would then ask for that job on a route of its own.
            return jsonify(
                {"status": "recorded", "event": event, "message": asked.message, "job_id": asked.job.id}
            ), 201
        return jsonify({"status": "recorded", "event": event}), 201

    @routes.get("/versions")
    def versions() -> Response:
        return jsonify({"versions": [backend.model_version]})

    @routes.get("/metrics")
    def figures() -> Response:
        return Response(metrics.text(), mimetype="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _health(backend: Services) -> dict[str, Any]:
    """Say that the web process is up; a missing model or worker is named, but does not count as down."""
    try:
        version, problem = backend.model_version, backend.registry.problem()
    except SvacError as error:
        version, problem = None, str(error)
    workers = backend.workers.alive(LEASE_S)
    if problem is None and not workers:
        problem = "No worker is running: start `svac-backend worker`."
    return {
        "status": "UP",
        "model_class": "SVAC",
        "model_version": version,
        "workers": [{"device": worker.device, "model_version": worker.model_version} for worker in workers],
        "problem": problem,
        "pages": url_for("ui.projects"),
    }


def _tasks(body: dict[str, Any]) -> list[dict[str, Any]]:
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise BadRequest(
            "The body's 'tasks' is missing, empty or no list.", "Send a list of at least one task."
        )
    if len(tasks) > MAX_TASKS:
        raise BadRequest(f"The body has {len(tasks)} tasks, more than {MAX_TASKS}.", "Send fewer at a time.")
    for position, task in enumerate(tasks):
        if not isinstance(task, dict):
            raise BadRequest(f"tasks[{position}] is not an object.", "Send tasks as Label Studio does.")
    return tasks


def _label_config(body: dict[str, Any], project: str, backend: Services) -> str:
    config = text(body, "label_config", default="", most=MAX_CONFIG_CHARS)
    if config:
        return config
    connection = backend.connections.get(project)
    if connection is None or not connection.label_config:
        raise BadRequest(
            "The body has no 'label_config', and the project has not called /setup.",
            "Connect the model in the project's settings.",
        )
    return connection.label_config
