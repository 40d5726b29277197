"""An annotator's minute on a real clip, and a second annotator beside them: what each asks for, sees and is told.

The clip is one of ../shared/videos, cut short and made smaller; no frame of it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from svac_backend.labelstudio.regions.region import by_object
from svac_backend.labelstudio.tasks import build_task_data, local_files_url
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import VideoReader
from tests.browser.annotating import Annotator
from tests.browser.backend import FPS, ConnectedProject, connected_project
from tests.browser.correcting import inside, mask_regions, on_frame, region_mask
from tests.browser.pictures import OUTPUT
from tests.browser.tasks import api

VIDEO = Path(__file__).parents[2] / ".." / "shared" / "videos" / "01_dog.mp4"
FRAMES, SIZE = 12, (480, 270)
# On the first frame: the dog's flank, and a box around the person.
DOG, PERSON = (228.0, 162.0), (84.0, 78.0, 171.0, 210.0)
CORRECTED = 3
PASSWORD = "second-annotator-1"


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
    return client.create_task(project.project, build_task_data(video_url, urls, FPS, "the dog"))


@pytest.fixture
def other(browser: Browser, label_studio: Any) -> Iterator[Annotator]:
    """The editor of a second person, who signs up on Label Studio's own page."""
    email = "second@example.com"
    with httpx.Client(base_url=label_studio.url, timeout=60) as http:
        page = http.get("/user/signup/").raise_for_status().text
        (csrf,) = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[:1]
        form = {"email": email, "password": PASSWORD, "csrfmiddlewaretoken": csrf}
        http.post("/user/signup/", data=form, headers={"Referer": label_studio.url})
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    editor = Annotator(context.new_page(), label_studio.url, OUTPUT)
    editor.log_in(email, PASSWORD)
    yield editor
    context.close()
    assert editor.page_errors == []
    assert editor.console_errors == []


def noted(editor: Annotator) -> str:
    """What stands below the prompt, as it is seen on the page."""
    return " ".join(editor.notes())


def objects(editor: Annotator) -> dict[str, list[dict[str, Any]]]:
    return by_object(mask_regions(editor.results()))


# Six questions to the model on a real clip take a while on cores that other work shares.
@pytest.mark.timeout(900)
def test_an_annotators_minute_on_a_real_clip(
    editor: Annotator, other: Annotator, label_studio: Any, project: ConnectedProject, real_task: int
) -> None:
    editor.open_task(project.project, real_task)
    editor.auto_annotate()
    assert editor.page.get_by_text("the dog", exact=True).first.is_visible()  # the task's prompt

    # Prompts that are refused or have nothing to do are answered in words.
    editor.type_prompt("x" * 501)
    assert "501 characters" in noted(editor)
    assert editor.page.get_by_text("501 characters").first.is_visible()
    editor.screenshot("real_1_refused")
    editor.propagate(5, 5)
    assert "nothing to propagate" in noted(editor)

    # Two sentences, each an object; whatever a small model finds of them, it is said or shown.
    before: set[str] = set()
    for sentence in ("the dog", "the person"):
        editor.type_prompt(sentence)
        shown = set(objects(editor))
        missing = f'Nothing was found: "{sentence}"' in noted(editor)
        assert (len(shown - before), missing) in ((1, False), (0, True)), noted(editor)
        before = shown

    # A click means what lies there, a box what it encloses.
    editor.point(*DOG)
    (dog,) = [name for name, its in objects(editor).items() if _covers(its, DOG)]
    drawn = editor.draw_box(*PERSON)
    assert {region["type"] for region in drawn.context} == {"rectanglelabels"}
    found = objects(editor)
    (person,) = [name for name, its in found.items() if name != dog and _covers(its, _middle(PERSON))]
    assert {region["item_index"] for region in found[person]} > {0, CORRECTED}
    # Each is told apart by a label, and so a colour, of its own.
    labels = {name: {region["value"]["brushlabels"][0] for region in its} for name, its in found.items()}
    assert all(len(own) == 1 for own in labels.values())
    assert len({min(own) for own in labels.values()}) == len(labels)
    editor.screenshot("real_2_objects")

    # The person is corrected on one frame, and that is carried on after other tools were used.
    editor.go_to_frame(CORRECTED)
    (mask,) = (region_mask(r) for r in on_frame(found[person], CORRECTED))
    x, y = inside(mask)
    editor.select(x, y)
    editor.press("e")
    editor.drag([(x, y), (x + 14, y), (x + 14, y + 14)])
    (corrected,) = on_frame(objects(editor)[person], CORRECTED)
    assert region_mask(corrected).sum() < mask.sum()
    editor.press("h")  # the hand, in whose hold no click makes anything
    editor.propagate(5, 5)
    after = objects(editor)
    assert on_frame(after[person], CORRECTED) == [corrected]
    ids = {region["id"] for region in found[person]} & {region["id"] for region in after[person]}
    assert ids == {corrected["id"]}
    assert after[dog] == found[dog]
    editor.screenshot("real_3_propagated")

    # Beside them another person opens the task: what the first asked for is not there.
    other.open_task(project.project, real_task)
    other.auto_annotate()
    assert objects(other) == {}
    other.point(*DOG)
    ((theirs, _),) = objects(other).items()
    assert theirs not in after
    assert objects(editor) == after

    # The person leaves all frames, also the one that was drawn by hand.
    editor.remove(*inside(region_mask(corrected)))
    assert set(objects(editor)) == set(after) - {person}
    editor.screenshot("real_4_removed")
    sent, answer = editor.submit()
    with api(label_studio) as http:
        stored = http.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    assert stored["result"] == sent["result"]
    assert set(by_object(stored["result"])) == set(after) - {person}

    # Their own sentence finds the same dog, or says the same, in an annotation that has nothing of the first one's.
    other.type_prompt("the dog")
    missing = "Nothing was found" in noted(other)
    assert len(objects(other)) == (1 if missing else 2), noted(other)
    other.screenshot("real_5_the_other")
    if not missing:
        (name,) = set(objects(other)) - {theirs}
        region = on_frame(objects(other)[name], 0)[0]
        assert region["meta"] == {"text": ["the dog"]}
    sent, _ = other.submit()
    assert set(by_object(sent["result"])) == set(objects(other)) or missing


def _covers(regions: list[dict[str, Any]], point: tuple[float, float]) -> bool:
    """Whether the masks of the first frame cover a point."""
    masks = [region_mask(region) for region in on_frame(regions, 0)]
    return any(mask[int(point[1]), int(point[0])] for mask in masks)


def _middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2 - 6, (box[1] + box[3]) / 2 - 6
