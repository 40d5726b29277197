"""`propagate` with the real model code and random weights: every file it writes is read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svac_backend.cli.propagate import merged, read_hints, run
from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.video.reader import VideoReader
from tests.cli.videos import FRAMES, HEIGHT, WIDTH, write_video


@pytest.fixture
def with_model(settings: Settings, random_model: Path) -> Settings:
    return settings.model_copy(update={"model": str(random_model)})


def drawn(folder: Path, name: str, *frames: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[12:28, 4:20] = 255
    for frame in frames:
        path = folder / name / f"{frame:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return mask > 0


def tracks_of(out: Path) -> dict[str, Track]:
    data = json.loads((out / "tracks.json").read_text())
    assert (data["width"], data["height"], data["frame_count"]) == (WIDTH, HEIGHT, FRAMES)
    return {track["object_id"]: Track.from_json(track) for track in data["tracks"]}


def test_masks_points_and_boxes(
    with_model: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, video = tmp_path / "out", write_video(tmp_path / "v.mp4")
    mask = drawn(tmp_path / "masks", "dog", 0, 5)
    run(
        with_model,
        video,
        out,
        masks=tmp_path / "masks",
        points=["cat:3:30,20", "cat:3:34,21"],
        negatives=["cat:3:2,2"],
        boxes=["dog:7:10,10,40,40"],
    )
    assert {path.name for path in out.iterdir()} == {
        *("tracks.json", "label_studio.json", "overlay.mp4", "contact_sheet.png")
    }
    found = tracks_of(out)
    assert list(found) == ["cat", "dog"]
    for frame in (0, 5):
        assert np.array_equal(from_coco(found["dog"].masks[frame]), mask)
    assert all(sorted(track.scores) == list(range(FRAMES)) for track in found.values())
    assert 3 in found["cat"].masks
    (task,) = json.loads((out / "label_studio.json").read_text())
    assert len(task["predictions"][0]["result"]) == sum(len(track.masks) for track in found.values())
    with VideoReader(out / "overlay.mp4") as overlay:
        assert len(overlay) == FRAMES
    assert "from 4 corrected frames" in capsys.readouterr().err


def test_tracks_of_an_earlier_run_are_corrected(with_model: Settings, tmp_path: Path) -> None:
    video, square = write_video(tmp_path / "v.mp4"), np.zeros((HEIGHT, WIDTH), np.bool_)
    square[:5, :5] = True
    before = [
        Track(name, "car", f"the {name} car", dict.fromkeys(range(FRAMES), to_coco(square)), {0: 0.25})
        for name in ("obj1", "obj2")
    ]
    (tmp_path / "tracks.json").write_text(
        json.dumps(
            {
                "width": WIDTH,
                "height": HEIGHT,
                "frame_count": FRAMES,
                "tracks": [track.to_json() for track in before],
            }
        )
    )
    mask = drawn(tmp_path / "masks", "obj2", 2)
    run(with_model, video, tmp_path, masks=tmp_path / "masks", tracks_file=tmp_path / "tracks.json")
    found = tracks_of(tmp_path)
    assert found["obj1"] == before[0]
    assert (found["obj2"].label, found["obj2"].expression) == ("car", "the obj2 car")
    assert np.array_equal(from_coco(found["obj2"].masks[2]), mask)
    assert all(rle != to_coco(square) for rle in found["obj2"].masks.values())


def test_points_and_boxes_as_text() -> None:
    shown = read_hints(["a:1:2,3.5", "b:0:1,1"], ["a:1:9,9"], ["a:1:0,0,5,6", "a:4:1,1,2,2"])
    assert shown == {
        "a": {
            1: FrameHint(clicks=(Click(2, 3.5), Click(9, 9, positive=False)), box=(0, 0, 5, 6)),
            4: FrameHint(box=(1, 1, 2, 2)),
        },
        "b": {0: FrameHint(clicks=(Click(1, 1),))},
    }


@pytest.mark.parametrize("text", ["", "a", "a:1", "a:1:2", "a:1:2,3,4", "a:x:2,3", "a:-1:2,3", "a:1:2,y"])
def test_text_that_is_no_point(text: str) -> None:
    with pytest.raises(SvacError, match="can't be understood") as caught:
        read_hints([text], [], [])
    assert "obj1:12:340,200" in caught.value.hint


def test_contradictions_are_refused(with_model: Settings, tmp_path: Path) -> None:
    with pytest.raises(SvacError, match="two boxes"):
        read_hints([], [], ["a:1:0,0,5,6", "a:1:0,0,5,7"])
    mask = FrameHint(mask=to_coco(np.zeros((4, 4), np.bool_)))
    with pytest.raises(SvacError, match="a mask and points on frame 1"):
        merged({"a": {1: mask}}, {"a": {1: FrameHint(clicks=(Click(1, 1),))}})
    video = write_video(tmp_path / "v.mp4")
    with pytest.raises(SvacError, match="There is no mask, point or box"):
        run(with_model, video, tmp_path / "out")
    with pytest.raises(SvacError, match="no frame 99"):
        run(with_model, video, tmp_path / "out", points=["a:99:1,1"])
    with pytest.raises(SvacError, match="beside the picture"):
        run(with_model, video, tmp_path / "out", points=["a:1:100,1"])
    (tmp_path / "t.json").write_text('{"tracks": []}')
    with pytest.raises(SvacError, match="holds no tracks"):
        run(with_model, video, tmp_path / "out", points=["a:1:1,1"], tracks_file=tmp_path / "t.json")
    (tmp_path / "t.json").write_text('{"tracks": [], "width": 1, "height": 2, "frame_count": 3}')
    with pytest.raises(SvacError, match="3 frames of 1x2"):
        run(with_model, video, tmp_path / "out", points=["a:1:1,1"], tracks_file=tmp_path / "t.json")
