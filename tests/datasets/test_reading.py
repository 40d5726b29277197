"""Tasks of Label Studio, as its API and its export file have them, become one set of tracks for each video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from svac_backend.cli.inputs import SHIPPED
from svac_backend.datasets.export_file import checked, infer_config
from svac_backend.datasets.reading import Choice, ProjectVideo, ProjectVideos, read_tasks
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import WINDOW_KEY, Window
from svac_backend.masks.rle import iou
from svac_backend.masks.tracks import ObjectPrompt, Track
from tests.datasets.made import HEIGHT, WIDTH, rectangle

FRAMES = 20
URL = "/data/local-files/?d=svac/1/dog-abc/dog.mp4"
XML = (
    (SHIPPED / "brush_frames.xml")
    .read_text()
    .replace('<Label value="object"', '<Label value="car"/><Label value="dog"/><Label value="object"', 1)
)
CONFIG = parse_config(XML)
WINDOWS = Windowing(8, 2).of(FRAMES)


def tracks(shift: int = 0) -> list[Track]:
    car = Track("obj1", "car", "the red car", {i: rectangle(i + shift, 4, 20, 20) for i in range(FRAMES)})
    dog = Track("obj2", "dog", "the dog", {i: rectangle(30, 20 + i, 12, 20) for i in range(5, 15)})
    return [car, dog]


def results(of: Sequence[Track], window: Window | None) -> list[dict[str, Any]]:
    return tracks_to_results(of, CONFIG.mask_control(), Canvas(WIDTH, HEIGHT, window))


def task(number: int, window: Window | None, url: str = URL, **entries: Any) -> dict[str, Any]:
    count = window.count if window else FRAMES
    data: dict[str, Any] = {"video": url, "fps": 12.5, "prompt": ["car: the red car", "dog: the dog"]}
    data["frames"] = [f"/f/{i}.jpg" for i in range(count)]
    if window:
        data[WINDOW_KEY] = window.to_json()
    return {"id": number, "data": data, **entries}


def entry(result: Any, when: str = "2026-11-22T10:00:00.5Z", **fields: Any) -> dict[str, Any]:
    return {"result": result, "updated_at": when, **fields}


def annotated(
    window: Window | None, number: int = 1, of: Sequence[Track] | None = None, **more: Any
) -> dict[str, Any]:
    sent = entry(results(tracks(), window), id=90 + number, model_version="v1")
    now = entry(results(of or tracks(), window), parent_prediction=90 + number, **more)
    return task(number, window, annotations=[now], predictions=[sent])


@dataclass
class Read:
    """All that was read: the videos, and what is known when the last of them was asked for."""

    videos: list[ProjectVideo]
    notes: list[str]
    drafts: int
    refused: list[SvacError]

    @classmethod
    def all_of(cls, found: ProjectVideos) -> Read:
        return cls(list(found.videos), found.notes, found.drafts, found.refused)


def read(tasks: Sequence[Mapping[str, Any]], choice: Choice | None = None, **options: Any) -> Read:
    return Read.all_of(read_tasks(tasks, lambda one: one, CONFIG, choice or Choice(), **options))


def same(found: Sequence[Track], wanted: Sequence[Track]) -> bool:
    return [(t.object_id, t.label, t.expression, t.masks) for t in found] == [
        (t.object_id, t.label, t.expression, t.masks) for t in wanted
    ]


@pytest.mark.parametrize("source", ["annotations", "predictions"])
def test_windows_of_one_video_become_one(source: str) -> None:
    told: list[float] = []
    tasks = [annotated(window, number) for number, window in enumerate(WINDOWS)]
    found = read(tasks[::-1], Choice(source), progress=told.append)
    (one,) = found.videos
    assert (one.video.name, one.url, one.task) == ("dog", URL, len(WINDOWS) - 1)
    assert (one.video.width, one.video.height, one.video.fps) == (WIDTH, HEIGHT, 12.5)
    assert one.video.frames == tuple(range(FRAMES))
    assert same(one.video.tracks, tracks())
    assert (found.notes, told[-1]) == ([], 1.0)


def test_what_a_person_changed_in_the_overlap_stays() -> None:
    first, second = WINDOWS[0], WINDOWS[1]
    last = first.start + first.count - 1  # of the first; further from the edge in the second
    painted = tracks()
    painted[0].masks[last] = rectangle(0, 0, 9, 9)
    found = read([annotated(first, 1, painted), annotated(second, 2)])
    (one,) = found.videos
    assert one.video.tracks[0].masks[last] == rectangle(0, 0, 9, 9)
    # Without the change the second window has the say.
    moved = read([annotated(first, 1), annotated(second, 2)])
    assert moved.videos[0].video.tracks[0].masks[last] == tracks()[0].masks[last]


def test_a_window_without_annotation_is_said_and_left_out() -> None:
    first, second = WINDOWS[:2]
    drafted = task(2, second, drafts=[entry(results(tracks(), second))])
    found = read([annotated(first), drafted, task(3, WINDOWS[2], predictions=[entry([])])])
    (one,) = found.videos
    assert one.video.frames == tuple(range(second.start + second.count))
    assert found.drafts == 1
    assert found.notes == ["dog: 1 of its 3 tasks have no annotation (task 3); their frames are left out."]
    submitted = read([annotated(first), drafted], Choice(only_submitted=True))
    assert submitted.videos[0].video.frames == tuple(range(first.count))
    assert submitted.drafts == 0


def test_which_annotation_counts() -> None:
    old, new, wrong = (results(tracks(shift), None) for shift in (0, 2, 4))
    annotations = [
        entry(new, "2026-11-22T11:00:00Z"),
        entry(old, "2026-11-22T10:00:00Z"),
        entry(wrong, "2026-11-22T12:00:00Z", was_cancelled=True),
    ]
    one = task(1, None, annotations=annotations, drafts=[entry(wrong, "2026-11-22T13:00:00Z")])
    assert same(read([one]).videos[0].video.tracks, tracks(2)), "the one saved last"
    annotations[1]["ground_truth"] = True
    assert same(read([one]).videos[0].video.tracks, tracks(0)), "the ground truth"
    skipped = task(1, None, annotations=[entry(new, was_cancelled=True)])
    found = read([skipped])
    assert found.videos == []
    assert found.notes == ["dog: no annotation (task 1), so it is left out."]


def test_which_prediction_counts() -> None:
    old, new = (results(tracks(shift), None) for shift in (0, 2))
    one = task(
        1,
        None,
        predictions=[
            entry(new, "2026-11-22T11:00:00Z", model_version="b"),
            entry(old, "2026-11-22T10:00:00Z", model_version="a"),
            7,  # some exports give ids only
        ],
    )
    for version, shift in (("a", 0), ("b", 2), ("", 2), ("gone", 2)):
        found = read([one], Choice("predictions", model_version=version))
        assert same(found.videos[0].video.tracks, tracks(shift))


def test_another_prompt_and_another_video_are_other_videos() -> None:
    other = annotated(None, 2)
    other["data"]["prompt"] = "the dog"
    third = annotated(None, 3)
    third["data"]["video"] = "http://elsewhere.example/a/DOG%20one.mp4?signature=7"
    found = read([annotated(None), other, third])
    assert [one.video.name for one in found.videos] == ["dog", "dog-2", "DOG_one"]


def test_the_same_video_signed_twice_is_one() -> None:
    tasks = [annotated(window, number) for number, window in enumerate(WINDOWS)]
    for number, one in enumerate(tasks):
        one["data"]["video"] = f"https://bucket.example/dog.mp4?X-Amz-Signature={number}&X-Amz-Date={number}"
    assert len(read(tasks).videos) == 1


def test_expressions_of_objects_that_were_asked_for_in_the_editor() -> None:
    more = [*tracks(), Track("obj3", "object", "the bird", {2: rectangle(2, 2, 5, 5)})]
    asked = {URL: [ObjectPrompt("obj3", "object", "the bird")]}
    found = read([annotated(None, of=more)], known=lambda url: asked[url])
    assert same(found.videos[0].video.tracks, more)
    unknown = read([annotated(None, of=more)])
    assert unknown.videos[0].video.tracks[2].expression == "object"


def test_objects_that_are_on_no_frame() -> None:
    (one,) = read([annotated(None, of=tracks()[:1])]).videos
    assert [(t.object_id, len(t.masks)) for t in one.video.tracks] == [("obj1", FRAMES), ("obj2", 0)]
    bare = annotated(None, of=tracks()[:1])
    del bare["data"]["prompt"]
    (one,) = read([bare]).videos
    assert [t.object_id for t in one.video.tracks] == ["obj1"], "labels that nobody used are no objects"


def test_tasks_that_cannot_be_read() -> None:
    empty = task(1, None)
    del empty["data"]["frames"]
    assert read([empty]).notes == ["Task 1 has no frames, so nothing can be drawn in it."]
    blank = task(1, None, annotations=[entry([])])
    assert read([blank]).notes == ["dog: nothing is drawn on it, so it is left out."]
    with pytest.raises(SvacError, match="no data"):
        read([{"id": 1}])
    with pytest.raises(SvacError, match="malformed"):
        read([task(1, None, annotations={"a": 1})])
    with pytest.raises(SvacError, match="no source"):
        Choice("dreams")


def test_a_region_that_cannot_be_read_stops_no_other_video_and_its_task_is_named() -> None:
    tasks = [annotated(None, number) for number in (415, 416, 417)]
    for number, one in enumerate(tasks):
        one.update(id=415 + number, data={**one["data"], "video": f"/data/upload/1/v{number}.mp4"})
    tasks[1]["annotations"][0]["result"][3]["image_rotation"] = 90
    found = read(tasks)
    assert [one.video.name for one in found.videos] == ["v0", "v2"]
    (note,) = found.notes
    assert note.startswith("v1 is left out. Task 416: ")
    assert "turned by 90 degrees" in note
    assert "Task 416" in found.refused[0].message


@pytest.mark.parametrize("fps", [0, -3, 1e9, float("nan"), float("inf"), None, "25", True])
def test_a_frame_rate_that_no_video_has_costs_nothing(fps: Any) -> None:
    one = annotated(None)
    one["data"]["fps"] = fps
    (found,) = read([one]).videos
    assert found.video.fps is None
    assert same(found.video.tracks, tracks())


def test_an_export_that_holds_only_numbers_is_refused() -> None:
    good = [task(1, None, predictions=[{"id": 2, "result": []}]), task(2, None, predictions=[])]
    assert list(checked(good, "predictions")) == good
    with pytest.raises(SvacError, match="only the ids of its predictions") as caught:
        list(checked([task(1, None, predictions=[286])], "predictions"))
    assert "--project" in caught.value.hint


def test_a_video_whose_regions_do_not_say_its_size() -> None:
    one = annotated(None)
    for region in [*one["annotations"][0]["result"], *one["predictions"][0]["result"]]:
        del region["original_width"], region["original_height"]
    found = read([one])
    assert found.videos == []
    assert "do not say how large it is" in found.notes[0]
    assert "do not say how large it is" in found.refused[0].message
    (video,) = read([one], measure=lambda *_: ((WIDTH, HEIGHT), "")).videos
    assert same(video.video.tracks, tracks())
    blank = task(1, None, annotations=[entry([])])
    (video,) = read([blank], measure=lambda *_: ((WIDTH, HEIGHT), "")).videos
    assert (video.video.width, len(video.video.frames), [t.masks for t in video.video.tracks]) == (
        WIDTH,
        FRAMES,
        [{}, {}],
    )
    assert read([blank], measure=lambda *_: (None, "It is gone.")).notes == [
        "dog: nothing is drawn on it, so it is left out. It is gone."
    ]


def test_another_picture_of_the_task_is_not_the_frames() -> None:
    one = annotated(None)
    other = {**one["annotations"][0]["result"][0], "id": "t", "to_name": "thumb", "from_name": "tag"}
    del other["item_index"]
    other.update(original_width=10, original_height=8)
    one["annotations"][0]["result"].insert(0, other)
    (found,) = read_tasks([one], lambda task: task, infer_config([one]), Choice()).videos
    assert same(found.video.tracks, tracks())


def test_the_config_of_an_export_is_told_from_its_regions() -> None:
    one = json.loads(json.dumps(annotated(WINDOWS[0])))
    config = infer_config([one])
    control = config.mask_control()
    assert (control.kind, control.name, set(control.labels)) == ("brush", "mask", {"car", "dog"})
    found = read_tasks([one], lambda task: task, config, Choice())
    assert same(next(found.videos).video.tracks, read([annotated(WINDOWS[0])]).videos[0].video.tracks)
    with pytest.raises(SvacError, match="no masks") as caught:
        infer_config([task(1, None)])
    assert "--config" in caught.value.hint


def test_other_names_for_the_data_are_found() -> None:
    one = annotated(None)
    one["data"] = {"clip": URL, "pictures": one["data"]["frames"], "fps": 10, "prompt": ["car: the red car"]}
    config = infer_config([one])
    assert config.frames is not None
    assert config.video is not None
    assert (config.frames.key, config.video.key) == ("pictures", "clip")
    (found,) = read_tasks([one], lambda task: task, config, Choice()).videos
    assert found.url == URL
    masks = found.video.tracks[0].masks
    assert min(iou(masks[i], tracks()[0].masks[i]) for i in range(FRAMES)) == 1.0
