"""Label Studio takes every shipped labelling config, also with labels of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from svac_backend.cli.inputs import CONFIGS, shipped_config
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer

FILES = sorted((Path(__file__).parents[2] / "labelstudio_config").glob("*.xml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_label_studio_takes_the_file(label_studio: LabelStudioServer, path: Path) -> None:
    client, xml = label_studio.client(), path.read_text()
    project = client.create_project(f"config {path.stem}", xml)
    kept = client.get_project(project)["label_config"]
    client.delete_project(project)
    assert parse_config(kept) == parse_config(xml)


@pytest.mark.parametrize("kind", CONFIGS)
def test_label_studio_takes_it_with_further_labels(label_studio: LabelStudioServer, kind: str) -> None:
    client, xml = label_studio.client(), shipped_config(["car", 'the "second" <dog> & cat'], kind=kind)
    project = client.create_project(f"config {kind}", xml)
    kept = client.get_project(project)
    client.delete_project(project)
    assert parse_config(kept["label_config"]) == parse_config(xml)
    assert set(kept["control_weights"]) >= {"mask", "prompt"}
