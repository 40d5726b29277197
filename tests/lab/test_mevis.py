"""The generator's benchmark holds what the scenes hold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from lab.mevis import write_mevis

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import open_truth
from svac_backend.masks.rle import from_coco
from svac_backend.synthetic.rich.phrases import GROUPS
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.synthetic.scene import SceneConfig, make_scene

CONFIG = SceneConfig(width=80, height=64, frames=5)


def test_frames_expressions_and_masks(tmp_path: Path) -> None:
    folder = write_mevis(tmp_path / "valid_u", [3, 5], CONFIG)
    videos = json.loads((folder / "meta_expressions.json").read_text())["videos"]
    masks = json.loads((folder / "mask_dict.json").read_text())
    assert list(videos) == ["scene-0000003", "scene-0000005"]
    used = set()
    for seed, (name, video) in zip([3, 5], videos.items(), strict=True):
        scene = make_scene(seed, CONFIG)
        assert [e["exp"] for e in video["expressions"].values()] == [e.text for e in scene.expressions]
        assert [e["kind"] for e in video["expressions"].values()] == [e.kind for e in scene.expressions]
        for i, frame in enumerate(video["frames"]):
            picture = cv2.imread(str(folder / "JPEGImages" / name / f"{frame}.jpg"))
            assert np.abs(picture[..., ::-1].astype(int) - scene.frames[i]).mean() < 6
        for entry, expression in zip(video["expressions"].values(), scene.expressions, strict=True):
            (anno_id,) = entry["anno_id"]
            used.add(anno_id)
            for rle, mask in zip(masks[str(anno_id)], scene.masks[expression.targets[0]], strict=True):
                assert (rle is None) == (not mask.any())
                assert rle is None or np.array_equal(from_coco(rle), mask)
    assert used <= set(map(int, masks))


def test_few_expressions(tmp_path: Path) -> None:
    write_mevis(tmp_path, [3], CONFIG, expressions=2)
    videos = json.loads((tmp_path / "meta_expressions.json").read_text())["videos"]
    assert list(videos["scene-0000003"]["expressions"]) == ["0", "1"]


def test_seeds_that_make_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="no seed"):
        write_mevis(tmp_path, [], CONFIG)
    with pytest.raises(SvacError, match="given twice"):
        write_mevis(tmp_path, [3, 3], CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(SvacError, match="cannot be written"):
        write_mevis(tmp_path / "file", [3], CONFIG)


RICH = RichConfig(width=80, height=64, frames=8, split="validation", things=False)


def test_a_rich_split_is_balanced_and_read_by_evaluate(tmp_path: Path) -> None:
    write_mevis(tmp_path / "mevis" / "valid_u", range(30), RICH, expressions=8, level="rich")
    benchmark = open_benchmark("mevis", tmp_path)
    truth = open_truth(benchmark)
    assert truth is not None
    kinds = Counter(e.type for video in benchmark.videos for e in video.expressions)
    assert set(kinds) == set(GROUPS)
    assert max(kinds.values()) <= 2.5 * sorted(kinds.values())[3]  # a few are rare in so few scenes
    for seed, video in list(zip(range(30), benchmark.videos, strict=True))[:4]:
        scene = make_rich_scene(seed, RICH)
        by_text = {e.text: e for e in scene.expressions}
        assert len(video.expressions) == 8
        for entry in video.expressions:
            said = by_text[entry.text]
            assert entry.type == said.kind
            masks = [truth.target(video, entry).mask(i) for i in range(8)]
            for mask, wanted in zip(masks, scene.target(said), strict=True):
                assert np.array_equal(np.zeros_like(wanted) if mask is None else mask, wanted)


def test_rich_entries_say_what_they_need(tmp_path: Path) -> None:
    write_mevis(tmp_path, [3], RICH, level="rich")
    (video,) = json.loads((tmp_path / "meta_expressions.json").read_text())["videos"].values()
    for entry in video["expressions"].values():
        assert entry["group"] == GROUPS[entry["kind"]]
        assert isinstance(entry["needs_time"], bool)
        assert "kind" not in entry["novel"]
        assert (entry["anno_id"] == []) == (entry["kind"] == "absent")


def test_the_configuration_must_be_of_the_level(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="no configuration"):
        write_mevis(tmp_path, [3], RICH)
    with pytest.raises(SvacError, match="no configuration"):
        write_mevis(tmp_path, [3], CONFIG, level="rich")
