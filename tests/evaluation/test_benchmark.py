"""Every official layout is read as it is released, and what is wrong with one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from tests.evaluation import layouts

FRAMES = ("00000", "00001", "00002", "00003")


def test_mevis(tmp_path: Path) -> None:
    root = layouts.mevis(tmp_path)
    for given in (root, root / "mevis"):
        found = open_benchmark("mevis", given)
        assert (found.dataset, found.split, found.submission_folder) == ("mevis", "valid_u", ".")
        assert [video.name for video in found.videos] == ["scene-0000001", "scene-0000002"]
        video = found.videos[1]
        assert video.frames == FRAMES
        assert video.folder == root / "mevis" / "valid_u" / "JPEGImages" / "scene-0000002"
        assert [e.id for e in video.expressions] == ["0", "1", "2", "two"]
        assert len(video.expressions[3].anno_ids) == 2
        assert {e.type for e in video.expressions} == {None}
        assert found.expression_count == 8


@pytest.mark.parametrize(
    ("dataset", "submission"), [("ref-davis17", "."), ("ref-youtube-vos", "Annotations")]
)
def test_expressions_by_split_have_objects_and_a_count(tmp_path: Path, dataset: str, submission: str) -> None:
    found = open_benchmark(dataset, layouts.by_split(tmp_path, "valid"))
    assert found.submission_folder == submission
    assert found.videos[0].frames == ("00000", "00005", "00010", "00015")
    targets = {
        name: [e.targets[0] + 1 for e in scene.expressions[:2]] for name, scene in layouts.scenes().items()
    }
    counted = iter(range(10))
    for video in found.videos:
        for expression, target in zip(video.expressions, targets[video.name], strict=True):
            assert expression.obj_ids == (target,)
            assert expression.anno_ids == (str(next(counted)),)


def test_revos(tmp_path: Path) -> None:
    found = open_benchmark("revos", layouts.revos(tmp_path))
    assert [e.type for e in found.videos[0].expressions] == ["referring", "reasoning", "hallucination"]
    assert found.videos[0].expressions[2].anno_ids == ()
    assert found.data == tmp_path / "ReVOS"


def test_limited_keeps_the_counting(tmp_path: Path) -> None:
    whole = open_benchmark("ref-davis17", layouts.by_split(tmp_path, "valid"))
    assert whole.limited(1).videos == whole.videos[:1]
    assert whole.limited(None) is whole


def test_frames_are_sorted(tmp_path: Path) -> None:
    meta = layouts.mevis(tmp_path) / "mevis" / "valid_u" / "meta_expressions.json"
    content = json.loads(meta.read_text())
    content["videos"]["scene-0000001"]["frames"].reverse()
    meta.write_text(json.dumps(content))
    assert open_benchmark("mevis", tmp_path).videos[0].frames == FRAMES


@pytest.mark.parametrize(
    ("dataset", "split", "wrong", "todo"),
    [
        ("coco", None, "no data set 'coco'", "mevis"),
        ("mevis", "valid", "split 'valid' of mevis", "--split"),
        ("revos", None, "no meta_expressions_valid_.json", "--split"),
        ("mevis", "../..", "cannot name a folder", ""),
    ],
)
def test_what_is_not_there(tmp_path: Path, dataset: str, split: str | None, wrong: str, todo: str) -> None:
    layouts.mevis(tmp_path)
    with pytest.raises(SvacError, match=wrong) as caught:
        open_benchmark(dataset, tmp_path, split)
    assert todo in caught.value.hint


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="no folder") as caught:
        open_benchmark("mevis", tmp_path / "nosuch")
    assert "--root" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", 'no "videos"'),
        (b'{"videos": {}}', 'no "videos"'),
        ({"v": []}, '"frames" or "expressions"'),
        ({"v": {"frames": [], "expressions": {}}}, '"frames" or "expressions"'),
        ({"v": {"frames": ["0", "0"], "expressions": {}}}, "occurs twice"),
        ({"v": {"frames": ["../0"], "expressions": {}}}, "The frame .* cannot name"),
        ({"..": {"frames": ["0"], "expressions": {}}}, "The video .* cannot name"),
        ({"a/b": {"frames": ["0"], "expressions": {}}}, "The video .* cannot name"),
        ({"v": {"frames": [0], "expressions": {}}}, "The frame .* cannot name"),
        ({"v": {"frames": ["0"], "expressions": {"/etc": {"exp": "x"}}}}, "The expression .* cannot name"),
        ({"v": {"frames": ["0"], "expressions": {"0": {}}}}, "has no text"),
        ({"v": {"frames": ["0"], "expressions": {"0": {"exp": " "}}}}, "has no text"),
        ({"v": {"frames": ["0"], "expressions": {"0": {"exp": "x", "obj_id": "a"}}}}, "wrong obj_id"),
    ],
)
def test_damaged_meta_files(tmp_path: Path, content: Any, wrong: str) -> None:
    meta = tmp_path / "valid_u" / "meta_expressions.json"
    meta.parent.mkdir()
    meta.write_bytes(content if isinstance(content, bytes) else json.dumps({"videos": content}).encode())
    with pytest.raises(SvacError, match=wrong):
        open_benchmark("mevis", tmp_path)
