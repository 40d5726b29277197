"""Scenes as files: what is read back is what was made."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.video import make_demo, write_scene

CONFIG = SceneConfig(width=128, height=96, frames=9, min_objects=3, noise=1.0)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def test_the_video_shows_the_scene_frame_by_frame(tmp_path: Path) -> None:
    scene = make_scene(4, CONFIG)
    frames = decode(write_scene(scene, tmp_path, "clip").video)
    assert frames.shape == scene.frames.shape
    assert np.abs(frames.astype(int) - scene.frames).mean() < 4


def test_the_truth_holds_the_masks_of_its_targets(tmp_path: Path) -> None:
    scene = make_scene(4, CONFIG)
    truth = json.loads(write_scene(scene, tmp_path, "clip", prompts=scene.expressions).truth.read_text())
    assert (truth["width"], truth["height"], truth["frames"], truth["fps"]) == (128, 96, 9, 12.0)
    assert [e["text"] for e in truth["expressions"]] == [e.text for e in scene.expressions]
    for data, expression in zip(truth["tracks"], scene.expressions, strict=True):
        track = Track.from_json(data)
        assert track.expression == expression.text
        assert set(track.scores) == set(range(9))
        for t, mask in enumerate(scene.masks[expression.targets[0]]):
            assert (t in track.masks) == mask.any()
            if mask.any():
                assert np.array_equal(from_coco(track.masks[t]), mask)


def test_by_default_every_object_has_one_track(tmp_path: Path) -> None:
    scene = make_scene(4, CONFIG)
    truth = json.loads(write_scene(scene, tmp_path, "clip").truth.read_text())
    named = {e.targets for e in scene.expressions}
    assert [t["object_id"] for t in truth["tracks"]] == [f"obj{n + 1}" for n in range(len(named))]


def test_an_odd_size_is_refused(tmp_path: Path) -> None:
    scene = make_scene(0, SceneConfig(width=65, height=64, frames=2))
    with pytest.raises(SvacError, match="65x64"):
        write_scene(scene, tmp_path, "odd")


def test_the_demo_has_prompts_and_truth(tmp_path: Path) -> None:
    manifest = make_demo(tmp_path, 10_000, 3, width=160, height=96, frames=6)
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest
    assert len(manifest) == 3
    for entry in manifest:
        truth = json.loads(Path(entry["truth"]).read_text())
        assert entry["prompts"] == [t["expression"] for t in truth["tracks"]]
        assert len(entry["prompts"]) >= 2
        assert decode(Path(entry["video"])).shape == (6, 96, 160, 3)
    colors = [o["color"] for o in json.loads(Path(manifest[0]["truth"]).read_text())["objects"]]
    assert set(manifest[0]["prompts"]) <= {f"the {color} object" for color in colors}


@pytest.mark.parametrize("seed", [0, 1_000_000])
def test_demo_seeds_are_kept_apart(tmp_path: Path, seed: int) -> None:
    with pytest.raises(SvacError, match="demos"):
        make_demo(tmp_path, seed, 1)


def test_a_hidden_object_has_no_mask_but_a_score(tmp_path: Path) -> None:
    scene = make_scene(4, CONFIG)
    expression = scene.expressions[0]
    scene.masks[expression.targets[0], 5] = False
    truth = json.loads(write_scene(scene, tmp_path, "clip", prompts=[expression]).truth.read_text())
    track = Track.from_json(truth["tracks"][0])
    assert 5 not in track.masks
    assert (track.scores[5], track.scores[4]) == (0.0, 1.0)
