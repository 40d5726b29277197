"""What makes it a project that others can join: forms, hooks, the workflow, the way to add things."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import svac_backend

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", [".github/workflows/ci.yml"]),
        ("vendor.github-issue-forms", [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/wish.yml"]),
        ("vendor.github-issue-config", [".github/ISSUE_TEMPLATE/config.yml"]),
    ],
)
def test_github_files_follow_their_schemas(schema: str, files: list[str]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_what_people_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    supported = re.search(r'requires-python = ">=3.(\d+),<3.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert supported is not None
    versions = [f"3.{minor}" for minor in range(int(supported[1]), int(supported[2]))]
    assert workflow["jobs"]["unit"]["strategy"]["matrix"]["python"] == versions
    commands = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    assert any(command.endswith("./scripts/test.sh") for command in commands)
    assert any(command.endswith("./scripts/test.sh --unit --slow") for command in commands)


def test_hooks_use_tools_that_setup_installs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    installed = (ROOT / "requirements-dev.txt").read_text()
    for hook in hooks:
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert tool == "python" or re.search(rf"^{tool}\b", installed, re.MULTILINE), tool


def test_what_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    places = re.findall(
        r"`((?:svac_backend|tests|scripts|docs)/[\w/.-]+)`(?:\s*\(((?:`\w+`(?:, )?)+)\))?", text
    )
    assert len(places) > 15
    for place, names in places:
        path = ROOT / place
        assert path.exists(), place
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", path.read_text()), f"{place} has no {name}"


def test_the_version_stands_in_one_place() -> None:
    assert svac_backend.__version__ not in (ROOT / "pyproject.toml").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{svac_backend.__version__}]" in changes
