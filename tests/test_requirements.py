"""The requirement files, and the installation order that scripts/setup.sh draws from them."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])


def requirements(name: str) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_installed_versions_meet_the_requirements(name: str) -> None:
    wrong = []
    for requirement in requirements(name):
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = None
        if installed is None or not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement}: {installed}")
    assert wrong == []


def test_setup_finds_torch_and_sam2_pinned() -> None:
    """setup.sh and the Dockerfile read these two pins by their `name==version` at the start of a line."""
    text = (ROOT / "requirements.txt").read_text()
    assert len(re.findall(r"^torch==\S+$", text, re.MULTILINE)) == 1
    assert len(re.findall(r"^sam2==\S+$", text, re.MULTILINE)) == 1


def test_set_up_looks_for_the_pythons_that_the_package_allows() -> None:
    found = re.search(r'^requires-python = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    allowed = SpecifierSet(found[1])
    minors = [minor for minor in range(8, 20) if allowed.contains(f"3.{minor}.1")]
    low, high = minors[0], minors[-1]
    setup = (ROOT / "scripts" / "setup.sh").read_text()
    assert f"(3, {low}) <= sys.version_info < (3, {high + 1})" in setup
    assert f"3.{low} to 3.{high}" in setup
    assert f"Python 3.{low} to 3.{high}" in (ROOT / "README.md").read_text()


def test_label_studio_is_pinned_apart() -> None:
    (only,) = requirements("requirements-label-studio.txt")
    assert str(only.specifier).startswith("==")
    assert "label-studio" not in {requirement.name for requirement in requirements("requirements.txt")}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["setup.sh", "test.sh", "quickstart.sh"])
def test_scripts_refuse_an_unknown_option(script: str) -> None:
    command = [str(ROOT / "scripts" / script), "--no-such-option"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "--no-such-option" in done.stderr
