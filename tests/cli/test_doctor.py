"""The doctor's checks of this machine, and what it prints; tests/integration/test_doctor.py has Label Studio."""

from __future__ import annotations

import shutil
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from svac_backend.cli.doctor import command, machine
from svac_backend.cli.doctor.backend import (
    backend_address,
    check_from_here,
    check_timeouts,
    default_url,
    explained,
)
from svac_backend.cli.doctor.command import check_all, run
from svac_backend.cli.doctor.finding import DoctorWarning, Finding, Status, failed
from svac_backend.cli.doctor.machine import (
    GIB,
    check_data_folder,
    check_database,
    check_jobs,
    check_model,
    check_settings,
    check_worker,
)
from svac_backend.errors import SvacError
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.jobs import JobStore
from svac_backend.store.workers import WorkerStore
from svac_backend.svac.files.weights import model_version


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    one = Database.from_settings(settings)
    yield one
    one.close()


def test_settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check_settings(settings)
    assert found.status is Status.OK
    assert "label_studio_api_key" in found.detail
    assert "c" * 40 not in found.detail
    half = check_settings(settings.model_copy(update={"basic_auth_user": "me"}))
    assert half.status is Status.FAILURE
    assert "SVAC_BASIC_AUTH_PASSWORD" in half.detail
    monkeypatch.setenv("SVAC_LABEL_STUDIO_BIN", "/usr/bin/label-studio")
    assert check_settings(settings).status is Status.OK
    monkeypatch.setenv("SVAC_LABELSTUDIO_URL", "http://secret")
    typo = check_settings(settings)
    assert typo.status is Status.WARNING
    assert "SVAC_LABELSTUDIO_URL is not a setting" in typo.detail
    assert "secret" not in typo.detail


def test_model(settings: Settings, weights: Path) -> None:
    found = check_model(settings)
    assert found.status is Status.OK
    assert found.detail.startswith(f"{model_version(settings.model)}, 0.0 MB")
    (weights / "model.safetensors").unlink()
    assert check_model(settings).status is Status.FAILURE
    assert "no model at 'other'" in check_model(settings.model_copy(update={"model": "other"})).detail


def test_data_folder(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_data_folder(settings).status is Status.FAILURE
    assert not settings.data_dir.exists(), "the doctor makes nothing"
    Database.from_settings(settings).close()
    assert check_data_folder(settings).status is Status.OK
    usage = namedtuple("usage", "total used free")
    for free, status in ((GIB, Status.WARNING), (GIB // 100, Status.FAILURE)):
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        found = check_data_folder(settings)
        assert found.status is status
        assert "SVAC_DATA_DIR" in found.fix


def test_database(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "svac.db").write_text("This is no database, but a text of some length. " * 50)
    found, database = check_database(settings)
    assert (found.status, database) == (Status.FAILURE, None)
    shutil.rmtree(settings.data_dir)
    found, database = check_database(settings)
    assert found.status is Status.OK
    assert database is not None
    database.close()


def test_worker(settings: Settings, database: Database) -> None:
    store = WorkerStore(database)
    assert check_worker(settings, database).status is Status.FAILURE
    store.beat("w1")
    assert "not loaded" in check_worker(settings, database).detail
    store.beat("w1", device="cpu", model_version="other-1")
    found = check_worker(settings, database)
    assert found.status is Status.WARNING
    assert "other-1" in found.detail
    # Another version of the same model is put in before the worker's next job.
    for version in (model_version(settings.model), f"{model_version(settings.model)}-0123abcd"):
        store.beat("w1", device="cpu", model_version=version)
        assert check_worker(settings, database).status is Status.OK
    store.beat("w1", device="cpu", model_version=f"{model_version(settings.model)}0")
    assert check_worker(settings, database).status is Status.WARNING


def test_jobs_that_wait_to_be_tried_again(settings: Settings, database: Database) -> None:
    store = JobStore(database)
    assert check_jobs(settings, database).status is Status.OK
    store.submit("prelabel", {}, "k")
    job = store.claim("model", "w")
    assert job is not None
    store.put_off(job, "Label Studio cannot be reached.", "Start it.", 60.0)
    found = check_jobs(settings, database)
    assert found.status is Status.WARNING
    assert (
        f"1 job waits to be tried again. Job {job.id} (prelabel, tried 1 time): Label Studio" in found.detail
    )
    assert "Start it." in found.fix


@pytest.fixture
def serve() -> Iterator[object]:
    """Serves apps of settings on free ports, and returns their addresses."""
    servers = []

    def start(settings: Settings) -> str:
        server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_backend_from_here(settings: Settings, database: Database, serve: object) -> None:
    assert callable(serve)
    url = serve(settings)
    found = check_from_here(settings, url)
    assert found.status is Status.WARNING
    assert "svac-backend worker" in found.detail
    WorkerStore(database).beat("w1", device="cpu", model_version=model_version(settings.model))
    assert check_from_here(settings, url).status is Status.OK
    other = settings.model_copy(update={"model": "not there"})
    assert check_from_here(other, url).status is Status.OK, "another check says that the model is missing"
    assert check_from_here(settings, "http://127.0.0.1:9").status is Status.FAILURE
    assert check_from_here(settings, f"{url}/jobs").status is Status.FAILURE


def test_a_name_that_the_backend_does_not_answer_to(
    settings: Settings, serve: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(serve)
    port = int(serve(settings).rpartition(":")[2])
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: look_up("127.0.0.1", *rest, **more)
    )
    found = check_from_here(settings, f"http://masks.example:{port}")
    assert found.status is Status.FAILURE
    assert "masks.example" in found.detail
    assert "SVAC_ALLOWED_HOSTS" in found.fix


def test_backend_with_basic_auth(settings: Settings, database: Database, serve: object) -> None:
    assert callable(serve)
    WorkerStore(database).beat("w1", device="cpu", model_version=model_version(settings.model))
    right = settings.model_copy(
        update={"basic_auth_user": "ls", "basic_auth_password": SecretStr("a password")}
    )
    url = serve(right)
    assert check_from_here(right, url).status is Status.OK
    wrong = check_from_here(settings, url)
    assert wrong.status is Status.FAILURE
    assert "SVAC_BASIC_AUTH_PASSWORD" in wrong.fix


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9090"),
        ("0.0.0.0", "http://localhost:9090"),
        ("::1", "http://[::1]:9090"),
        ("::", "http://localhost:9090"),
    ],
)
def test_default_address(settings: Settings, host: str, url: str) -> None:
    assert default_url(settings.model_copy(update={"host": host})) == url


def test_addresses_that_are_given() -> None:
    assert backend_address(" http://backend.internal:9090/ ") == "http://backend.internal:9090"
    for bad in ("", "backend", "backend:9090", "ftp://x", "http://", "http://x:port", "http://[broken"):
        with pytest.raises(SvacError, match="not the address"):
            backend_address(bad)


def test_why_label_studio_does_not_reach_it(settings: Settings) -> None:
    silent = SvacError("Label Studio gets no answer from the backend (tried to x).", "Start the backend.")

    def fix(error: SvacError, url: str, host: str = "127.0.0.1") -> str:
        found = explained(error, settings.model_copy(update={"host": host}), url, answers_here=True)
        assert failed("backend", found).status is Status.FAILURE
        return found.hint

    assert "host.docker.internal:9090" in fix(silent, "http://localhost:9090")
    assert "SVAC_HOST=0.0.0.0" in fix(silent, "http://10.0.0.5:9090")
    assert "firewall" in fix(silent, "http://10.0.0.5:9090", host="0.0.0.0")
    reserved = SvacError(
        "Label Studio refuses a backend on a local or private network (tried to x).", "Both."
    )
    assert fix(reserved, "http://localhost:9090") == "Both."


@pytest.mark.parametrize(
    ("waits", "limit", "status"),
    [
        (20.0, None, Status.OK),
        (90.0, None, Status.OK),
        (20.0, "25", Status.FAILURE),
        (20.0, "60", Status.OK),
        (20.0, "soon", Status.FAILURE),
    ],
)
def test_timeouts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, waits: float, limit: str | None, status: Status
) -> None:
    monkeypatch.delenv("ML_TIMEOUT_PREDICT", raising=False)
    if limit:
        monkeypatch.setenv("ML_TIMEOUT_PREDICT", limit)
    assert check_timeouts(settings.model_copy(update={"predict_wait_s": waits})).status is status


def test_without_label_studio_the_rest_is_checked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It imports torch, which takes seconds; tests/test_cli.py has it.
    monkeypatch.setattr(
        command, "check_libraries", lambda _: Finding("torch and sam2", Status.OK, "stand-in")
    )
    # Not the default port: a backend may well run on this machine.
    alone = settings.model_copy(update={"port": 9})
    found = {finding.check: finding for finding in check_all(alone, None, 7)}
    assert found["Label Studio"].status is Status.FAILURE
    assert found["backend, from here"].status is Status.FAILURE
    assert "token" not in found


FINE = Finding("a", Status.OK, "[fine]")


@pytest.mark.parametrize(
    ("findings", "status", "summary"),
    [
        ([FINE], 0, "No failure, 0 warnings."),
        ([FINE, failed("b", DoctorWarning("so so", "do [/x] this"))], 0, "No failure, 1 warning."),
        (
            [failed("a", SvacError("bad", "mend it")), failed("b", DoctorWarning("so so", "do"))],
            1,
            "1 failure, 1 warning.",
        ),
    ],
)
def test_exit_status_and_table(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    findings: list[Finding],
    status: int,
    summary: str,
) -> None:
    monkeypatch.setattr(command, "check_all", lambda *_: iter(findings))
    assert run(settings, None, None) == status
    printed = capsys.readouterr().out
    assert summary in printed
    for finding in findings:
        assert finding.detail in printed
        assert finding.fix in printed
