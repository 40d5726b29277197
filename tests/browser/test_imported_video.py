"""The main job end to end: `svac-backend import` with the embedded model, looked at in the editor and submitted."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svac_backend.labelstudio.tasks import local_files_path
from svac_backend.masks.rle import from_coco
from svac_backend.quickstart.check import read_truth
from svac_backend.quickstart.content import PromptedVideo
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import make_demo
from tests.browser.editor import Editor
from tests.browser.looking import OPACITY, amount_when_drawn, assert_same_regions, assert_whole_frame_is_seen
from tests.browser.tasks import CONFIGS, api

FRAMES, MIDDLE = 24, 12


@dataclass(frozen=True)
class Imported:
    """A task that the command line made, and what it was made from."""

    project: int
    task: dict[str, Any]
    prediction: dict[str, Any]
    clip: PromptedVideo


@pytest.fixture(scope="module", params=["brush", "polygon"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def imported(label_studio: Any, kind: str, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    folder = tmp_path_factory.mktemp(f"import-{kind}")
    (entry,) = make_demo(folder, DEMO_SEEDS.start + 50, 1, frames=FRAMES)
    clip = PromptedVideo(Path(entry["video"]), tuple(entry["prompts"][:1]), Path(entry["truth"]))
    title = f"imported {kind}"
    command = [str(Path(sys.executable).with_name("svac-backend")), "import", "--create", title]
    command += ["--config", str(CONFIGS / f"{kind}_frames.xml"), "--prompt", clip.prompts[0], str(clip.video)]
    env = {
        **os.environ,
        "SVAC_DATA_DIR": str(folder / "data"),
        "SVAC_LABEL_STUDIO_URL": label_studio.url,
        "SVAC_LABEL_STUDIO_API_KEY": label_studio.token,
        "SVAC_LABEL_STUDIO_FILES_ROOT": str(label_studio.files_root),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, env=env, cwd=folder, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    with api(label_studio) as client:
        projects = (
            client.get("/api/projects/", params={"page_size": 1000}).raise_for_status().json()["results"]
        )
        project = next(int(p["id"]) for p in projects if p["title"] == title)
        (listed,) = client.get("/api/tasks", params={"project": project}).raise_for_status().json()["tasks"]
        # Unresolved, as the addresses stand in the task's data.
        query = {"resolve_uri": "false"}
        task = client.get(f"/api/tasks/{listed['id']}/", params=query).raise_for_status().json()
        (prediction,) = task["predictions"]
    return Imported(project, task, prediction, clip)


def test_mask_of_a_sentence_is_seen_on_its_object_and_submitted(
    editor: Editor, label_studio: Any, kind: str, imported: Imported
) -> None:
    assert imported.clip.truth is not None
    (track, *_), frames = read_truth(imported.clip.truth)
    results = imported.prediction["result"]
    assert len(imported.task["data"]["frames"]) == frames
    assert {region["item_index"] for region in results} >= set(range(2, frames - 2))

    editor.open_task(imported.project, imported.task["id"])
    assert_whole_frame_is_seen(editor)
    editor.go_to_frame(MIDDLE)
    assert_whole_frame_is_seen(editor)
    relative = local_files_path(imported.task["data"]["frames"][MIDDLE])
    assert relative is not None
    frame = np.asarray(Image.open(Path(label_studio.files_root) / relative))
    truth = from_coco(track.masks[MIDDLE])
    amount = amount_when_drawn(editor, frame, truth, OPACITY[kind])
    editor.screenshot(f"imported_{kind}")
    seen = amount > OPACITY[kind] / 2
    assert (seen & truth).sum() / (seen | truth).sum() > 0.6

    sent, answer = editor.submit()
    with api(label_studio) as client:
        stored = client.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    assert stored["result"] == sent["result"]
    assert_same_regions(stored["result"], results, kind)
