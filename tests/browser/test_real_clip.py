"""An annotator's minute on a real clip, and a second annotator beside them: what each asks for, sees and is told.

The clip is one of ../shared/videos, cut short and made smaller; no frame of it is kept. What is asked is what the
embedded model finds there: the test is about the editor, and every answer must be one.
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
FRAMES, SIZE = 8, (480, 270)
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


# Seven questions to the model on a real clip take a while on cores that other work shares.
@pytest.mark.timeout(900)
def test_an_annotators_minute_on_a_real_clip(
    editor: Annotator, other: Annotator, label_studio: Any, project: ConnectedProject, real_task: int
) -> None:
    editor.open_task(project.project, real_task)
    editor.auto_annotate()
    assert editor.page.get_by_text("the dog", exact=True).first.is_visible()  # the task's prompt

    # Prompts that are refused or have nothing to do are answered in words.
    editor.type_prompt("the dog that jumps over the fence " * 15)
    assert "characters, more than 500" in noted(editor)
    assert editor.page.get_by_text("characters, more than 500").first.is_visible()
    editor.screenshot("real_1_refused")
    editor.propagate(5, 5)
    assert "nothing to propagate" in noted(editor)

    # Two sentences, each an object.
    editor.type_prompt("the dog")
    ((dog, flank),) = objects(editor).items()
    assert covers(flank, DOG)
    assert noted(editor) == ""
    editor.type_prompt("the person")
    (person,) = set(objects(editor)) - {dog}
    assert covers(objects(editor)[person], middle(PERSON))

    # A click on a mask means its object, a box what it encloses; neither is another object.
    editor.point(*DOG)
    clicked = objects(editor)
    assert set(clicked) == {dog, person}
    assert covers(clicked[dog], DOG)
    assert {one["id"] for one in clicked[dog]}.isdisjoint(one["id"] for one in flank)
    drawn = editor.draw_box(*PERSON)
    assert {region["type"] for region in drawn.context} == {"rectanglelabels"}
    found = objects(editor)
    assert set(found) == {dog, person}
    assert covers(found[person], middle(PERSON))
    assert found[dog] == clicked[dog]
    assert {region["item_index"] for region in found[person]} == set(range(FRAMES))
    # Each is told apart by a label, and so a colour, of its own.
    labels = {name: {region["value"]["brushlabels"][0] for region in its} for name, its in found.items()}
    assert labels == {dog: {"object"}, person: {"object 2"}}
    editor.screenshot("real_2_objects")

    # The person is corrected on one frame, and that is carried on after another tool was used.
    editor.go_to_frame(CORRECTED)
    (mask,) = (region_mask(r) for r in on_frame(found[person], CORRECTED))
    x, y = inside(mask)
    editor.select(x, y)
    editor.press("e")
    editor.drag([(x, y), (x + 14, y), (x + 14, y + 14)])
    (corrected,) = on_frame(objects(editor)[person], CORRECTED)
    assert region_mask(corrected).sum() < mask.sum()
    editor.press("h")  # the hand, in whose hold no click makes anything
    editor.propagate(x, y)
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
    assert set(objects(editor)) == {dog}
    editor.screenshot("real_4_removed")
    sent, answer = editor.submit()
    with api(label_studio) as http:
        stored = http.get(f"/api/annotations/{answer['id']}/").raise_for_status().json()
    assert stored["result"] == sent["result"]
    assert set(by_object(stored["result"])) == {dog}

    # Their own sentence finds the same dog, in an annotation that has nothing of the first one's corrections.
    other.type_prompt("the dog")
    assert set(objects(other)) == {theirs, dog}
    assert objects(other)[dog][0]["meta"] == {"text": ["the dog"]}
    other.screenshot("real_5_the_other")
    sent, _ = other.submit()
    assert set(by_object(sent["result"])) == {theirs, dog}


def covers(regions: list[dict[str, Any]], point: tuple[float, float]) -> bool:
    """Whether the masks of the first frame cover a point, x and y."""
    masks = [region_mask(region) for region in on_frame(regions, 0)]
    return any(mask[int(point[1]), int(point[0])] for mask in masks)


def middle(box: tuple[float, float, float, float]) -> tuple[float, float]:
    """A point of the person, whose back leaves the middle of the box to the right."""
    return (box[0] + box[2]) / 2 - 6, (box[1] + box[3]) / 2 - 6
