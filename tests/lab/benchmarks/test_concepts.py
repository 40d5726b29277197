"""The concept: its mask is where its colours are, it is new to the generator, and its clips follow from the seed."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path

import numpy as np
import pytest
from lab.benchmarks.concepts import CLIPS, ZORBO, Concept, make_concept_clip, outline

from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.shapes import SHAPES
from svac_backend.synthetic.video import write_scene


def test_the_same_seed_gives_the_same_clip() -> None:
    first, again, other = make_concept_clip(7), make_concept_clip(7), make_concept_clip(8)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.masks, again.masks)
    assert not np.array_equal(first.frames, other.frames)


def test_the_name_and_the_look_are_new() -> None:
    scenes = [make_scene(seed, indices=()) for seed in range(60)]
    assert ZORBO.name not in {word for scene in scenes for e in scene.expressions for word in e.text.split()}
    assert ZORBO.name not in SHAPES
    assert len(outline(3)) == 72
    x, y = outline(3).T
    assert abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2) == pytest.approx(np.pi)


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_where_its_two_colours_are(seed: int) -> None:
    clip = make_concept_clip(seed)
    mask = clip.masks[-1]
    assert mask.any(axis=(1, 2)).all()
    for picture, inside in zip(clip.frames[::7], mask[::7], strict=True):
        hues = np.array([360 * colorsys.rgb_to_hsv(*(p / 255))[0] for p in picture[inside]])
        shares = [np.mean(np.abs(hues - hue) < 25) for hue in ZORBO.hues]
        assert min(shares) > 0.2
        assert sum(shares) > 0.7
    assert not (mask & clip.masks[:-1].any(axis=0)).any()


def test_the_others_are_the_scenes_own() -> None:
    clip, scene = make_concept_clip(3), make_scene(3, CLIPS)
    assert clip.objects[:-1] == scene.objects
    free = ~clip.masks[-1]
    assert np.array_equal(clip.masks[:-1], scene.masks & free)
    assert clip.expressions[0].text == "the zorbo"
    assert clip.expressions[0].targets == (len(scene.objects),)
    assert {e.kind for e in clip.expressions[1:]} <= {"color", "shape", "color_shape"}


def test_it_can_be_written_as_a_video_with_its_truth(tmp_path: Path) -> None:
    clip = make_concept_clip(11, SceneConfig(width=96, height=64, frames=6, min_objects=2))
    paths = write_scene(clip, tmp_path, "zorbo-11", prompts=clip.expressions[:1])
    truth = json.loads(paths.truth.read_text())
    assert [t["expression"] for t in truth["tracks"]] == ["the zorbo"]
    assert set(truth["tracks"][0]["masks"]) == {str(i) for i in range(6)}
    other = make_concept_clip(11, concept=Concept("blick", (180.0, 20.0), 5))
    assert other.expressions[0].text == "the blick"
