"""Write the settings into README.md and .env.example; a test checks that both are true."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from svac_backend.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- settings: written by scripts/update_docs.py -->", "<!-- end of settings -->"
ENV_BEGIN, ENV_END = (
    "# --- settings of the backend: written by scripts/update_docs.py ---",
    "# --- end of settings ---",
)


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
    """Return each file that holds settings with the text that it should have."""
    readme, env = ROOT / "README.md", ROOT / ".env.example"
    return {
        readme: replaced(readme.read_text(), BEGIN, END, settings_table()),
        env: replaced(env.read_text(), ENV_BEGIN, ENV_END, settings_env()),
    }


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
        print(f"wrote {path.name}")
