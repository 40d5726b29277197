"""No Docker engine runs here: the files are checked against the schema, the settings and Label Studio."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
import yaml

from svac_backend.jobs.cluster import OBJECTS_BYTES
from svac_backend.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker-compose.yml"
LABEL_STUDIO_SOURCE = ROOT / ".venv-label-studio"

# Variables that are not ours, and who reads them.
LABEL_STUDIO_VARIABLES = {
    "LABEL_STUDIO_HOST": "HOST in core/settings/base.py",
    "LABEL_STUDIO_USERNAME": "server.py",
    "LABEL_STUDIO_PASSWORD": "server.py",
    "LABEL_STUDIO_USER_TOKEN": "server.py",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "organizations/functions.py",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "DISABLE_SIGNUP_WITHOUT_LINK in core/settings/base.py",
    "ML_BLOCK_LOCAL_IP": "core/settings/base.py",
    "SSRF_PROTECTION_ENABLED": "core/settings/base.py",
    "LOCAL_FILES_SERVING_ENABLED": "core/settings/base.py",
    "LOCAL_FILES_DOCUMENT_ROOT": "core/settings/base.py",
    "LATEST_VERSION_CHECK": "core/settings/base.py",
    "COLLECT_ANALYTICS": "core/settings/base.py",
    "SENTRY_DSN": "core/settings/base.py",
    "FRONTEND_SENTRY_DSN": "core/settings/base.py",
}
TOOL_VARIABLES = {
    "PIP_NO_CACHE_DIR": "pip",
    "PIP_DISABLE_PIP_VERSION_CHECK": "pip",
    "PYTHONUNBUFFERED": "Python",
    "TORCH_INDEX_URL": "a build argument of the Dockerfile",
    "EXTRAS": "a build argument of the Dockerfile",
    "COMPOSE_PROFILES": "docker compose",
    "HF_HOME": "huggingface_hub",
    "RAY_ROTATION_MAX_BYTES": "Ray",
    "RAY_ROTATION_BACKUP_COUNT": "Ray",
    "POSTGRES_USER": "PostgreSQL's image",
    "POSTGRES_DB": "PostgreSQL's image",
    "POSTGRES_PASSWORD": "PostgreSQL's image",
}


def setting_names() -> set[str]:
    return {f"SVAC_{name}".upper() for name in Settings.model_fields}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def dockerfile_lines() -> list[str]:
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def dockerfile_variables() -> set[str]:
    found: set[str] = set()
    for line in dockerfile_lines():
        instruction, _, rest = line.partition(" ")
        if instruction == "ENV":
            found.update(word.partition("=")[0] for word in shlex.split(rest))
        elif instruction == "ARG":
            found.add(rest.partition("=")[0])
    return found


def compose_variables(compose: dict[str, Any]) -> set[str]:
    found = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    for service in compose["services"].values():
        found.update(service.get("environment", {}))
        found.update(service.get("build", {}).get("args", {}))
    return found


def env_example_variables() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))


def test_compose_file_is_valid_by_the_compose_schema() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_known(compose: dict[str, Any]) -> None:
    known = setting_names() | set(LABEL_STUDIO_VARIABLES) | set(TOOL_VARIABLES)
    used = {
        "Dockerfile": dockerfile_variables(),
        "docker-compose.yml": compose_variables(compose),
        ".env.example": env_example_variables(),
    }
    assert all(used.values()), "no variable was found in one of the files"
    assert {name: sorted(found - known) for name, found in used.items()} == {name: [] for name in used}


def test_allow_lists_hold_nothing_that_is_not_used(compose: dict[str, Any]) -> None:
    used = dockerfile_variables() | compose_variables(compose) | env_example_variables()
    assert (set(LABEL_STUDIO_VARIABLES) | set(TOOL_VARIABLES)) - used == set()


@pytest.mark.skipif(
    not LABEL_STUDIO_SOURCE.is_dir(), reason="Label Studio is not installed (.venv-label-studio)"
)
def test_label_studio_reads_every_variable_that_it_is_given() -> None:
    (package,) = LABEL_STUDIO_SOURCE.glob("lib/python*/site-packages/label_studio")
    files = [package / "server.py", package / "core/settings/base.py", package / "organizations/functions.py"]
    source = "\n".join(path.read_text() for path in [*files, package / "core/argparser.py"])
    unread = [
        name
        for name in LABEL_STUDIO_VARIABLES
        if not re.search(rf"\b{name}\b|'{name.removeprefix('LABEL_STUDIO_')}'", source)
    ]
    assert unread == []


def test_label_studio_accepts_the_backend(compose: dict[str, Any]) -> None:
    """The settings without which it refuses a backend on a private network, its token, or its files."""
    environment = compose["services"]["label-studio"]["environment"]
    assert environment["ML_BLOCK_LOCAL_IP"] == "false"
    assert environment["SSRF_PROTECTION_ENABLED"] == "false"
    assert environment["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    assert environment["LOCAL_FILES_SERVING_ENABLED"] == "true"


@pytest.mark.parametrize("name", ["backend", "worker", "worker-gpu", "worker-ray", "worker-ray-gpu"])
def test_backend_and_label_studio_share_one_folder_of_files(compose: dict[str, Any], name: str) -> None:
    environment = compose["services"][name]["environment"]
    root = environment["SVAC_LABEL_STUDIO_FILES_ROOT"]
    label_studio = compose["services"]["label-studio"]
    assert label_studio["environment"]["LOCAL_FILES_DOCUMENT_ROOT"] == root
    shared = [mount for mount in label_studio["volumes"] if isinstance(mount, dict)]
    assert [(mount["source"], mount["target"]) for mount in shared] == [("files", root)]
    assert f"files:{root}" in compose["services"][name]["volumes"]
    assert f"backend-data:{environment['SVAC_DATA_DIR']}" in compose["services"][name]["volumes"]


def test_each_profile_has_exactly_one_worker(compose: dict[str, Any]) -> None:
    workers = {
        name: service["profiles"]
        for name, service in compose["services"].items()
        if service.get("command") == ["worker"]
    }
    assert workers == {
        "worker": ["cpu"],
        "worker-gpu": ["gpu"],
        "worker-ray": ["ray"],
        "worker-ray-gpu": ["ray-gpu"],
    }


def test_workers_of_ray_have_ray_and_the_room_that_it_needs(compose: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in ("worker-ray", "worker-ray-gpu"):
        service = compose["services"][name]
        assert service["environment"]["SVAC_ENGINE"] == "ray"
        assert service["build"]["args"]["EXTRAS"].split(",")[0] in extras
        assert int(service["shm_size"].removesuffix("m")) << 20 > OBJECTS_BYTES
        assert service["pids_limit"] > compose["services"]["worker"]["pids_limit"]
    (devices,) = compose["services"]["worker-ray-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices["count"] == "all"


def test_the_image_gets_the_optional_parts_that_are_asked_for() -> None:
    (line,) = [line for line in dockerfile_lines() if "optional-dependencies" in line]
    code = shlex.split(line)[3]

    def asked(extras: str) -> list[str]:
        command = [sys.executable, "-c", code, extras]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert [one.partition(">")[0] for one in asked("ray,s3,")] == ["ray", "s3fs"]
    assert asked("") == []


def test_nothing_is_published_beyond_this_machine(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_values_are_accepted_by_the_settings(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("backend", "worker-ray", "worker-gpu"):
        for name, value in compose["services"][service]["environment"].items():
            monkeypatch.setenv(name, value)
        settings = Settings(_env_file=None)  # type: ignore[call-arg]
        assert settings.host == "0.0.0.0"
        assert settings.port == 9090
    assert settings.device == "cuda"


def test_image_runs_as_an_ordinary_user_and_installs_in_order() -> None:
    lines = dockerfile_lines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER svac"]
    (install,) = [line for line in lines if "requirements.txt" in line and line.startswith("RUN")]
    torch, sam2, rest = (install.index(part) for part in ("'^torch==", "--no-deps", "-r /tmp/rest.txt"))
    assert torch < sam2 < rest


def test_image_copies_only_what_dockerignore_lets_through() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in dockerfile_lines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert copied == allowed
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
