"""The systemd units: valid by systemd's own check, with commands and settings that exist."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from svac_backend.cli.app import main
from svac_backend.settings import Settings

UNITS = sorted((Path(__file__).resolve().parent.parent / "scripts" / "systemd").glob("*.service"))


def values(unit: Path, key: str) -> list[str]:
    lines = [line for line in unit.read_text().splitlines() if line.startswith(f"{key}=")]
    return [line.partition("=")[2] for line in lines]


def test_there_is_one_for_each_process() -> None:
    assert [unit.stem for unit in UNITS] == ["svac-backend-serve", "svac-backend-worker"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_commands_settings_and_exit_status_are_ours(unit: Path) -> None:
    (command,) = values(unit, "ExecStart")
    program, name = command.split()
    assert program.endswith("/bin/svac-backend")
    assert name in typer.main.get_command(main).commands  # type: ignore[attr-defined]
    assert unit.stem.endswith(name)
    variables = [pair.partition("=")[0] for value in values(unit, "Environment") for pair in value.split()]
    known = {f"SVAC_{field}".upper() for field in Settings.model_fields}
    assert [name for name in variables if name.startswith("SVAC_") and name not in known] == []
    assert values(unit, "RestartPreventExitStatus") == ["78"]
    assert values(unit, "UMask") == ["0077"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_them(unit: Path, tmp_path: Path) -> None:
    """With a program that exists in place of the one that is installed there."""
    (command,) = values(unit, "ExecStart")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(command.split()[0], "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
