"""The layouts: there and back, and read by others' code."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from svac_backend.datasets.layouts import FORMATS, DataSet
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.predictions import Predictions
from svac_backend.evaluation.score import score
from svac_backend.evaluation.truth import open_truth
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.video.images import ImageFolderVideo, find_frames
from tests.datasets.made import FRAMES, HEIGHT, WIDTH, said, source, tracks, videos
from tests.evaluation.layouts import write_predictions


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("frames", [True, False])
def test_what_is_written_is_read(tmp_path: Path, layout: str, frames: bool) -> None:
    told: list[float] = []
    out = tmp_path / "out"
    notes = DataSet(out, layout, "train").write(
        videos(), opener=source if frames else None, progress=told.append
    )
    assert notes == []
    read = list(DataSet(out, layout, "train").read())
    named = [replace(video, names=()) for video in read] if layout == "mots" else read  # it counts from 1
    assert said(named) == said(videos())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert list(out.rglob("manifest.json")) == []
    if not frames:
        assert list(out.rglob("*.jpg")) == []
        return
    assert told[-1] == pytest.approx(1.0)
    assert told == sorted(told)
    for video in read:
        assert video.pictures is not None
        pictures = ImageFolderVideo(video.pictures, video.picture_names)
        shades = [int(picture.mean()) for _, picture in pictures.frames(range(len(pictures)))]
        assert shades == pytest.approx([20 * i for i in video.frames], abs=2)


@pytest.mark.parametrize("layout", ["youtube-vis", "mevis", "coco", "yolo"])
def test_masks_over_each_other_are_kept(tmp_path: Path, layout: str) -> None:
    DataSet(tmp_path / "out", layout, "train").write(videos(overlapping=True))
    assert said(list(DataSet(tmp_path / "out", layout, "train").read())) == said(videos(overlapping=True))


@pytest.mark.parametrize("layout", ["davis", "youtube-vos", "mots"])
def test_layouts_of_numbered_pixels_say_what_they_hide(tmp_path: Path, layout: str) -> None:
    (note,) = DataSet(tmp_path / "out", layout, "train").write(videos(overlapping=True)[:1])
    car, dog, _ = tracks(overlapping=True)
    hidden = sum(int((from_coco(car.masks[i]) & from_coco(dog.masks[i])).sum()) for i in dog.masks)
    assert hidden > 0
    assert f"clip-a: {hidden} of " in note
    (video,) = DataSet(tmp_path / "out", layout, "train").read()
    assert video.tracks[1].masks == dog.masks, "the later one lies on top"


def test_coco_loads_with_pycocotools(tmp_path: Path) -> None:
    DataSet(tmp_path / "out", "coco", "train").write(videos())
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    assert len(coco.getImgIds()) == FRAMES + FRAMES // 2
    by_track = {track["id"]: track for track in coco.dataset["tracks"]}
    seen = 0
    for image in coco.loadImgs(coco.getImgIds()):
        video = videos()[image["video_id"] - 1]
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            track = by_track[annotation["track_id"]]
            (original,) = [t for t in video.tracks if t.object_id == track["object_id"]]
            mask = from_coco(original.masks[image["frame_index"]])
            assert np.array_equal(coco.annToMask(annotation).astype(bool), mask)
            assert annotation["area"] == mask.sum()
            x, y, width, height = map(int, annotation["bbox"])
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
            assert mask[y, x : x + width].any()
            assert coco.loadCats(annotation["category_id"])[0]["name"] == original.label
            seen += 1
    assert seen == sum(len(track.masks) for video in videos() for track in video.tracks)


def test_youtube_vis_decodes_as_its_own_api_does(tmp_path: Path) -> None:
    DataSet(tmp_path / "out", "youtube-vis", "train").write(videos())
    content = json.loads((tmp_path / "out" / "train" / "instances.json").read_text())
    assert [c["name"] for c in content["categories"]] == ["car", "dog"]
    assert [len(video["file_names"]) for video in content["videos"]] == [FRAMES, FRAMES // 2]
    for annotation in content["annotations"]:
        video = videos()[annotation["video_id"] - 1]
        (track,) = [t for t in video.tracks if t.object_id == annotation["object_id"]]
        rows = (annotation[key] for key in ("segmentations", "bboxes", "areas"))
        for frame, rle, box, area in zip(video.frames, *rows, strict=True):
            assert (rle is None) == (box is None) == (area is None) == (frame not in track.masks)
            if rle is not None:
                assert np.array_equal(pycoco.decode(rle).astype(bool), from_coco(track.masks[frame]))
                assert (area, box) == (pycoco.area(rle), pycoco.toBbox(rle).tolist())


def test_davis_annotations_are_palette_pictures(tmp_path: Path) -> None:
    out = tmp_path / "out"
    DataSet(out, "davis", "val").write(videos(), opener=source)
    assert (out / "ImageSets" / "2017" / "val.txt").read_text() == "clip-a\nclip_b\n"
    with Image.open(out / "Annotations" / "480p" / "clip-a" / "00003.png") as picture:
        assert picture.mode == "P"
        assert (picture.getpalette() or [])[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0], (
            "DAVIS' colours"
        )
        numbers = np.array(picture)
    car, dog, _ = tracks()
    assert np.array_equal(numbers == 1, from_coco(car.masks[3]))
    assert np.array_equal(numbers == 2, from_coco(dog.masks[3]))
    assert sorted(p.name for p in (out / "JPEGImages" / "480p" / "clip_b").iterdir()) == [
        "00001.jpg",
        "00003.jpg",
        "00005.jpg",
    ]


@pytest.mark.parametrize(("layout", "dataset"), [("davis", "ref-davis17"), ("mevis", "mevis")])
def test_an_export_scores_100_against_itself(tmp_path: Path, layout: str, dataset: str) -> None:
    made = videos()
    DataSet(tmp_path / "out", layout, "train").write(made, opener=source)
    benchmark = open_benchmark(dataset, tmp_path / "out", "train")
    truth = open_truth(benchmark)
    assert truth is not None
    by_name = {video.name: video for video in made}
    for video in benchmark.videos:
        assert len(list(video.folder.glob("*.jpg"))) == len(video.frames)
        for expression in video.expressions:
            original = by_name[video.name]
            (track,) = [t for t in original.tracks if t.expression == expression.text]
            masks = [
                from_coco(track.masks[i]) if i in track.masks else np.zeros((HEIGHT, WIDTH), bool)
                for i in original.frames
            ]
            write_predictions(tmp_path / "p", video.name, expression.id, video.frames, np.stack(masks))
    scores = score(benchmark, truth, Predictions.found_in(tmp_path / "p", benchmark))
    assert len(scores) == 4
    assert [one.j_and_f for one in scores] == [1.0] * 4
    # The score means something: another object's masks score less.
    wrong = tmp_path / "p" / "clip-a"
    for file in sorted((wrong / "0").iterdir()):
        file.write_bytes((wrong / "1" / file.name).read_bytes())
    scores = score(benchmark, truth, Predictions.found_in(tmp_path / "p", benchmark))
    assert min(one.j_and_f for one in scores) < 0.2


def test_mevis_joins_objects_of_one_sentence(tmp_path: Path) -> None:
    first, second, _ = tracks()
    second.expression, second.label = first.expression, first.label
    one = VideoTracks("v", WIDTH, HEIGHT, tuple(range(FRAMES)), (first, second), fps=5.0)
    DataSet(tmp_path / "out", "mevis", "train").write([one])
    (video,) = open_benchmark("mevis", tmp_path / "out", "train").videos
    (expression,) = video.expressions
    assert expression.anno_ids == ("0", "1")
    assert said(list(DataSet(tmp_path / "out", "mevis", "train").read())) == said([one])


@pytest.mark.parametrize("layout", [layout for layout in FORMATS if layout != "yolo"])
def test_data_sets_of_others_have_no_ids(tmp_path: Path, layout: str) -> None:
    """Without what is ours: objects are counted, labels are those of the data set or unknown."""
    out = tmp_path / "out"
    DataSet(out, layout, "train").write(videos()[:1], opener=source)
    for path in out.rglob("*.json"):
        if path.name == "svac_objects.json":
            path.unlink()
            continue
        content = json.loads(path.read_text())
        for name in ("annotations", "tracks", "videos"):
            for entry in content[name] if isinstance(content.get(name), list) else ():
                for ours in ("object_id", "expression", "fps"):
                    entry.pop(ours, None)
        path.write_text(json.dumps(content))
    (video,) = DataSet(out, layout, "train").read()
    assert video.fps == (12.5 if layout == "mots" else None)
    drawn = [track for track in video.tracks if track.masks]
    assert [track.object_id for track in drawn] == ["obj1", "obj2"]
    assert [track.masks for track in drawn] == [track.masks for track in tracks()[:2]]
    labels = ["", ""] if layout in ("davis", "mevis") else ["car", "dog"]
    assert [track.label for track in drawn] == labels


def test_masks_as_others_write_them(tmp_path: Path) -> None:
    """YouTube-VIS gives plain run lengths, COCO polygons."""
    DataSet(tmp_path / "out", "youtube-vis", "train").write(videos())
    path = tmp_path / "out" / "train" / "instances.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["segmentations"] = [plain(rle) for rle in annotation["segmentations"]]
    path.write_text(json.dumps(content))
    assert said(list(DataSet(tmp_path / "out", "youtube-vis", "train").read())) == said(videos())
    content["annotations"][0]["segmentations"][0] = [[4, 5, 20, 5, 20, 15, 4, 15]]
    path.write_text(json.dumps(content))
    mask = from_coco(next(DataSet(tmp_path / "out", "youtube-vis", "train").read()).tracks[0].masks[0])
    assert mask.sum() == 160
    assert mask[5:15, 4:20].all()


SHORT = {"size": [HEIGHT, WIDTH], "counts": [9]}


def plain(rle: Any) -> Any:
    if rle is None:
        return None
    flat = from_coco(rle).flatten(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": rle["size"], "counts": [0, *runs] if flat[0] else runs}


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("youtube-vis", lambda c: c["annotations"][0]["segmentations"].pop()),
        ("youtube-vis", lambda c: c["annotations"][0].pop("category_id")),
        ("youtube-vis", lambda c: c["annotations"][0].update(segmentations=["x"] * FRAMES)),
        ("youtube-vis", lambda c: c["annotations"][0].update(segmentations=[SHORT] * FRAMES)),
        ("youtube-vis", lambda c: c["videos"][0].update(file_names=["../00000.jpg"] * FRAMES)),
        ("coco", lambda c: c["annotations"][0].update(segmentation={"size": [9, 9], "counts": "0"})),
        ("coco", lambda c: c["annotations"][0].update(segmentation=[[0, 0, float("nan"), 1, 2, 2]])),
        ("coco", lambda c: c["annotations"][0].pop("track_id")),
        ("coco", lambda c: c.pop("videos")),
        ("coco", lambda c: c.update(images=[])),
        ("coco", lambda c: c.update(categories=7)),
    ],
)  # fmt: skip
def test_damaged_data_sets_are_refused(tmp_path: Path, layout: str, change: Any) -> None:
    DataSet(tmp_path / "out", layout, "train").write(videos())
    (path,) = tmp_path.rglob("instances*.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SvacError) as caught:
        list(DataSet(tmp_path / "out", layout, "train").read())
    assert str(path) in caught.value.message


@pytest.mark.parametrize("layout", FORMATS)
def test_what_is_missing_is_said(tmp_path: Path, layout: str) -> None:
    with pytest.raises(SvacError, match="There is no folder"):
        list(DataSet(tmp_path / "nothing", layout, "train").read())
    (tmp_path / "empty").mkdir()
    with pytest.raises(SvacError):
        list(DataSet(tmp_path / "empty", layout, "train").read())
    DataSet(tmp_path / "out", layout, "train").write(videos())
    with pytest.raises(SvacError) as caught:
        list(DataSet(tmp_path / "out", layout, "valid").read())
    assert "--split" in caught.value.hint


def test_davis_of_others(tmp_path: Path) -> None:
    """No ImageSets, one object in grey, and pixels that nobody counts."""
    folder = tmp_path / "Annotations" / "480p" / "bear"
    folder.mkdir(parents=True)
    for i in range(2):
        picture = np.zeros((8, 9), np.uint8)
        picture[2:4, i : i + 3], picture[7] = 5, 255
        cv2.imwrite(str(folder / f"{i:05d}.png"), picture)
    (video,) = DataSet(tmp_path, "davis", "whatever").read()
    (track,) = video.tracks
    assert (track.object_id, sorted(track.masks)) == ("obj5", [0, 1])
    assert from_coco(track.masks[1])[2:4, 1:4].all()
    (folder / "00002.png").write_bytes(b"no picture")
    with pytest.raises(SvacError, match="damaged"):
        list(DataSet(tmp_path, "davis", "whatever").read())


def white_on_black(folder: Path, count: int, *, palette: bool = False) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.zeros((8, 60), np.uint8)
        pixels[2:4, 3 * i : 3 * i + 3] = 255
        picture = Image.fromarray(pixels)
        if palette:
            picture.putpalette([37 * k % 256 for k in range(768)])
        picture.save(folder / f"{i}.png")


def test_davis_of_one_object_white_on_black_with_names_that_are_plain_numbers(tmp_path: Path) -> None:
    white_on_black(tmp_path / "Annotations" / "480p" / "bear", 12)
    (video,) = DataSet(tmp_path, "davis", "train").read()
    (track,) = video.tracks
    assert (track.object_id, video.frames, video.names[10]) == ("obj1", tuple(range(12)), "10")
    assert [from_coco(track.masks[i]).nonzero()[1].min() for i in range(12)] == [3 * i for i in range(12)]
    white_on_black(tmp_path / "Annotations" / "480p" / "void", 2, palette=True)
    with pytest.raises(SvacError, match="no score counts"):
        list(DataSet(tmp_path, "davis", "train").read())


def test_davis_of_16_bits(tmp_path: Path) -> None:
    folder = tmp_path / "Annotations" / "480p" / "bear"
    folder.mkdir(parents=True)
    Image.fromarray(np.array([[0, 1, 254, 255, 256, 300]], np.uint16)).save(folder / "00000.png")
    (video,) = DataSet(tmp_path, "davis", "train").read()
    assert [track.object_id for track in video.tracks] == ["obj1", "obj254", "obj255", "obj256", "obj300"]


@pytest.mark.parametrize("layout", ["youtube-vis", "mevis", "coco"])
def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path, layout: str) -> None:
    frames = tuple(range(FRAMES))
    names = tuple(str(frame) for frame in frames)
    (one, *_) = videos()
    DataSet(tmp_path / "out", layout, "train").write([replace(one, frames=frames, names=names)])
    (path,) = (tmp_path / "out").rglob("meta_expressions.json" if layout == "mevis" else "instances*.json")
    content = json.loads(path.read_text())
    if layout == "youtube-vis":  # as a listing of the folder sorts them
        order = sorted(range(FRAMES), key=lambda i: names[i])
        for entry in content["videos"]:
            entry["file_names"] = [entry["file_names"][i] for i in order]
        for entry in content["annotations"]:
            entry["segmentations"] = [entry["segmentations"][i] for i in order]
    if layout == "coco":
        for entry in content["images"]:
            entry.pop("frame_index", None)
    path.write_text(json.dumps(content))
    (video,) = DataSet(tmp_path / "out", layout, "train").read()
    assert (video.frames, video.names) == (frames, names)
    assert [track.masks for track in video.tracks] == [track.masks for track in one.tracks]


def test_pictures_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "frame2", "frame10", "0", "01"):
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    found = [file.stem for file in find_frames(tmp_path)]
    assert found == ["0", "01", "9", "10", "frame2", "frame10"]


@pytest.mark.parametrize("layout", ["youtube-vis", "coco"])
def test_annotations_of_one_track_on_a_frame_are_united(tmp_path: Path, layout: str) -> None:
    DataSet(tmp_path / "out", layout, "train").write(videos())
    (path,) = (tmp_path / "out").rglob("instances*.json")
    content = json.loads(path.read_text())
    first = content["annotations"][0]
    corner = [[0, 0, 3, 0, 3, 3, 0, 3]]
    shape = {"segmentation": corner} if layout == "coco" else {"segmentations": [corner] * FRAMES}
    content["annotations"].append({**first, **shape, "id": 999})
    path.write_text(json.dumps(content))
    track = next(DataSet(tmp_path / "out", layout, "train").read()).tracks[0]
    frame = min(videos()[0].tracks[0].masks)
    mask, before = from_coco(track.masks[frame]), from_coco(videos()[0].tracks[0].masks[frame])
    assert mask[:3, :3].all()
    assert mask[before].all()
    assert len(next(DataSet(tmp_path / "out", layout, "train").read()).tracks) == len(videos()[0].tracks)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(SvacError, match="is not empty"):
        DataSet(out, "coco", "train").write(videos())
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(SvacError, match="not a folder"):
        DataSet(out / "mine.txt", "coco", "train").write(videos())
    (tmp_path / "empty").mkdir()
    DataSet(tmp_path / "empty", "coco", "train").write(videos())
    assert (tmp_path / "empty" / "annotations").is_dir()


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def other(video: VideoTracks) -> Any:
        raise SvacError(f"{video.name} is gone.", "Bring it back.")

    with pytest.raises(SvacError, match="is gone"):
        DataSet(tmp_path / "out", "mevis", "train").write(videos(), opener=other)
    assert list(tmp_path.iterdir()) == []
    small = [VideoTracks("v", WIDTH, HEIGHT, (0, FRAMES), ())]
    with pytest.raises(SvacError, match=f"go up to frame {FRAMES}"):
        DataSet(tmp_path / "out", "mevis", "train").write(small, opener=source)
    with pytest.raises(SvacError, match="annotations 64x99"):
        DataSet(tmp_path / "out", "mevis", "train").write([VideoTracks("v", 64, 99, (0,), ())], opener=source)
    with pytest.raises(SvacError, match="but the video 64x99"):
        DataSet(tmp_path / "out", "mevis", "train").write([VideoTracks("v", 64, 99, (0,), tracks())])
    with pytest.raises(SvacError, match="same name"):
        DataSet(tmp_path / "out", "mevis", "train").write(videos()[:1] * 2)
    with pytest.raises(SvacError, match="nothing to export"):
        DataSet(tmp_path / "out", "mevis", "train").write([])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layout", "split"), [("zip", "train"), ("coco", "../x"), ("davis", "JPEGImages"), ("coco", "")]
)
def test_names_that_are_no_format_or_split(tmp_path: Path, layout: str, split: str) -> None:
    with pytest.raises(SvacError):
        DataSet(tmp_path / "out", layout, split).write(videos())
    assert list(tmp_path.iterdir()) == []


def noisy(number: int, frames: int = 40) -> VideoTracks:
    """A video whose masks are long in every form."""
    rng = np.random.default_rng(number)
    masks = {frame: to_coco(rng.random((HEIGHT, WIDTH)) > 0.5) for frame in range(frames)}
    track = Track("obj1", "dog", "the dog", masks, dict.fromkeys(masks, 1.0))
    return VideoTracks(f"v{number}", WIDTH, HEIGHT, tuple(range(frames)), (track,))


# Not MeViS: the masks of its release are one JSON mapping, which the official measures read as a whole.
@pytest.mark.parametrize("layout", ["davis", "youtube-vis", "coco", "mots"])
def test_memory_does_not_grow_with_the_videos_that_are_read(tmp_path: Path, layout: str) -> None:
    peaks = []
    for count in (3, 12):
        data_set = DataSet(tmp_path / str(count), layout, "train")
        data_set.write(map(noisy, range(count)), labels=["dog"])
        deque(data_set.read(), maxlen=0)  # caches that fill once are full
        tracemalloc.start()
        assert sum(len(video.tracks[0].masks) for video in data_set.read()) == 40 * count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    masks = sum(len(rle["counts"]) for rle in noisy(0).tracks[0].masks.values())
    assert peaks[1] - peaks[0] < 0.25 * 9 * masks, "bytes of 9 more videos"
