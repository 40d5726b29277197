"""`svac-backend doctor` against a real Label Studio and a real web process and worker: as it should be, and broken."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from svac_backend.cli.doctor.command import check_all, run
from svac_backend.cli.doctor.finding import TITLE, Finding, Status
from svac_backend.labelstudio import local
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.quickstart.processes import Process, choose_port, wait_until_up
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.workers import WorkerStore
from tests.integration.label_studio import _template, personal_access_token

COMMAND = str(Path(sys.executable).with_name("svac-backend"))
BRUSH = (Path(__file__).parents[2] / "labelstudio_config" / "brush_frames.xml").read_text()


@dataclass
class Backend:
    """A web process and a worker of our own."""

    settings: Settings
    url: str


@pytest.fixture(scope="module")
def backend(
    label_studio: LabelStudioServer, random_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("doctor")
    port = choose_port(23_000 + os.getpid() % 10_000)
    settings = Settings(
        _env_file=None,
        model=str(random_model),
        data_dir=folder / "data",
        port=port,
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr(label_studio.token),
        label_studio_files_root=label_studio.files_root,
    )
    env = environment(settings)
    processes = []
    try:
        for command in ("serve", "worker"):
            processes.append(Process(command, [COMMAND, command], folder / f"{command}.log", env, folder))
        wait_until_up(f"http://127.0.0.1:{port}/health", processes[0], timeout=60)
        deadline = time.monotonic() + 120
        database = Database.from_settings(settings)
        while not any(worker.model_version for worker in WorkerStore(database).alive(30)):
            processes[1].check()
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()
            time.sleep(0.2)
        database.close()
        yield Backend(settings, f"http://127.0.0.1:{port}")
    finally:
        for process in processes:
            process.stop()


def environment(settings: Settings) -> dict[str, str]:
    assert settings.label_studio_api_key is not None
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SVAC_")},
        "OMP_NUM_THREADS": "1",
        "SVAC_MODEL": settings.model,
        "SVAC_DATA_DIR": str(settings.data_dir),
        "SVAC_PORT": str(settings.port),
        "SVAC_LABEL_STUDIO_URL": settings.label_studio_url,
        "SVAC_LABEL_STUDIO_API_KEY": settings.label_studio_api_key.get_secret_value(),
        "SVAC_LABEL_STUDIO_FILES_ROOT": str(settings.label_studio_files_root),
    }


@pytest.fixture
def client(label_studio: LabelStudioServer) -> Iterator[LabelStudioClient]:
    """The client; afterwards no temporary project and no file of the doctor may be left."""
    one = label_studio.client()
    yield one
    assert [p["title"] for p in one.list_projects() if p["title"].startswith(TITLE)] == []
    assert list(label_studio.files_root.glob("svac/doctor-*")) == []


@pytest.fixture
def project(client: LabelStudioClient) -> Iterator[int]:
    number = client.create_project("test of the doctor", BRUSH)
    yield number
    client.delete_project(number)


def examine(
    settings: Settings, url: str | None = None, project: int | None = None, **changes: Any
) -> dict[str, Finding]:
    found = list(check_all(settings.model_copy(update=changes), url, project))
    assert all(finding.fix for finding in found if finding.status is not Status.OK)
    return {finding.check: finding for finding in found}


def bad(findings: dict[str, Finding]) -> dict[str, str]:
    return {f.check: f"{f.detail} {f.fix}" for f in findings.values() if f.status is not Status.OK}


def test_all_is_well(
    backend: Backend, client: LabelStudioClient, project: int, capsys: pytest.CaptureFixture[str]
) -> None:
    client.connect_ml_backend(project, backend.url)
    client.create_task(project, {"video": "/v.mp4", "frames": ["/0.jpg"], "fps": 25, "prompt": "the dog"})
    assert run(backend.settings, None, project) == 0
    printed = capsys.readouterr().out
    assert "No failure, 0 warnings." in printed
    found = examine(backend.settings, backend.url, project)
    assert bad(found) == {}
    assert list(found) == [
        *("settings", "model", "torch and sam2", "data folder", "database", "worker", "jobs"),
        "timeouts",
        *("Label Studio", "token", "local files", "backend, from here", "backend, from Label Studio"),
        *("webhooks", f"project {project}", "prompts", "connected model", "shown predictions"),
    ]
    assert "1 task apply" in found["prompts"].detail
    assert f"calls itself {client.url}" in found["backend, from Label Studio"].detail
    (kept,) = client.list_ml_backends(project)
    assert kept["url"] == backend.url


def test_no_token_is_shown(
    backend: Backend, client: LabelStudioClient, project: int, capsys: pytest.CaptureFixture[str]
) -> None:
    basic, hook = secrets.token_hex(12), secrets.token_hex(12)
    settings = backend.settings.model_copy(
        update={
            "basic_auth_user": "ls",
            "basic_auth_password": SecretStr(basic),
            "webhook_token": SecretStr(hook),
            "label_studio_api_key": SecretStr("a" * 40),
        }
    )
    assert run(settings, None, project) == 1
    run(
        settings.model_copy(update={"label_studio_api_key": backend.settings.label_studio_api_key}),
        None,
        project,
    )
    printed = "".join(capsys.readouterr())
    assert backend.settings.label_studio_api_key is not None
    for secret in (basic, hook, "a" * 40, backend.settings.label_studio_api_key.get_secret_value()):
        assert secret not in printed.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("changes", "check", "words"),
    [
        ({"model": "nothing-here"}, "model", "no model at 'nothing-here'"),
        ({"device": "cuda:7"}, "torch and sam2", "SVAC_DEVICE"),
        ({"label_studio_api_key": None}, "token", "Personal Access Token"),
        ({"label_studio_api_key": SecretStr("b" * 40)}, "token", "Legacy tokens are off by default"),
        ({"label_studio_api_key": SecretStr("no token at all")}, "token", "neither"),
        ({"label_studio_files_root": None}, "local files", "LOCAL_FILES_DOCUMENT_ROOT"),
        ({"label_studio_files_root": Path("/nowhere/at/all")}, "local files", "which is not a folder"),
        ({"label_studio_files_root": "other"}, "local files", "is not below it"),
        ({"predict_wait_s": 95.0}, "timeouts", "SVAC_PREDICT_WAIT_S to at most 90"),
        ({"label_studio_url": "http://127.0.0.1:9"}, "Label Studio", "cannot be reached"),
        ({"label_studio_url": "http://localhost:x"}, "Label Studio", "is not an address"),
        ({"label_studio_url": "backend"}, "Label Studio", "is not Label Studio"),
        ({"data_dir": Path("/nowhere/at/all")}, "data folder", "neither the web process nor the worker"),
    ],
)
def test_what_is_broken_here(
    backend: Backend,
    client: LabelStudioClient,
    tmp_path: Path,
    changes: dict[str, Any],
    check: str,
    words: str,
) -> None:
    if changes.get("label_studio_files_root") == "other":
        changes = {"label_studio_files_root": tmp_path}
    if changes.get("label_studio_url") == "backend":
        changes = {"label_studio_url": backend.url}
    found = bad(examine(backend.settings, backend.url, **changes))
    assert words in found[check]


def test_a_backend_that_does_not_run(backend: Backend, client: LabelStudioClient) -> None:
    found = bad(examine(backend.settings, "http://127.0.0.1:9"))
    assert "Start `svac-backend serve`" in found["backend, from here"]
    there = found["backend, from Label Studio"]
    assert "gets no answer from http://127.0.0.1:9" in there
    assert "host.docker.internal" in there
    assert "service name" in there


def test_another_service_at_the_address(backend: Backend, client: LabelStudioClient) -> None:
    found = bad(examine(backend.settings, client.url))
    assert "is not this backend" in found["backend, from here"]
    assert found["backend, from Label Studio"]


def test_a_host_that_label_studio_does_not_know(backend: Backend, client: LabelStudioClient) -> None:
    found = bad(examine(backend.settings, "http://no-such-host.invalid:9090"))
    assert "--backend-url" in found["backend, from Label Studio"]


def test_a_host_without_a_dot_gets_no_webhook(backend: Backend, client: LabelStudioClient) -> None:
    host = socket.gethostname()
    try:
        local_name = "." not in host and socket.gethostbyname(host).startswith("127.")
    except OSError:
        local_name = False
    if not local_name:
        pytest.skip("this machine's name has a dot or does not lead to itself")
    found = bad(examine(backend.settings, f"http://{host}:{backend.settings.port}"))
    assert f"{host}.internal" in found["webhooks"]
    assert list(found) == ["webhooks"]


def test_basic_auth_that_disagrees(
    backend: Backend, client: LabelStudioClient, random_model: Path, tmp_path: Path
) -> None:
    port = choose_port(backend.settings.port + 1)
    settings = backend.settings.model_copy(update={"port": port, "data_dir": tmp_path / "data"})
    env = {**environment(settings), "SVAC_BASIC_AUTH_USER": "ls", "SVAC_BASIC_AUTH_PASSWORD": "right"}
    process = Process("serve", [COMMAND, "serve"], tmp_path / "serve.log", env, tmp_path)
    try:
        up = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            process.check()
            try:
                if httpx.get(f"{up}/health").status_code == 401:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline
            time.sleep(0.1)
        for changes in ({}, {"basic_auth_user": "ls", "basic_auth_password": SecretStr("wrong")}):
            found = bad(examine(settings, up, **changes))
            assert "SVAC_BASIC_AUTH_USER" in found["backend, from here"]
            assert "SVAC_BASIC_AUTH_PASSWORD" in found["backend, from Label Studio"]
        right = {"basic_auth_user": "ls", "basic_auth_password": SecretStr("right")}
        assert set(bad(examine(settings, up, **right))) == {"backend, from here", "worker"}
        assert "Start `svac-backend worker`" in bad(examine(settings, up, **right))["worker"]
        # The web process of these settings is another one.
        elsewhere = bad(examine(backend.settings, up, **right))
        assert "keeps its data elsewhere" in elsewhere["backend, from Label Studio"]
    finally:
        process.stop()


def test_a_project_that_is_not_ready(backend: Backend, client: LabelStudioClient, project: int) -> None:
    found = bad(examine(backend.settings, backend.url, project))
    assert f"connect {backend.url}" in found["connected model"]
    assert "shows none" in found["shown predictions"]
    client.connect_ml_backend(project, backend.url, interactive=False)
    client.create_task(
        project, {"video": "/v.mp4", "fps": 25, "prompt": {"zebra": "the zebra"}, "frames": ["/0.jpg"]}
    )
    found = bad(examine(backend.settings, backend.url, project, webhook_token=SecretStr("x" * 20)))
    assert "without interactive" in found["connected model"]
    assert "'zebra'" in found["prompts"]
    assert "X-Svac-Token" in found["webhooks"]
    assert (
        "could not read project 999999"
        in bad(examine(backend.settings, backend.url, 999_999))["project 999999"]
    )


def test_a_project_that_cannot_show_masks(backend: Backend, client: LabelStudioClient) -> None:
    xml = '<View><Video name="v" value="$video"/><VideoRectangle name="b" toName="v"/></View>'
    number = client.create_project("boxes only", xml)
    assert (
        "cannot draw masks on <Video>"
        in bad(examine(backend.settings, backend.url, number))[f"project {number}"]
    )
    client.delete_project(number)


@pytest.fixture(scope="module")
def strict(
    label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelStudioServer]:
    """A second Label Studio as it comes: no backend on a private network, no local files."""
    template = _template()
    folder = tmp_path_factory.mktemp("strict")
    if template is not None and (template / "label_studio.sqlite3").exists():
        shutil.copytree(template, folder, dirs_exist_ok=True)  # else it makes its database: a minute more
    server = LabelStudioServer(folder)
    with pytest.MonkeyPatch.context() as patch:
        settings = dict(local._SETTINGS)
        for name in ("ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED", "LOCAL_FILES_SERVING_ENABLED"):
            del settings[name]
        patch.setattr(local, "_SETTINGS", settings)
        server.start()
    yield server
    server.stop()


def at(settings: Settings, server: LabelStudioServer, token: str) -> Settings:
    return settings.model_copy(
        update={
            "label_studio_url": server.url,
            "label_studio_api_key": SecretStr(token),
            "label_studio_files_root": server.files_root,
        }
    )


def test_a_label_studio_as_it_comes(backend: Backend, strict: LabelStudioServer) -> None:
    found = bad(examine(at(backend.settings, strict, strict.token), backend.url))
    assert set(found) == {"local files", "backend, from Label Studio"}
    assert "LOCAL_FILES_SERVING_ENABLED=true" in found["local files"]
    assert (
        "ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false, both"
        in found["backend, from Label Studio"]
    )
    assert [p["title"] for p in strict.client().list_projects() if p["title"].startswith(TITLE)] == []


def test_legacy_tokens_that_are_off(backend: Backend, strict: LabelStudioServer) -> None:
    personal = personal_access_token(strict)
    client = LabelStudioClient(strict.url, personal)
    body = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": False}
    answer = httpx.post(f"{strict.url}/api/jwt/settings", json=body, headers=client.authorization())
    assert answer.is_success, answer.text
    found = examine(at(backend.settings, strict, strict.token), backend.url)
    assert "legacy token" in found["token"].detail
    assert "personal access token" in found["token"].fix
    good = examine(at(backend.settings, strict, personal), backend.url)
    assert good["token"].status is Status.OK
    assert good["token"].detail.startswith("personal access token of ")
