"""Payloads: round trips and keys."""

from __future__ import annotations

import json
from dataclasses import replace

from svac_backend.jobs.payloads import FramesPayload, PrelabelPayload, PropagatePayload, describe
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.tracks import CocoRle, ObjectPrompt

PRELABEL = PrelabelPayload(
    project_id="38",
    task_id="7",
    task_data={"video": "/data/upload/v.mp4?token=secret", "fps": 25},
    prompts=(ObjectPrompt("obj1", "dog", "the dog"), ObjectPrompt("obj2", "cat", "the cat")),
    label_config="<View/>",
    hostname="http://ls",
    video_url="/data/upload/v.mp4",
    push=True,
)
PROPAGATE = PropagatePayload(
    project_id="38",
    task_id="7",
    task_data={"video": "/data/upload/v.mp4?token=secret", "fps": 25},
    label_config="<View/>",
    hostname="http://ls",
    video_url="/data/upload/v.mp4",
    objects=(ObjectPrompt("obj1", "dog", "the dog"),),
    hints={
        "obj1": {
            3: FrameHint(clicks=(Click(1.5, 2.0), Click(3.0, 4.0, positive=False)), box=(0.0, 1.0, 2.0, 3.0)),
            0: FrameHint(mask=CocoRle(size=[2, 4], counts="0`0")),
        }
    },
    size=(64, 48),
    frames=(0, 10),
)
FRAMES = FramesPayload("38", "7", {"video": "v"}, "<View/>", "http://ls", "v")


def test_round_trip_through_json() -> None:
    assert PrelabelPayload.from_json(json.loads(json.dumps(PRELABEL.to_json()))) == PRELABEL
    assert PropagatePayload.from_json(json.loads(json.dumps(PROPAGATE.to_json()))) == PROPAGATE
    event = PropagatePayload(**{**vars(FRAMES), "event": 9})
    assert PropagatePayload.from_json(json.loads(json.dumps(event.to_json()))) == event
    assert FramesPayload.from_json(json.loads(json.dumps(FRAMES.to_json()))) == FRAMES


def test_job_key_tells_other_work_apart() -> None:
    others = [
        replace(PRELABEL, push=False),
        replace(PRELABEL, task_id="8"),
        replace(PRELABEL, project_id="39"),
        replace(PRELABEL, video_url="/data/upload/w.mp4"),
        replace(PRELABEL, prompts=PRELABEL.prompts[:1]),
    ]
    keys = {payload.job_key("v1") for payload in [PRELABEL, *others]} | {PRELABEL.job_key("v2")}
    assert len(keys) == 7
    assert replace(PRELABEL, label_config="<View></View>").job_key("v1") == PRELABEL.job_key("v1")
    assert FRAMES.job_key() != PRELABEL.job_key("v1")


def test_a_job_of_an_earlier_version_is_read() -> None:
    assert PrelabelPayload.from_json({**PRELABEL.to_json(), "snapshot": None, "corrected": {}}) == PRELABEL
    # It was to send an annotator's draft to the task.
    drafted = PrelabelPayload.from_json({**PRELABEL.to_json(), "snapshot": 3, "corrected": {}})
    assert drafted == replace(PRELABEL, push=False)
    older = {**PROPAGATE.to_json(), "push": True, "snapshot": 4}
    assert PropagatePayload.from_json(older) == PROPAGATE


def test_a_propagation_is_known_by_what_was_shown() -> None:
    same = [
        replace(PROPAGATE, task_id="8", task_data={}, label_config="<View></View>"),
        replace(PROPAGATE, hints={"obj1": dict(reversed(PROPAGATE.hints["obj1"].items()))}),
    ]
    assert {payload.cache_key("v") for payload in same} == {PROPAGATE.cache_key("v")}
    others = [
        replace(PROPAGATE, hints={"obj1": {3: PROPAGATE.hints["obj1"][3]}}),
        replace(PROPAGATE, objects=(ObjectPrompt("obj1", "cat", "the dog"),)),
        replace(PROPAGATE, frames=None),
        replace(PROPAGATE, size=(32, 24)),
        replace(PROPAGATE, video_url="/data/upload/w.mp4"),
    ]
    assert len({payload.cache_key("v") for payload in [PROPAGATE, *others]} | {PROPAGATE.cache_key("w")}) == 7
    keys = {payload.job_key("v") for payload in (PROPAGATE, same[0], replace(PROPAGATE, event=5))}
    assert len(keys) == 3
    assert all(len(key) <= 200 for key in keys)


def test_what_people_see_has_no_task_data() -> None:
    seen = describe(PRELABEL.to_json())
    assert seen["project_id"] == "38"
    assert seen["task_id"] == "7"
    assert seen["prompts"][0] == {"label": "dog", "expression": "the dog"}
    assert "secret" not in json.dumps(seen)
    assert describe(PROPAGATE.to_json())["prompts"] == [{"label": "dog", "expression": "the dog"}]
    assert describe({}) == {"project_id": None, "task_id": None, "prompts": []}
