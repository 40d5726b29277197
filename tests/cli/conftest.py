"""Settings of the commands' tests: nothing from the environment, and a stand-in for a model's files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from svac_backend.settings import Settings

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with a model's files, which have a version but can't be loaded."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"preset": "standin"}))
    (folder / "model.safetensors").write_bytes(b"no weights, but they have a hash")
    return folder


@pytest.fixture
def settings(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Everything is as it should be, but that no Label Studio runs."""
    for name in [name for name in os.environ if name.startswith("SVAC_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "files"
    root.mkdir()
    return Settings(
        _env_file=None,
        model=str(weights),
        data_dir=tmp_path / "data",
        label_studio_url=NOBODY,
        label_studio_api_key=SecretStr("c" * 40),
        label_studio_files_root=root,
    )
