"""The editor shows frames that the backend serves itself, from another origin, and submits the masks on them."""

from __future__ import annotations

from typing import Any

import numpy as np
from lab.label_studio import upload_file

from tests.browser.editor import Editor
from tests.jobs.conftest import HEIGHT, WIDTH
from tests.server.conftest import settings
from tests.server.test_media_with_label_studio import Connected, connected

__all__ = ["connected", "settings"]


def test_frames_of_our_own_media_are_shown_and_annotated(editor: Editor, connected: Connected) -> None:
    client = connected.client
    video = upload_file(client, connected.project, connected.clip)
    task = client.create_task(connected.project, {"video": video, "prompt": "the square"})
    connected.predict()
    loaded: list[Any] = []
    editor.page.on("response", lambda answer: loaded.append(answer) if "/media/" in answer.url else None)
    editor.open_task(connected.project, task)
    editor.go_to_frame(4)
    editor.wait_for_frame(4)
    picture = editor.frame_picture(WIDTH, HEIGHT)
    editor.screenshot("own_media")
    # The clip's frame 4 is of one grey; its masks are on odd frames.
    assert abs(float(np.median(picture)) - 80) < 8
    assert {(answer.status, answer.headers["access-control-allow-origin"]) for answer in loaded} == {
        (200, client.url)
    }
    sent, _ = editor.submit()
    assert {region["item_index"] for region in sent["result"]} == {1, 3, 5, 7, 9, 11}
