"""The page of a task: masks over frames, the worst frames first, corrections as pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray
from pydantic import SecretStr

from svac_backend.jobs.services import Services
from svac_backend.masks.render import PALETTE
from svac_backend.masks.rle import from_coco
from svac_backend.server.ui.pictures import SIDE, mask_picture
from svac_backend.server.ui.task import worst_frames
from svac_backend.synthetic.video import write_mp4
from tests.jobs.conftest import CONFIG, SmallLabelStudio
from tests.server.bodies import square
from tests.server.ui.filled import ANNOTATION, KEY, UNSURE, add_task

PAGE = "/ui/projects/38/tasks/7"


@pytest.fixture
def served(make: Callable[..., Flask]) -> tuple[FlaskClient, Services]:
    app = make(media_url="http://frames.example")
    return app.test_client(), app.extensions["svac"]


def picture(client: FlaskClient, path: str) -> NDArray[np.uint8]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    found = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return np.asarray(found, np.uint8)


def test_the_page_begins_at_the_least_certain_frame(served: tuple[FlaskClient, Services]) -> None:
    client, backend = served
    add_task(backend)
    html = client.get(PAGE).text
    at = int(re.findall(r'data-at="(\d+)"', html)[0])
    assert at in UNSURE
    assert next(int(index) for index in re.findall(r'data-go="(\d+)"', html)) == at
    assert f'src="{PAGE}/frames/{at}.jpg"' in html
    assert f'src="/ui/masks/{KEY}/{at}.png"' in html
    assert 'data-at="3"' in client.get(f"{PAGE}?frame=3").text
    assert client.get(f"{PAGE}?frame=x").status_code == 200


def test_masks_lie_where_the_objects_are(served: tuple[FlaskClient, Services]) -> None:
    client, backend = served
    scene = add_task(backend)
    frame = picture(client, f"{PAGE}/frames/4.jpg")
    assert np.abs(frame[..., ::-1].astype(int) - scene.frames[4].astype(int)).mean() < 4
    masks = picture(client, f"/ui/masks/{KEY}/4.png")
    assert masks.shape == (180, 320, 4)
    seen = masks[..., 3] > 0
    truth = scene.masks[:2, 4].any(axis=0)
    assert (seen & truth).sum() / (seen | truth).sum() > 0.85
    assert tuple(int(v) for v in masks[scene.masks[1, 4]][0][:3]) == PALETTE[1][::-1]
    alone = picture(client, f"/ui/masks/{KEY}/4.png?object=0")[..., 3] > 0
    assert (alone & scene.masks[0, 4]).sum() > 0.9 * scene.masks[0, 4].sum()


def test_a_correction_is_seen_beside_what_the_model_had(served: tuple[FlaskClient, Services]) -> None:
    client, backend = served
    scene = add_task(backend)
    html = client.get(PAGE).text
    assert "by <bdi>Ada</bdi>" in html
    assert "the two masks agree by" in html
    path = f"{PAGE}/corrections/{ANNOTATION}/obj1/15.png"
    assert path in html
    assert f"/ui/masks/{KEY}/15.png?object=0" in html
    person = picture(client, path)[..., 3] > 0
    model = picture(client, f"/ui/masks/{KEY}/15.png?object=0")[..., 3] > 0
    truth = scene.masks[0, 15]
    assert person.sum() > 1.5 * model.sum()
    assert (person & truth).sum() > 0.95 * truth.sum()
    assert client.get(f"{PAGE}/corrections/{ANNOTATION}/obj9/15.png").status_code == 404


def test_frames_come_out_of_the_video_where_none_are_cut(
    make: Callable[..., Flask], label_studio: SmallLabelStudio, tmp_path: Any
) -> None:
    app = make(
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr("a" * 40),
        label_studio_files_root=tmp_path,
    )
    client, backend = app.test_client(), app.extensions["svac"]
    scene = add_task(backend)
    backend.connections.put("38", label_studio.url, "", CONFIG)
    write_mp4(scene.frames, tmp_path / "clip.mp4", 12.0)
    label_studio.tasks[7] = {"video": "/data/local-files/?d=clip.mp4"}
    for _ in range(20):  # a page waits some seconds only, and this machine may do other work
        if client.get(f"{PAGE}/frames/20.jpg").status_code == 200:
            break
    frame = picture(client, f"{PAGE}/frames/20.jpg")
    assert np.abs(frame[..., ::-1].astype(int) - scene.frames[20].astype(int)).mean() < 8
    assert client.get(f"{PAGE}/frames/999.jpg").status_code == 503


def test_frames_that_are_nowhere_say_what_to_do(client: FlaskClient, backend: Services) -> None:
    add_task(backend)
    answer = client.get(f"{PAGE}/frames/4.jpg")
    assert answer.status_code == 503
    assert "SVAC_LABEL_STUDIO_API_KEY" in answer.text


def test_a_task_may_name_no_file_outside_the_root(
    make: Callable[..., Flask], label_studio: SmallLabelStudio, tmp_path: Any
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((8, 8, 3), np.uint8))
    app = make(
        label_studio_url=label_studio.url,
        label_studio_api_key=SecretStr("a" * 40),
        label_studio_files_root=root,
    )
    client, backend = app.test_client(), app.extensions["svac"]
    add_task(backend)
    backend.connections.put("38", label_studio.url, "", CONFIG)
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    for address in ("../secret.jpg", "link.jpg", "/etc/passwd"):
        label_studio.tasks[7] = {"frames": [f"/data/local-files/?d={address}"]}
        assert client.get(f"{PAGE}/frames/0.jpg").status_code == 503


def test_large_masks_become_small_pictures() -> None:
    mask = square(0, 0, 20, 20)
    assert mask_picture([None, None])[:4] == b"\x89PNG"
    from svac_backend.masks.rle import box_mask

    found = cv2.imdecode(
        np.frombuffer(mask_picture([box_mask(0, 0, 2000, 1000, 2160, 3840), None]), np.uint8),
        cv2.IMREAD_UNCHANGED,
    )
    assert found is not None
    assert max(found.shape) == SIDE
    assert from_coco(mask).shape == (24, 32)


def test_unknown_predictions_and_tasks(client: FlaskClient) -> None:
    for path in (PAGE, "/ui/masks/nothing/0.png", f"{PAGE}/corrections/1/obj1/0.png"):
        assert client.get(path).status_code == 404


def test_worst_frames_are_of_different_places() -> None:
    certain = dict.fromkeys(range(60), 0.9) | {20: 0.1, 21: 0.2, 22: 0.15, 40: 0.3}
    assert worst_frames(certain, 3, apart=5)[:2] == [20, 40]
    assert worst_frames({}, 3) == []
