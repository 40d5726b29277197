"""The demo of things that move: what it asks for is in the scene, with the emoji font and without."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lab.rich_demo import SCENES, STARTS, WANTED, make_rich_demo, next_scene, prompts_of

from svac_backend.cli.inputs import check_prompts, shipped_config
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.masks.rle import from_coco
from svac_backend.quickstart.check import read_truth
from svac_backend.settings import Settings
from svac_backend.synthetic.rich.kinds import KINDS, font_file
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import make_rich_scene
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.video.reader import VideoReader

SMALL = replace(SCENES, width=96, height=54, frames=8)


@pytest.mark.parametrize("things", [False, True])
@pytest.mark.parametrize("start", STARTS)
def test_every_start_leads_to_a_scene(start: int, things: bool) -> None:
    if things and font_file() is None:
        pytest.skip("Noto Color Emoji is not installed")
    seed, prompts = next_scene(start, replace(SCENES, things=things))
    assert start <= seed < start + 100
    assert [prompt.kind in kinds for prompt, kinds in zip(prompts, WANTED, strict=True)] == [True] * 3
    assert len({prompt.targets for prompt in prompts}) == 3
    assert all(len(prompt.targets) == 1 for prompt in prompts)
    assert next_scene(seed, replace(SCENES, things=things)) == (seed, prompts)


def test_files_agree_with_the_scene(tmp_path: Path) -> None:
    (entry,) = make_rich_demo(tmp_path, STARTS[:1], replace(SMALL, things=False))
    assert json.loads((tmp_path / "manifest.json").read_text()) == [entry]
    truth = Path(entry["truth"])
    content = json.loads(truth.read_text())
    tracks, frames = read_truth(truth)
    assert [track.expression for track in tracks] == entry["prompts"]
    assert [kind in kinds for kind, kinds in zip(content["kinds"], WANTED, strict=True)] == [True] * 3
    with VideoReader(entry["video"]) as video:
        assert len(video) == frames == 8
        assert (video.info.width, video.info.height) == (96, 54)
    seed = content["seed"]
    scene = make_rich_scene(seed, replace(SMALL, things=False))
    assert all(KINDS[look.kind].family == "shape" for look in scene.objects)
    said = {e.text: e for e in scene.expressions}
    for track in tracks:
        shown = scene.target(said[track.expression])
        assert shown.any()
        assert [i in track.masks for i in range(8)] == shown.any(axis=(1, 2)).tolist()
        assert all((from_coco(mask) == shown[i]).all() for i, mask in track.masks.items())


@pytest.mark.parametrize("start", STARTS)
def test_the_first_prompt_has_a_mask_on_every_frame(start: int) -> None:
    config = replace(SCENES, width=128, height=72)
    seed, prompts = next_scene(start, config)
    assert make_rich_scene(seed, config).target(prompts[0]).any(axis=(1, 2)).all()


def test_prompts_fit_the_labelling_config() -> None:
    prompts = [p.text for start in STARTS for p in next_scene(start)[1]]
    config = parse_config(shipped_config())
    for start in range(0, len(prompts), 3):
        objects = check_prompts(prompts[start : start + 3], config, Settings())
        assert [o.label for o in objects] == ["object", "object 2", "object 3"]
        assert [o.expression for o in objects] == prompts[start : start + 3]


def test_prompts_are_plain_and_of_different_things() -> None:
    def said(text: str, kind: str, *targets: int) -> RichExpression:
        return RichExpression(text, kind, targets, False, "noun")

    found = prompts_of(
        [
            said("which one is red?", "color", 0),
            said("the red one in the video", "color", 0),
            said("the thing that is red", "color", 0),
            said("the red one", "color", 0),
            said("the dog", "category", 0),
            said("the cats", "category", 1, 2),
            said("the brown cow", "color_category", 1),
            said("the first to move", "order", 2),
            said("the one that moves to the left", "motion", 2),
        ]
    )
    assert [e.text for e in found] == ["the red one", "the brown cow", "the one that moves to the left"]
    assert prompts_of([said("the dog", "category", 0)]) == []


def test_other_seeds_are_refused() -> None:
    with pytest.raises(SvacError, match="not kept for demos"):
        next_scene(DEMO_SEEDS.stop)


def test_scenes_are_of_training_words_and_moving() -> None:
    _, prompts = next_scene(STARTS[0])
    assert SCENES.split == "train"
    assert all(prompt.novel == () for prompt in prompts)
    scene = make_rich_scene(next_scene(STARTS[0], SMALL)[0], SMALL)
    assert np.ptp(scene.description.image_xy(), axis=1).max() > 0.1
