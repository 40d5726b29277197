"""`prelabel` with the real model code and random weights: every file it writes is read back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import pytest

from svac_backend.cli import prelabel
from svac_backend.cli.inputs import SHIPPED
from svac_backend.cli.prelabel import run
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.written import validate_results
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.svac.files.weights import model_version
from svac_backend.video.reader import VideoReader
from tests.cli.videos import FPS, FRAMES, HEIGHT, WIDTH, write_video


@pytest.fixture
def with_model(settings: Settings, random_model: Path) -> Settings:
    return settings.model_copy(update={"model": str(random_model)})


def test_results(with_model: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a" / "b"
    run(with_model, write_video(tmp_path / "v.mp4"), ["car: the [red] car", "the sky"], out, None)
    assert {path.name for path in out.iterdir()} == {
        *("tracks.json", "label_studio.json", "overlay.mp4", "contact_sheet.png")
    }
    found = json.loads((out / "tracks.json").read_text())
    assert (found["width"], found["height"], found["fps"], found["frame_count"]) == (
        WIDTH,
        HEIGHT,
        FPS,
        FRAMES,
    )
    assert found["model_version"] == model_version(with_model.model)
    tracks = [Track.from_json(track) for track in found["tracks"]]
    assert [(t.object_id, t.label, t.expression) for t in tracks] == [
        ("obj1", "car", "the [red] car"),
        ("obj2", "object", "the sky"),
    ]
    assert all(len(track.masks) == len(track.scores) == FRAMES for track in tracks)
    (task,) = json.loads((out / "label_studio.json").read_text())
    assert task["data"] == {"video": "v.mp4", "fps": FPS, "prompt": "car: the [red] car\nthe sky"}
    (prediction,) = task["predictions"]
    assert len(prediction["result"]) == 2 * FRAMES
    assert prediction["model_version"] == found["model_version"]
    with VideoReader(out / "overlay.mp4") as overlay:
        assert (overlay.info.width, overlay.info.height, len(overlay)) == (WIDTH, HEIGHT, FRAMES)
    assert cv2.imread(str(out / "contact_sheet.png")) is not None
    printed = capsys.readouterr().err
    assert f"the [red] car: a mask on {FRAMES} of {FRAMES} frames" in printed


def test_an_impossible_frame_rate_costs_nothing(
    with_model: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings whose timestamps are one tick apart claim 90,000 frames per second."""
    path, fast = write_video(tmp_path / "v.mp4"), tmp_path / "fast.mp4"
    with VideoReader(path) as video, av.open(fast, "w", options={"video_track_timescale": "90000"}) as target:
        stream = target.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures = [av.VideoFrame.from_ndarray(picture) for _, picture in video.frames(range(FRAMES))]
        packets = [packet for picture in (*pictures, None) for packet in stream.encode(picture)]
        for i, packet in enumerate(packets):
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 90000), i, i, 1
            target.mux(packet)
    with VideoReader(fast) as video:
        assert video.info.fps > 1000
    run(with_model, fast, ["the square"], tmp_path / "out", None)
    assert len(list((tmp_path / "out").iterdir())) == 4
    with VideoReader(tmp_path / "out" / "overlay.mp4") as overlay:
        assert len(overlay) == FRAMES
    monkeypatch.setattr(prelabel, "OverlayWriter", None)  # whatever goes wrong with a picture
    with pytest.raises(TypeError):
        run(with_model, path, ["the square"], tmp_path / "out2", None)
    assert {file.name for file in (tmp_path / "out2").iterdir()} == {"tracks.json", "label_studio.json"}


def test_a_config_of_ones_own(with_model: Settings, tmp_path: Path) -> None:
    config = SHIPPED / "polygon_frames.xml"
    run(with_model, write_video(tmp_path / "v.mp4"), ["the square"], tmp_path, config)
    (task,) = json.loads((tmp_path / "label_studio.json").read_text())
    results = task["predictions"][0]["result"]
    assert {region["type"] for region in results} == {"polygonlabels"}
    validate_results(results, parse_config(config.read_text()), frame_count=FRAMES)


def test_a_folder_that_cannot_be_written(with_model: Settings, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SvacError, match="cannot be written") as caught:
        run(with_model, write_video(tmp_path / "v.mp4"), ["the square"], tmp_path / "out", None)
    assert "--out" in caught.value.hint
