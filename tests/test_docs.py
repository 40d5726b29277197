"""What the documentation says about settings, commands and files is true."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def update_docs() -> ModuleType:
    path = ROOT / "scripts" / "update_docs.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["README.md", ".env.example"])
def test_settings_are_those_of_the_class(name: str) -> None:
    documents = update_docs().documents()
    assert (ROOT / name).read_text() == documents[ROOT / name], "run .venv/bin/python scripts/update_docs.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_that_are_named_exist(document: Path) -> None:
    from svac_backend.cli.app import main

    known = {
        command.name or command.callback.__name__ for command in main.registered_commands if command.callback
    } | {group.name for group in main.registered_groups}
    named = set(re.findall(r"svac-backend ([a-z]+)", document.read_text()))
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_scripts_and_their_options_exist(document: Path) -> None:
    for script, arguments in re.findall(r"\./scripts/([\w.]+)([^`\n#|]*)", document.read_text()):
        source = (ROOT / "scripts" / script).read_text()
        unknown = [option for option in re.findall(r"(?<!\S)--[a-z-]+", arguments) if option not in source]
        assert unknown == [], f"{script} has no {unknown}"


def test_documents_are_found() -> None:
    assert len(DOCUMENTS) >= 5
