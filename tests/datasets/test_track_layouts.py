"""YOLO, MOTS and YouTube-VOS as their own readers read them, and streams of videos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from lab.drill.exports import peak_mb
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as pycoco

from svac_backend.cli.commands.options import LAYOUTS
from svac_backend.datasets.json_stream import JsonStream
from svac_backend.datasets.layouts import FORMATS, DataSet
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.datasets.yolo import IOU_FLOOR
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.truth import open_truth
from svac_backend.masks.rle import from_coco, iou, to_coco
from svac_backend.masks.tracks import Track
from tests.datasets.made import FRAMES, HEIGHT, WIDTH, source, tracks, videos


def round_things() -> VideoTracks:
    """A ring in front of nothing, and a disc in two parts, which no polygon without bridges can be."""
    y, x = np.mgrid[:240, :320]
    ring = ((x - 90) ** 2 + (y - 100) ** 2 < 70**2) & ((x - 90) ** 2 + (y - 100) ** 2 > 30**2)
    parts = ((x - 230) ** 2 + (y - 120) ** 2 < 60**2) & (np.abs(x - 230) > 12)
    one, two = Track("obj1", "tyre", "the tyre"), Track("obj2", "face", "the face")
    for frame in range(3):
        one.masks[frame], two.masks[frame] = (to_coco(np.roll(mask, frame, 1)) for mask in (ring, parts))
    return VideoTracks("round", 320, 240, (0, 1, 2), (one, two), fps=10.0)


def yolo_lines(path: Path) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The classes and polygons of a label file, after the checks that Ultralytics makes of each."""
    for line in path.read_text().splitlines():
        kind, *numbers = line.split()
        points = np.array(numbers, dtype=np.float64).reshape(-1, 2)
        assert len(points) >= 3
        assert points.min() >= 0
        assert points.max() <= 1
        yield int(kind), points


def test_yolo_draws_what_was_drawn(tmp_path: Path) -> None:
    video = round_things()
    DataSet(tmp_path / "out", "yolo", "val").write([video])
    assert (tmp_path / "out" / "data.yaml").read_text().splitlines() == [
        "train: images/val",
        "val: images/val",
        "names:",
        '  0: "face"',
        '  1: "tyre"',
    ]
    for frame in video.frames:
        lines = list(yolo_lines(tmp_path / "out" / "labels" / "val" / "round" / f"{frame:05d}.txt"))
        assert [kind for kind, _ in lines] == [1, 0]
        for (_, points), track in zip(lines, video.tracks, strict=True):
            drawn = np.zeros((240, 320), np.uint8)
            # Ultralytics draws its training masks so; OpenCV counts the outline in.
            cv2.fillPoly(drawn, [(points * (320, 240)).astype(np.int32)], 1)
            assert iou(to_coco(drawn.astype(bool)), track.masks[frame]) > 0.95
    (read,) = list(DataSet(tmp_path / "out", "yolo", "val").read())
    for before, after in zip(video.tracks, read.tracks, strict=True):
        assert (before.object_id, before.label, before.expression) == (
            after.object_id,
            after.label,
            after.expression,
        )
        assert min(iou(before.masks[i], after.masks[i]) for i in video.frames) >= IOU_FLOOR


def test_yolo_of_strangers_has_no_tracks(tmp_path: Path) -> None:
    DataSet(tmp_path / "out", "yolo").write(videos())
    sidecar = tmp_path / "out" / "labels" / "train" / "svac_objects.json"
    label = next((tmp_path / "out" / "labels" / "train" / "clip-a").glob("*.txt"))
    label.write_text(label.read_text() + "0 0 0 1 1 0 1\n")
    with pytest.raises(SvacError, match="does not fit"):
        list(DataSet(tmp_path / "out", "yolo").read())
    sidecar.unlink()
    with pytest.raises(SvacError, match="which lines of the labels belong to one object"):
        list(DataSet(tmp_path / "out", "yolo").read())


def mots_lines(path: Path) -> list[tuple[int, int, int, NDArray[np.bool_]]]:
    """Frame, object, class and mask of each line, decoded as TrackEval does."""
    found = []
    for line in path.read_text().splitlines():
        frame, number, kind, height, width, counts = line.split(" ")
        rle = {"size": [int(height), int(width)], "counts": counts.encode()}
        found.append((int(frame), int(number), int(kind), pycoco.decode(rle).astype(bool)))
    return found


def test_mots_is_as_its_scorer_reads_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    DataSet(out, "mots").write(videos(overlapping=True), opener=source)
    assert (out / "seqmaps" / "train.txt").read_text() == "name\nclip-a\nclip_b\n"
    assert "seqLength=6\n" in (out / "train" / "clip-a" / "seqinfo.ini").read_text()
    lines = mots_lines(out / "train" / "clip-a" / "gt" / "gt.txt")
    # `car` is a class of KITTI's, `dog` is not.
    assert {(number, kind) for _, number, kind, _ in lines} == {(1001, 1), (3001, 3)}
    for place in range(FRAMES):
        with Image.open(out / "instances" / "clip-a" / f"{place + 1:06d}.png") as picture:
            assert picture.mode.startswith("I")
            pixels = np.array(picture)
        here = {number: mask for frame, number, _, mask in lines if frame == place + 1}
        assert sum(mask.astype(int) for mask in here.values()).max() == 1, "no pixel belongs to two objects"
        assert all(np.array_equal(pixels == number, mask) for number, mask in here.items())
    # Of the second video every other frame is there: the pictures count without gaps.
    assert sorted(path.name for path in (out / "train" / "clip_b" / "img1").iterdir()) == [
        "000001.jpg",
        "000002.jpg",
        "000003.jpg",
    ]


@pytest.mark.parametrize("kind", ["instances_txt", "instances"])
def test_kitti_mots_is_read(tmp_path: Path, kind: str) -> None:
    DataSet(tmp_path / "out", "mots").write(videos()[:1])
    kitti = tmp_path / "kitti"
    (kitti / kind / "0002").mkdir(parents=True) if kind == "instances" else (kitti / kind).mkdir(parents=True)
    if kind == "instances":
        for place in range(FRAMES):
            name = tmp_path / "out" / "instances" / "clip-a" / f"{place + 1:06d}.png"
            name.rename(kitti / kind / "0002" / f"{place:06d}.png")
    else:
        lines = (tmp_path / "out" / "train" / "clip-a" / "gt" / "gt.txt").read_text().splitlines()
        counted = [" ".join([str(int(line.split()[0]) - 1), *line.split()[1:]]) for line in lines]
        ignored = "0 10000 10 48 64 " + to_coco(np.ones((HEIGHT, WIDTH), bool))["counts"]
        (kitti / kind / "0002.txt").write_text("\n".join([*counted, ignored]))
    (video,) = DataSet(kitti, "mots").read()
    car, dog, _ = tracks()
    assert (video.name, video.frames) == ("0002", tuple(range(FRAMES)))
    assert [(t.label, t.masks) for t in video.tracks] == [("car", car.masks), ("", dog.masks)]


@pytest.mark.parametrize(
    "line", ["1 1001 1 48 64", "x 1001 1 48 64 abc", "0 1001 1 48 64 abc", "1 1001 1 9 9 abc"]
)
def test_lines_that_are_not_of_mots(tmp_path: Path, line: str) -> None:
    DataSet(tmp_path / "out", "mots").write(videos()[:1])
    file = tmp_path / "out" / "train" / "clip-a" / "gt" / "gt.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(SvacError, match=r"gt\.txt cannot be used"):
        list(DataSet(tmp_path / "out", "mots").read())


def test_youtube_vos_is_ref_youtube_vos_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    DataSet(out, "youtube-vos", "train").write(videos(), opener=source)
    meta = json.loads((out / "train" / "meta.json").read_text())["videos"]["clip-a"]["objects"]
    assert [one["category"] for one in meta.values()] == ["car", "dog", "dog"]
    assert meta["2"]["frames"] == ["00000", "00001", "00003", "00004", "00005"]
    benchmark = open_benchmark("ref-youtube-vos", out, "train")
    truth = open_truth(benchmark)
    assert truth is not None
    (video, _) = benchmark.videos
    car, dog, _ = tracks()
    for expression, track in zip(video.expressions, (car, dog), strict=False):
        assert expression.text == track.expression
        mask = truth.target(video, expression).mask(0)
        assert mask is not None
        assert np.array_equal(mask, from_coco(track.masks[0]))
    # The release has neither our file nor sentences.
    (out / "train" / "svac_objects.json").unlink()
    (out / "meta_expressions" / "train" / "meta_expressions.json").unlink()
    (first, _) = list(DataSet(out, "youtube-vos").read())
    assert [(t.label, t.masks) for t in first.tracks] == [("car", car.masks), ("dog", dog.masks), ("dog", {})]


def test_a_stream_gets_the_numbers_of_the_labels_that_are_known(tmp_path: Path) -> None:
    DataSet(tmp_path / "out", "coco").write(iter(videos()), labels=["dog", "bird"])
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "dog"), (2, "bird"), (3, "car")]


def test_json_is_written_in_pieces(tmp_path: Path) -> None:
    stream = JsonStream(tmp_path / "a" / "b.json", lists=["few", "none"], mappings=["many"])
    many = {f"clé {i}": "x" * 1000 for i in range(1000)}
    for key, value in many.items():
        stream.put("many", key, value)
    stream.append("few", {"a": [1, None]})
    assert stream.count("many") == 1000
    assert next((tmp_path / "a").glob(".b.json.many.part")).stat().st_size > 500_000, "it is not held"
    stream.close({"info": 7})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {
        "info": 7,
        "few": [{"a": [1, None]}],
        "none": [],
        "many": many,
    }
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    whole = JsonStream(tmp_path / "whole.json", mappings=[""])
    whole.put("", "0", None)
    whole.close()
    assert json.loads((tmp_path / "whole.json").read_text()) == {"0": None}


def test_memory_does_not_grow_with_the_number_of_tasks(tmp_path: Path) -> None:
    """For the layout with most in its lists; scripts/lab/drill/exports.py measures them all, with more tasks."""
    few, many = peak_mb("coco", 40, tmp_path / "few"), peak_mb("coco", 240, tmp_path / "many")
    assert many < 1.1 * few


def test_the_help_names_all_layouts() -> None:
    assert tuple(LAYOUTS.replace(" or ", ", ").split(", ")) == FORMATS
