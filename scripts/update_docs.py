"""Write the settings and the command line into the documentation and .env.example; a test checks that they are true.

With --pictures the browser tests make the manual's pictures of the editor and the pages anew (some ten minutes).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperArgument
from typer.main import get_command

from svac_backend.cli.app import main
from svac_backend.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
ENV_BEGIN, ENV_END = (
    "# --- settings of the backend: written by scripts/update_docs.py ---",
    "# --- end of settings ---",
)
SETTINGS_PAGE = """# Settings

Each is an environment variable, or a line in `.env` in the folder where a process starts (`.env.example` has them
all). Web process, worker and command line read the same ones.

"""
COMMANDS_PAGE = """# Command line

`svac-backend COMMAND --help` prints the same. Answers (ids, paths, tables) go to standard output, with `--json` as
JSON; progress, notes and errors go to standard error. An error is one sentence on what is wrong and one on what to do.

| exit status | |
|---|---|
| 0 | done |
| 1 | an error, a check that failed, or a row of a list that is not in |
| 2 | wrong options |
| 3 | nothing, or too little, to export or to learn from yet |
| 78 | a setting that cannot be used |
"""


def variable(name: str) -> str:
    """Return the environment variable of a settings field."""
    return f"{Settings.model_config['env_prefix']}{name}".upper()


def default_text(field: FieldInfo) -> str:
    """Return a field's default as it is written in an environment file; empty when it has none."""
    value = field.default
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr):
        return ""
    return str(value)


def settings_table() -> str:
    """Return the Markdown table of all settings."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = default_text(field)
        rows.append(
            f"| `{variable(name)}` | {f'`{default}`' if default else ''} | {field.description or ''} |"
        )
    return "\n".join(rows)


def settings_env() -> str:
    """Return all settings as commented lines of an environment file."""
    lines = []
    for name, field in Settings.model_fields.items():
        if field.description:
            lines.append(f"# {field.description}")
        lines.append(f"#{variable(name)}={default_text(field)}")
    return "\n".join(lines)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command as it is typed after `svac-backend`, with typer's own description of it."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        for sub, one in getattr(command, "commands", {}).items():
            yield from below(f"{name} {sub}".strip(), one)
        if not hasattr(command, "commands") and not command.hidden:
            yield name, command

    yield from below("", get_command(main))


def command_section(name: str, command: Any) -> str:
    """Return the section of a command: usage, what it is for, its arguments and options."""
    arguments = [_shown_as(one) for one in command.params if isinstance(one, TyperArgument)]
    usage = " ".join(
        ["svac-backend", name, *arguments, *["[OPTIONS]"][: len(command.params) > len(arguments)]]
    )
    lines = [f"## {name}", "", "```", usage, "```", "", _prose(command.help or "")]
    if command.params:
        lines += ["", "| | default | |", "|---|---|---|"]
    for one in command.params:
        default = one.default
        shown = "" if default in (None, "", (), False) or callable(default) else f"`{default}`"
        needed = " Required." if one.required else ""
        lines.append(f"| {_names(one)} | {shown} | {_cell(one.help or '')}{needed} |")
    return "\n".join(lines)


def _shown_as(argument: TyperArgument) -> str:
    name = (argument.metavar or argument.name or "").upper()
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return f"`{_shown_as(parameter)}`"
    return ", ".join(f"`{text}`" for text in [*parameter.opts, *parameter.secondary_opts])


def _prose(text: str) -> str:
    return re.sub(r"[ \t]+", " ", text.replace("\b\n", "").strip())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def replaced(text: str, begin: str, end: str, body: str) -> str:
    """Return `text` with what lies between the two marks replaced by `body`.

    Raises:
        ValueError: a mark is missing.
    """
    pattern = re.compile(re.escape(begin) + r"\n.*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"The marks {begin!r} and {end!r} are missing.")
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def documents() -> dict[Path, str]:
    """Return each file that is written from the code with the text that it should have."""
    env, reference = ROOT / ".env.example", ROOT / "docs" / "reference"
    sections = [command_section(name, command) for name, command in commands()]
    return {
        env: replaced(env.read_text(), ENV_BEGIN, ENV_END, settings_env()),
        reference / "settings.md": SETTINGS_PAGE + settings_table() + "\n",
        reference / "command-line.md": "\n\n".join([COMMANDS_PAGE.strip(), *sections]) + "\n",
    }


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")
    if sys.argv[1:] == ["--pictures"]:
        tests = ["test_correcting_brush.py", "test_correcting_polygon.py", "test_correcting_prompts.py"]
        tests += ["test_notices.py", "test_pages.py"]
        run = [sys.executable, "-m", "pytest", "-q", *(f"tests/browser/{name}" for name in tests)]
        sys.exit(subprocess.run(run, cwd=ROOT, env={**os.environ, "UPDATE_DOCS": "1"}).returncode)
