"""Checks whether the backend can be reached: from here, and, what counts, from Label Studio."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

import httpx

from svac_backend.cli.doctor.finding import DoctorClient, DoctorWarning, check
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.connection import plain_http_client
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.versions import served_version

# Label Studio's own time limits, in seconds, for /health and /predict.
HEALTH_TIMEOUT_S, PREDICT_TIMEOUT_S = 1.0, 100.0
# Seconds of that limit that Label Studio itself, the network and a slow disk may take.
MARGIN_S = 10.0
EVERYWHERE = ("0.0.0.0", "::", "")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def default_url(settings: Settings) -> str:
    """Return the address of the web process on this machine."""
    host = "localhost" if settings.host in EVERYWHERE else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def backend_address(given: str) -> str:
    """Return the address that a user gave, without a slash at its end.

    Raises:
        SvacError: it is not an address.
    """
    url = given.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # malformed brackets or port
        good = False
    if not good:
        raise SvacError(
            f"'{given}' is not the address of a backend.", "Give one such as http://backend.internal:9090."
        )
    return url


def basic_auth(settings: Settings) -> tuple[str, str] | None:
    """Return the user and password that the web process asks for, or None."""
    user, password = settings.basic_auth_user, settings.basic_auth_password
    return (user, password.get_secret_value()) if user and password else None


@check("backend, from here")
def check_from_here(settings: Settings, url: str) -> str:
    """Check that our web process answers at `url`, in time and with the model that the settings name."""
    start = (
        "Start `svac-backend serve`, or give the address at which Label Studio reaches it: --backend-url URL."
    )
    begun = time.monotonic()
    try:
        with plain_http_client(10) as http:
            answer = http.get(f"{url}/health", auth=basic_auth(settings))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise SvacError(f"Nothing answers at {url} ({error}).", start) from error
    seconds = time.monotonic() - begun
    if answer.status_code == 401:
        raise SvacError(
            f"The backend at {url} asks for another user and password than these settings have.",
            "Run this with the SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD of the web process.",
        )
    health = _json(answer)
    if answer.status_code == 403 and health.get("error"):
        raise SvacError(f"{health['error']} ({url})", str(health.get("hint", start)))
    if answer.status_code != 200 or health.get("model_class") != "SVAC":
        raise SvacError(f"What answers at {url} is not this backend (status {answer.status_code}).", start)
    if health.get("problem"):
        raise DoctorWarning(f"It answers at {url}. {health['problem']}", "Fix that and run this again.")
    if seconds > HEALTH_TIMEOUT_S / 2:
        raise DoctorWarning(
            f"/health took {seconds:.1f} s; Label Studio waits {HEALTH_TIMEOUT_S:.0f} s.",
            "Check what else runs on its machine, and whether SVAC_DATA_DIR is on a local disk.",
        )
    answers_for = health.get("model_version")
    try:
        wanted: object = served_version(settings)
    except SvacError:  # another check reports it
        wanted = answers_for
    if answers_for != wanted:
        raise DoctorWarning(
            f"It answers for the model {answers_for}, but the settings here name {wanted}.",
            "Restart the web process, or run this with its settings.",
        )
    return f"{url} answers in {1000 * seconds:.0f} ms, model {wanted}; its pages: {url}/ui/"


@check("backend, from Label Studio")
def check_from_label_studio(
    settings: Settings,
    client: DoctorClient,
    project: int,
    url: str,
    database: Database | None,
    *,
    answers_here: bool,
) -> str:
    """Make Label Studio connect the backend to a project.

    Args:
        settings: have the basic auth that Label Studio must send.
        client: makes the connection.
        project: a temporary project.
        url: the backend's address for Label Studio.
        database: our database, which shows whether the calls reached the web process with these settings.
        answers_here: whether the backend answers at that address from here.
    """
    try:
        client.connect_ml_backend(project, url, basic_auth=basic_auth(settings))
        (backend,) = client.list_ml_backends(project)
    except SvacError as error:
        raise explained(error, settings, url, answers_here=answers_here) from error
    if backend.get("state") != "CO":
        reason = backend.get("error_message") or "no reason given"
        raise SvacError(
            f"Label Studio connected {url}, but then lost it ({reason}).",
            "Check the web process's log.",
        )
    if database is None:
        return f"Label Studio reaches {url}"
    connection = ConnectionStore(database).get(str(project))
    if connection is None:
        raise DoctorWarning(
            f"Label Studio reaches {url}, but that web process keeps its data elsewhere than the {database}.",
            "Run this with the web process's SVAC_DATA_DIR; serve, worker and import must share it.",
        )
    return f"Label Studio reaches {url}, and calls itself {connection.hostname or 'nothing'}"


def explained(error: SvacError, settings: Settings, url: str, *, answers_here: bool) -> SvacError:
    """Return the cause of Label Studio's refusal to connect the backend."""
    text, host = error.message, urlsplit(url).hostname or ""
    if "authentication parameters" in text:
        return SvacError(
            "The backend does not accept the user and password that Label Studio sends.",
            "Enter SVAC_BASIC_AUTH_USER and SVAC_BASIC_AUTH_PASSWORD in the project's Settings > Model, and give "
            "this command the same ones.",
        )
    if "look like a valid ML backend" in text:
        return SvacError(
            "The backend answers /health, but not /setup.",
            "Check the web process's log; without a model (SVAC_MODEL) it cannot say its version.",
        )
    if "resolve hostname" in text:
        return SvacError(
            f"Label Studio does not know the host '{host}'.",
            "Give the address as Label Studio's own machine or container sees it: --backend-url URL.",
        )
    if "no answer from the backend" not in text:
        return error
    if host in LOOPBACK:
        fix = ("" if answers_here else "Start the backend. ") + (
            "If Label Studio runs in a container, localhost is that container: start the backend with "
            f"SVAC_HOST=0.0.0.0, and use http://host.docker.internal:{settings.port} (on Linux with --add-host="
            "host.docker.internal:host-gateway) or the backend's service name as --backend-url."
        )
    elif settings.host in LOOPBACK:
        fix = f"The web process listens on {settings.host} only: start it with SVAC_HOST=0.0.0.0."
    else:
        fix = "Open the port in the firewall between Label Studio's machine and the backend's."
    return SvacError(f"Label Studio gets no answer from {url}.", fix)


@check("timeouts")
def check_timeouts(settings: Settings) -> str:
    """Check that an interactive /predict answers before Label Studio gives up."""
    told = os.environ.get("ML_TIMEOUT_PREDICT")
    try:
        limit = float(told) if told else PREDICT_TIMEOUT_S
    except ValueError as error:
        raise SvacError(
            f"ML_TIMEOUT_PREDICT is {told!r}.", "Set it to seconds, or leave it unset."
        ) from error
    source = "ML_TIMEOUT_PREDICT here" if told else "unless its ML_TIMEOUT_PREDICT says otherwise"
    detail = f"an interactive /predict waits {settings.predict_wait_s:g} s; Label Studio waits {limit:g} s ({source})"
    if settings.predict_wait_s + MARGIN_S > limit:
        raise SvacError(
            detail,
            f"Set SVAC_PREDICT_WAIT_S to at most {max(limit - MARGIN_S, 0):g}, or raise Label Studio's limit.",
        )
    return detail


def _json(answer: httpx.Response) -> dict[str, object]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
