from __future__ import annotations

import json
from pathlib import Path

import pytest

from svac_backend.errors import SvacError
from svac_backend.quickstart.content import (
    PromptedVideo,
    State,
    demo_clips,
    own_clip,
)
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
