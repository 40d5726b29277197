"""Payloads: round trips and keys."""

from __future__ import annotations

import json
from dataclasses import replace

from svac_backend.jobs.payloads import FramesPayload, PrelabelPayload, describe
from svac_backend.masks.tracks import ObjectPrompt

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
FRAMES = FramesPayload("38", "7", {"video": "v"}, "<View/>", "http://ls", "v")


def test_round_trip_through_json() -> None:
    assert PrelabelPayload.from_json(json.loads(json.dumps(PRELABEL.to_json()))) == PRELABEL
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


def test_what_people_see_has_no_task_data() -> None:
    seen = describe(PRELABEL.to_json())
    assert seen["project_id"] == "38"
    assert seen["task_id"] == "7"
    assert seen["prompts"][0] == {"label": "dog", "expression": "the dog"}
    assert "secret" not in json.dumps(seen)
    assert describe({}) == {"project_id": None, "task_id": None, "prompts": []}
