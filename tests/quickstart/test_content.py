from __future__ import annotations

import json
from pathlib import Path

import pytest

from svac_backend.cli.inputs import check_prompts
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.quickstart.content import (
    PromptedVideo,
    State,
    demo_clips,
    labelled,
    own_clip,
    project_config,
)
from svac_backend.settings import Settings
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import make_demo


def test_state_survives(tmp_path: Path) -> None:
    state = State.load(tmp_path / "state.json")
    assert state.projects == {}
    clip = PromptedVideo(tmp_path / "a.mp4", ("the red object",))
    state.projects["demo"] = 4
    state.tasks["demo"] = {clip.key: 17}
    state.save()
    again = State.load(tmp_path / "state.json")
    assert (again.projects, again.tasks) == ({"demo": 4}, {"demo": {clip.key: 17}})
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_another_prompt_is_another_task(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    keys = {PromptedVideo(video, prompts).key for prompts in (("a",), ("b",), ("a", "b"), ("ab",))}
    assert len(keys) == 4


def test_demo_clips_are_made_once(tmp_path: Path) -> None:
    make_demo(tmp_path, DEMO_SEEDS.start, 1, width=128, height=96, frames=4)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    (clip,) = demo_clips(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert clip.video.is_file()
    assert clip.truth is not None
    truth = json.loads(clip.truth.read_text())
    assert list(clip.prompts) == [track["expression"] for track in truth["tracks"]]


def test_own_clip_needs_a_file_and_a_prompt(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    with pytest.raises(SvacError, match="There is no file"):
        own_clip(video, ["the dog"])
    video.touch()
    with pytest.raises(SvacError, match="There is no prompt"):
        own_clip(video, [" "])
    assert own_clip(video, ["the dog", "the cat"]).prompts == ("the dog", "the cat")


@pytest.mark.parametrize("kind", ["brush", "polygon"])
def test_each_object_gets_a_label_of_its_own(kind: str) -> None:
    prompts = labelled(["the red object", "the blue object", "car: the car", "the dog"])
    assert prompts == ["the red object", "object 2: the blue object", "car: the car", "object 4: the dog"]
    config = parse_config(project_config(kind, ["object 2", "car", "object 4"]))
    assert list(config.mask_control(kind).labels) == ["object", "object 2", "car", "object 4"]
    objects = check_prompts(prompts, config, Settings())
    assert [(o.label, o.expression) for o in objects] == [
        ("object", "the red object"),
        ("object 2", "the blue object"),
        ("car", "the car"),
        ("object 4", "the dog"),
    ]


def test_labels_with_marks_are_written_as_xml() -> None:
    config = parse_config(project_config("brush", ['a "b" & <c>']))
    assert list(config.mask_control().labels) == ["object", 'a "b" & <c>']
