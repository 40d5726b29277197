"""The Kubernetes manifests: valid by the schemas of the API versions, safe, and with variables that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.test_containers import TOOL_VARIABLES, setting_names

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSION = "1.37"

Manifest = dict[str, Any]


def manifests(folder: Path) -> list[Manifest]:
    """Return the objects of a folder's files, the kustomization's own aside."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [made for text in texts for made in yaml.safe_load_all(text) if made]


def kustomization(folder: Path) -> Manifest:
    loaded: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return loaded


def built(overlay: str) -> list[Manifest]:
    """Return what kubectl makes of an overlay."""
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [made for made in yaml.safe_load_all(done.stdout) if made]


def pods(made: list[Manifest]) -> dict[str, Manifest]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in made
        if one["kind"] == "Deployment"
    }


def named(made: Manifest) -> tuple[str, str, str]:
    return made["apiVersion"], made["kind"], made["metadata"]["name"]


def test_every_object_is_valid() -> None:
    made = manifests(KUBERNETES / "base")
    assert {one["kind"] for one in made} == {
        *("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("PersistentVolumeClaim", "Secret"),
    }
    for one in made:
        kubernetes_validate.validate(one, VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_valid(overlay: str) -> None:
    made = built(overlay)
    for one in made:
        kubernetes_validate.validate(one, VERSION, strict=True)
    limits = pods(made)["svac-worker"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (overlay == "gpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_changes_what_is_there(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    kustomized = kustomization(folder)
    assert [(folder / path).resolve() for path in kustomized["resources"]] == [KUBERNETES / "base"]
    there = {named(one) for one in manifests(KUBERNETES / "base")}
    patches = [yaml.safe_load(entry["patch"]) for entry in kustomized["patches"]]
    assert patches
    assert {named(patch) for patch in patches} <= there


def test_the_kustomization_has_every_file_but_the_secret() -> None:
    """Whoever applies the base must not apply the example's passwords."""
    listed = set(kustomization(KUBERNETES / "base")["resources"])
    files = {path.name for path in (KUBERNETES / "base").glob("*.yaml")}
    assert files - listed == {"kustomization.yaml", "secrets.example.yaml"}


def test_a_container_can_do_as_little_as_possible() -> None:
    for name, pod in pods(manifests(KUBERNETES / "base")).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"startupProbe", "livenessProbe"} <= container.keys()
            assert "memory" in container["resources"]["limits"]


def test_every_variable_is_a_setting_and_in_the_docs() -> None:
    told = (ROOT / "docs/reference/settings.md").read_text()
    literals = kustomization(KUBERNETES / "base")["configMapGenerator"][0]["literals"]
    used = {entry.partition("=")[0] for entry in literals}
    for folder in (KUBERNETES / "base", *(KUBERNETES / "overlays" / overlay for overlay in OVERLAYS)):
        for path in folder.glob("*.yaml"):
            used |= set(re.findall(r"\bSVAC_[A-Z0-9_]+", path.read_text()))
    assert {"SVAC_DATABASE_URL", "SVAC_DEVICE", "SVAC_BASIC_AUTH_PASSWORD"} <= used
    assert used - setting_names() - set(TOOL_VARIABLES) == set()
    assert [name for name in sorted(used - set(TOOL_VARIABLES)) if f"`{name}`" not in told] == []


def test_commands_are_those_of_the_command_line() -> None:
    for pod in pods(manifests(KUBERNETES / "base")).values():
        (container,) = pod["containers"]
        probe = container["startupProbe"]["exec"]["command"]
        command = probe if probe[0] == "svac-backend" else ["svac-backend", *container["args"]]
        told = (ROOT / "docs/reference/command-line.md").read_text()
        assert f"svac-backend {command[1]}" in told, json.dumps(command)
