"""What an annotator is told in the editor: a refused prompt, nothing to propagate, nothing found, no worker.

The clip is one of ../shared/videos, cut short and made smaller; no frame of it is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from svac_backend.labelstudio.regions.region import by_object
from svac_backend.labelstudio.tasks import build_task_data, local_files_url
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import VideoReader
from tests.browser.annotating import Annotator
from tests.browser.backend import FPS, Clip, ConnectedProject, connected_project, running_backend
from tests.browser.correcting import mask_regions
from tests.browser.tasks import api

VIDEO = Path(__file__).parents[2] / ".." / "shared" / "videos" / "01_dog.mp4"
FRAMES, SIZE = 16, (480, 270)


def noted(editor: Annotator) -> str:
    """What stands below the prompt, as it is seen on the page."""
    return " ".join(editor.notes())


@pytest.fixture(scope="module")
def project(label_studio: Any, backend: str) -> ConnectedProject:
    return connected_project(label_studio, backend, "brush")


@pytest.fixture(scope="module")
def real_task(label_studio: Any, project: ConnectedProject) -> int:
    if not VIDEO.exists():
        pytest.skip(f"the real clip {VIDEO.name} of ../shared/videos is absent")
    folder = label_studio.files_root / "real"
    folder.mkdir(parents=True, exist_ok=True)
    with VideoReader(VIDEO) as video:
        frames = [cv2.resize(video.frame(i), SIZE, interpolation=cv2.INTER_AREA) for i in range(FRAMES)]
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=90)
    write_mp4(np.stack(frames), folder / "clip.mp4", FPS)
    client = label_studio.client()
    client.allow_local_files(project.project, str(folder))
    urls = [local_files_url(path, label_studio.files_root) for path in sorted(folder.glob("*.jpg"))]
    video_url = local_files_url(folder / "clip.mp4", label_studio.files_root)
    return client.create_task(project.project, build_task_data(video_url, urls, FPS))


# Two sentences on a real clip take a while on cores that other work shares.
@pytest.mark.timeout(900)
def test_what_goes_wrong_on_a_real_clip_is_said_in_the_editor(
    editor: Annotator, label_studio: Any, project: ConnectedProject, real_task: int
) -> None:
    editor.open_task(project.project, real_task)
    editor.auto_annotate()

    # Prompts that are refused or have nothing to do are answered in words.
    editor.type_prompt("x" * 501)
    assert "501 characters" in noted(editor)
    assert editor.page.get_by_text("501 characters").first.is_visible()
    editor.screenshot("notices_1_refused")
    editor.propagate(5, 5)
    assert "nothing to propagate" in noted(editor)

    # Two sentences, each an object; whatever a small model finds of them, it is said or shown.
    before: set[str] = set()
    for sentence in ("the dog", "the person"):
        editor.type_prompt(sentence)
        shown = set(by_object(mask_regions(editor.results())))
        missing = f'Nothing was found: "{sentence}"' in noted(editor)
        assert (len(shown - before), missing) in ((1, False), (0, True)), noted(editor)
        before = shown
    editor.screenshot("notices_2_sentences")

    sent, answer = editor.submit()
    with api(label_studio) as http:
        stored = http.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    assert stored["result"] == sent["result"]


def test_without_a_worker_the_editor_says_so_at_once(
    editor: Annotator, label_studio: Any, clip: Clip, tmp_path: Path
) -> None:
    with running_backend(label_studio, tmp_path, tmp_path, commands=("serve",)) as url:
        lonely = connected_project(label_studio, url, "polygon")
        editor.open_task(lonely.project, lonely.add_task(clip, clip.prompts[0]))
        editor.auto_annotate()
        asked = editor.type_prompt(clip.prompts[1])
        assert "No worker is running" in noted(editor)
        assert asked.answered_s < 10
        editor.screenshot("notices_3_no_worker")
