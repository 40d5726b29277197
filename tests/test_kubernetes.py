"""The Kubernetes manifests: valid by the schemas of the API versions, safe, and with variables that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from svac_backend.settings import Settings
from tests.test_containers import TOOL_VARIABLES, setting_names

ROOT = Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSION = "1.37"

Manifest = dict[str, Any]


def only(required: str, **known: Any) -> Manifest:
    """Return the schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": known,
    }


TEXT, COUNT, YES = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS, ANY, NAME = {"type": "object", "additionalProperties": TEXT}, {"type": "object"}, {"const": "svac-ray"}
# The fields of a RayCluster as KubeRay's API reference has them, of 1.4 and later. Those whose types are Kubernetes's
# own are checked against its schemas, as parts of a pod.
RAY_CLUSTER = only(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=only("name", name=NAME, namespace=TEXT, labels=TEXTS, annotations=TEXTS),
    spec=only(
        "headGroupSpec",
        rayVersion=TEXT,
        suspend=YES,
        managedBy=TEXT,
        enableInTreeAutoscaling=YES,
        headServiceAnnotations=TEXTS,
        gcsFaultToleranceOptions=ANY,
        autoscalerOptions=only(
            "",
            resources=ANY,
            image=TEXT,
            imagePullPolicy=TEXT,
            securityContext=ANY,
            idleTimeoutSeconds=COUNT,
            upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
            version={"enum": ["v1", "v2"]},
            env={"type": "array"},
            envFrom={"type": "array"},
            volumeMounts={"type": "array"},
        ),
        headGroupSpec=only(
            "template",
            template=ANY,
            headService=ANY,
            enableIngress=YES,
            rayStartParams=TEXTS,
            serviceType=TEXT,
        ),
        workerGroupSpecs={
            "type": "array",
            "items": only(
                "groupName template",
                groupName=TEXT,
                suspend=YES,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                idleTimeoutSeconds=COUNT,
                rayStartParams=TEXTS,
                template=ANY,
                scaleStrategy=ANY,
                numOfHosts=COUNT,
            ),
        },
    ),
)


def manifests(folder: Path) -> list[Manifest]:
    """Return the objects of a folder's files, what is kustomize's own aside."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [made for text in texts for made in yaml.safe_load_all(text) if made and "kind" in made]


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


def ray_pods(made: list[Manifest]) -> dict[str, Manifest]:
    """Return the pods of a RayCluster: `head`, and one for each group of nodes."""
    (cluster,) = [one["spec"] for one in made if one["kind"] == "RayCluster"]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {
        name: group["template"]["spec"]
        for name, group in {"head": cluster["headGroupSpec"], **groups}.items()
    }


def validate(one: Manifest) -> None:
    """Check an object, and of a RayCluster the pods and the autoscaler's container, by the schemas of its version."""
    if one["kind"] != "RayCluster":
        kubernetes_validate.validate(one, VERSION, strict=True)
        return
    jsonschema.validate(one, RAY_CLUSTER)
    options = one["spec"]["autoscalerOptions"]
    told = {name: options[name] for name in ("resources", "env", "securityContext") if name in options}
    autoscaler = {"containers": [{"name": "autoscaler", "image": "ray", **told}]}
    for name, pod in {"autoscaler": autoscaler, **ray_pods([one])}.items():
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
        kubernetes_validate.validate(made, VERSION, strict=True)


def named(made: Manifest) -> tuple[str, str, str]:
    return made["apiVersion"], made["kind"], made["metadata"]["name"]


def test_every_object_is_valid() -> None:
    made = [*manifests(KUBERNETES / "base"), *manifests(KUBERNETES / "overlays/ray")]
    assert {one["kind"] for one in made} == {
        *("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("PersistentVolumeClaim", "Secret", "RayCluster"),
    }
    for one in made:
        validate(one)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "workersGroupSpecs"), []),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "8"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "livenessProb"), {}),
        (("spec", "autoscalerOptions", "resources", "limit"), {}),
    ],
)
def test_a_wrong_field_of_a_ray_cluster_is_found(path: tuple[Any, ...], value: Any) -> None:
    (cluster,) = [one for one in manifests(KUBERNETES / "overlays/ray") if one["kind"] == "RayCluster"]
    # Without the aliases of YAML, which would change other places, too.
    cluster = json.loads(json.dumps(cluster))
    place = cluster
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(cluster)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_of_an_overlay_is_valid(overlay: str) -> None:
    made = built(overlay)
    for one in made:
        validate(one)
    has_ray = overlay in ("ray", "ray-gpu")
    worker = ray_pods(made)["workers"] if has_ray else pods(made)["svac-worker"]
    (container,) = worker["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay in ("gpu", "ray-gpu"))
    assert ("svac-worker" in pods(made)) != has_ray
    # Every pod names the config map as it is named here, and gets the same passwords.
    (settings,) = [one["metadata"]["name"] for one in made if one["kind"] == "ConfigMap"]
    sources = [{"configMapRef": {"name": settings}}, {"secretRef": {"name": "svac"}}]
    of_ray = list(ray_pods(made).values()) if has_ray else []
    for pod in [*pods(made).values(), *of_ray]:
        for one in [*pod["containers"], *pod.get("initContainers", [])]:
            assert one["envFrom"] == sources, one["name"]
            assert re.fullmatch(r"svac-backend:\w[\w-]*", one["image"]), one["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_changes_what_is_there(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    kustomized = kustomization(folder)
    below = {"ray-gpu": KUBERNETES / "overlays/ray"}.get(overlay, KUBERNETES / "base")
    assert (folder / kustomized["resources"][0]).resolve() == below
    there = {named(one) for one in manifests(below)}
    patches = [
        yaml.safe_load(entry["patch"])
        if "target" not in entry
        else {"apiVersion": "ray.io/v1", "kind": entry["target"]["kind"], "metadata": entry["target"]}
        for entry in kustomized["patches"]
    ]
    assert patches
    assert {named(patch) for patch in patches} <= there


def test_ray_has_as_many_nodes_as_workers_may_need_and_nobody_else_reaches_them() -> None:
    folder = KUBERNETES / "overlays/ray"
    made = manifests(folder)
    (cluster,) = [one["spec"] for one in made if one["kind"] == "RayCluster"]
    (group,) = cluster["workerGroupSpecs"]
    told = dict(entry.split("=") for entry in kustomization(folder)["configMapGenerator"][0]["literals"])
    settings = Settings(**{name.removeprefix("SVAC_").lower(): value for name, value in told.items()})
    assert (settings.engine, settings.ray_address) == ("ray", "auto")
    assert (group["minReplicas"], group["maxReplicas"]) == (settings.workers_least, settings.workers_most)
    assert group["rayStartParams"]["num-cpus"] == f"{settings.worker_cpus:g}"
    assert group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "2"
    assert cluster["enableInTreeAutoscaling"]
    wanted = next(
        line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if "ray>=" in line
    )
    assert f"ray>={cluster['rayVersion'].rsplit('.', 1)[0]}," in wanted
    (policy,) = [
        one["spec"]
        for one in made
        if one.get("metadata", {}).get("name") == "svac-ray" and one["kind"] == "NetworkPolicy"
    ]
    nodes = {"matchLabels": {"ray.io/cluster": "svac-ray"}}
    assert policy["podSelector"] == nodes
    assert policy["ingress"] == [{"from": [{"podSelector": nodes}]}]


def test_the_kustomization_has_every_file_but_the_secret() -> None:
    """Whoever applies the base must not apply the example's passwords."""
    listed = set(kustomization(KUBERNETES / "base")["resources"])
    files = {path.name for path in (KUBERNETES / "base").glob("*.yaml")}
    assert files - listed == {"kustomization.yaml", "secrets.example.yaml"}


def test_a_container_can_do_as_little_as_possible() -> None:
    of_ray = ray_pods(manifests(KUBERNETES / "overlays/ray"))
    for name, pod in {**pods(manifests(KUBERNETES / "base")), **of_ray}.items():
        # The autoscaler beside Ray's head asks Kubernetes for nodes.
        assert pod["automountServiceAccountToken"] is (name == "head"), name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            # What goes on beside Ray's head must not keep it from starting.
            probes = set() if container["name"] == "placer" else {"startupProbe", "livenessProbe"}
            assert probes == {"startupProbe", "livenessProbe"} & container.keys()
            assert "memory" in container["resources"]["limits"]


def test_every_variable_is_a_setting_and_in_the_docs() -> None:
    told = (ROOT / "docs/reference/settings.md").read_text()
    literals = kustomization(KUBERNETES / "base")["configMapGenerator"][0]["literals"]
    used = {entry.partition("=")[0] for entry in literals}
    for folder in (KUBERNETES / "base", *(KUBERNETES / "overlays" / overlay for overlay in OVERLAYS)):
        for path in folder.glob("*.yaml"):
            used |= set(re.findall(r"\bSVAC_[A-Z0-9_]+", path.read_text()))
    assert {"SVAC_DATABASE_URL", "SVAC_DEVICE", "SVAC_WORKERS_MOST", "SVAC_BASIC_AUTH_PASSWORD"} <= used
    assert used - setting_names() - set(TOOL_VARIABLES) == set()
    assert [name for name in sorted(used - set(TOOL_VARIABLES)) if f"`{name}`" not in told] == []


def test_commands_are_those_of_the_command_line() -> None:
    for pod in pods(manifests(KUBERNETES / "base")).values():
        (container,) = pod["containers"]
        probe = container["startupProbe"]["exec"]["command"]
        command = probe if probe[0] == "svac-backend" else ["svac-backend", *container["args"]]
        told = (ROOT / "docs/reference/command-line.md").read_text()
        assert f"svac-backend {command[1]}" in told, json.dumps(command)
    (placer,) = ray_pods(manifests(KUBERNETES / "overlays/ray"))["head"]["initContainers"]
    assert f"## {' '.join(placer['args'])}" in told
