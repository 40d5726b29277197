"""What `import --masks` refuses before it asks Label Studio; videos that are made of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svac_backend.cli.commands import videos as commands
from svac_backend.cli.import_masks import KeptMasks, drawn, encode_pictures, numbered, prompt_lines
from svac_backend.cli.inputs import check_video, shipped_config
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.video.reader import ArrayVideo, VideoReader
from tests.cli.videos import write_video
from tests.datasets.made import HEIGHT, WIDTH, source, tracks, videos


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    DataSet(tmp_path / "set", "mevis", "train").write(videos(), opener=source)
    return tmp_path / "set"


def refused(settings: Settings, *files: Path, **options: Any) -> SvacError:
    """What the command line says of some options."""
    everything = {"create": "Title", "format_": "mevis", **options}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "get_settings", lambda: settings)
        with pytest.raises(SvacError) as caught:
            commands.import_(list(files), **everything)
    assert caught.value.hint
    return caught.value


def test_options_that_do_not_belong_together(settings: Settings, data_set: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4")
    assert "no video" in refused(settings).message
    assert "--format belongs to --masks" in refused(settings, video).message
    assert "--prompt does not go" in refused(settings, masks=data_set, prompt=["x"]).message
    assert "format is not given" in refused(settings, masks=data_set, format_=None).message
    assert "do not become 'art'" in refused(settings, masks=data_set, as_="art").message
    assert "--project ID or --create" in refused(settings, masks=data_set, create=None).hint
    windows: tuple[dict[str, int], ...] = ({"window": 5, "overlap": 5}, {"window": -1}, {"stride": 0})
    for wrong in windows:
        assert "Windows of" in refused(settings, masks=data_set, **wrong).message
        assert "Windows of" in refused(settings, video, format_=None, prompt=["the dog"], **wrong).message


def test_the_masks_must_fit(settings: Settings, data_set: Path, tmp_path: Path) -> None:
    assert "no folder" in refused(settings, masks=tmp_path / "missing").message
    assert "--split" in refused(settings, masks=data_set, split="valid").hint
    other = write_video(tmp_path / "other.mp4")
    assert "clip-a, clip_b" in refused(settings, other, masks=data_set).hint
    short = write_video(tmp_path / "clip-a.mp4", frames=3)
    assert "has 3 frames, but its masks go up to frame 5" in refused(settings, short, masks=data_set).message
    config = tmp_path / "c.xml"
    config.write_text(shipped_config(["car"]))
    assert "no label 'dog'" in refused(settings, masks=data_set, config=config).message
    # All is well but Label Studio.
    assert "cannot be reached" in refused(settings, masks=data_set).message
    good = write_video(tmp_path / "clip_b.mp4")
    assert "cannot be reached" in refused(settings, good, masks=data_set).message


def test_a_data_set_without_pictures_needs_the_videos(settings: Settings, tmp_path: Path) -> None:
    DataSet(tmp_path / "set", "coco", "train").write(videos())
    error = refused(settings, masks=tmp_path / "set", format_="coco")
    assert "no pictures of clip-a" in error.message
    assert "VIDEO..." in error.hint


@pytest.mark.parametrize(("height", "width", "suffix"), [(48, 64, ".mp4"), (47, 63, ".webm")])
def test_pictures_become_a_video(tmp_path: Path, height: int, width: int, suffix: str) -> None:
    shades = np.array([40, 120, 200, 90], np.uint8)
    frames = np.zeros((4, height, width, 3), np.uint8) + shades[:, None, None, None]
    told: list[float] = []
    path = encode_pictures(ArrayVideo(frames, fps=12.5), tmp_path, "clip", told.append)
    assert (path.suffix, told[-1]) == (suffix, 1.0)
    with VideoReader(path) as video:
        assert (video.info.width, video.info.height, len(video), video.info.fps) == (width, height, 4, 12.5)
        found = [int(frame.mean()) for _, frame in video.frames(range(4))]
    assert found == pytest.approx(shades.tolist(), abs=4)
    again = encode_pictures(ArrayVideo(frames, fps=12.5), tmp_path, "again")
    assert again.read_bytes() == path.read_bytes(), "else a second import would not know it"


def test_objects_get_the_ids_of_their_prompts() -> None:
    """What the task asks for and what is drawn in it must be the same object under the same id."""
    config = parse_config(shipped_config(["car", "dog"]))
    car, dog, ghost = tracks()
    twin = replace(car, object_id="x", masks=dict(list(car.masks.items())[:1]))
    unknown = Track("obj9", "", "")
    video = VideoTracks("v", WIDTH, HEIGHT, (0,), (car, twin, dog, unknown, ghost))
    lines = prompt_lines(video, config)
    asked = {
        p.object_id: (p.label, p.expression) for p in task_prompts({"prompt": lines}, config, max_chars=99)
    }
    assert asked == {
        "obj1": ("car", "the red car"),
        "obj2": ("dog", "the dog: on the left"),
        "obj3": ("object", "object"),
        "obj4": ("dog", "the ghost"),
    }
    made = {track.object_id: track for track in numbered(video, config)}
    assert list(made) == ["obj1", "obj5", "obj2", "obj3", "obj4"]
    assert {key: (made[key].label, made[key].expression) for key in asked} == asked
    assert (made["obj1"].masks, made["obj5"].masks) == (car.masks, twin.masks)


def test_annotations_look_as_if_a_person_drew() -> None:
    region = {"id": "obj1-f00000", "origin": "prediction", "score": 0.5, "type": "brushlabels"}
    assert drawn(region) == {"id": "obj1-f00000", "origin": "manual", "type": "brushlabels"}


def test_the_masks_of_a_video_lie_on_the_disk_until_they_are_drawn(
    settings: Settings, tmp_path: Path
) -> None:
    kept, (first, second) = KeptMasks(tmp_path), videos()
    found = [check_video(write_video(tmp_path / name), settings) for name in ("a.mp4", "b.mp4")]
    bare = [kept.put(one, video) for one, video in zip(found, (first, second), strict=True)]
    assert [track.masks for video in bare for track in video.tracks] == [{}] * 4
    assert [track.expression for track in bare[0].tracks] == [track.expression for track in first.tracks]
    assert [kept.get(one.path) for one in found] == [first, second]
