"""What bodies, annotations and files may claim; what it leads to is measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.read import read_drawings, results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas, RegionName, frame_size
from svac_backend.labelstudio.regions.sent import removals
from svac_backend.labelstudio.tasks import Window, task_prompts
from svac_backend.masks.limits import MAX_FRAMES, MaskRoom, check_size

pytestmark = pytest.mark.slow

CONFIG = parse_config(
    """<View><Image name="frames" valueList="$frames"/>
    <PolygonLabels name="mask" toName="frames"><Label value="dog"/></PolygonLabels>
    <Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/>
    <Labels name="labels" toName="video"><Label value="dog"/></Labels></View>"""
)
# Reads JSON (results, width, height) and prints how many MB the process grew while it made tracks of them.
READ = """
import json, sys
from svac_backend.errors import SvacError
from svac_backend.labelstudio.regions.read import results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas
from tests.masks.test_limits import CONFIG
results, width, height = json.load(sys.stdin)
def peak_kb():  # of this process alone; ru_maxrss begins with that of the parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
before = peak_kb()
try:
    results_to_tracks(results, CONFIG, Canvas(width, height))
    print("read", end=" ")
except SvacError as error:
    print(error.message, end=" ")
print((peak_kb() - before) // 1024)
"""


def polygon(points: list[Any], number: int = 1, **other: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "from_name": "mask",
        "to_name": "frames",
        "type": "polygonlabels",
        "item_index": number,
        "value": {"points": points, "closed": True, "polygonlabels": ["dog"]},
        **other,
    }


def grown(results: list[dict[str, Any]], width: int, height: int) -> tuple[str, int]:
    """Return what reading says, and by how many MB it grows."""
    text = json.dumps([results, width, height])
    done = subprocess.run(
        [sys.executable, "-c", READ], input=text, capture_output=True, text=True, check=True
    )
    said, _, megabytes = done.stdout.strip().rpartition(" ")
    return said, int(megabytes)


def test_a_frame_of_400_megapixels_is_never_allocated() -> None:
    said, megabytes = grown([polygon([[0, 0], [100, 0], [100, 100]])], 20_000, 20_000)
    assert "larger than any" in said
    assert megabytes < 50


def test_a_zigzag_is_drawn_in_little_memory_and_refused_where_its_rle_would_be_huge() -> None:
    points = [[k % 2 * 100, k / 50] for k in range(4000)] + [[k % 100, k % 2 * 100] for k in range(1000)]
    said, megabytes = grown([polygon(points)], 7680, 4320)
    assert "edges in a mask" in said
    assert megabytes < 300
    said, megabytes = grown([polygon(points[:400])], 7680, 4320)
    assert said == "read"
    assert megabytes < 300


def test_masks_of_an_annotation_share_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room = MaskRoom(10)
    room.take(10)
    with pytest.raises(SvacError, match="take more than"):
        room.take(1)
    monkeypatch.setattr("svac_backend.labelstudio.regions.read.MaskRoom", lambda: MaskRoom(30))
    regions = [polygon([[0, 0], [50, 0], [50, 50]], number) for number in range(10)]
    drawings = read_drawings(regions, CONFIG, Canvas(64, 48))
    with pytest.raises(SvacError, match="take more than"):
        [drawing.mask for drawing in drawings]


def test_boxes_that_follow_through_the_longest_video_are_refused_in_time() -> None:
    sequence = [
        {"frame": frame, "enabled": True, "x": x, "y": 10, "width": 60, "height": 50}
        for frame, x in ((1, 0), (199_999, 40))
    ]
    value = {"framesCount": 199_999, "duration": 9, "labels": ["dog"], "sequence": sequence}
    boxes = {"id": "b", "from_name": "box", "to_name": "video", "type": "videorectangle", "value": value}
    said, megabytes = grown([boxes], 7680, 4320)
    assert "take more than" in said
    assert megabytes < 500


@pytest.mark.parametrize(
    "points",
    [
        [[10**400, 1], [2, 2], [3, 3]],
        [[1e300, 1], [-1e300, 2], [3, 3]],
        [[0, 0]] * 50_001,
    ],
)
def test_points_without_sense_are_refused(points: list[Any]) -> None:
    with pytest.raises(SvacError):
        results_to_tracks([polygon(points)], CONFIG, Canvas(64, 48))


@pytest.mark.parametrize("item", [-1, MAX_FRAMES, 10**30, 1.5, True, "1"])
def test_frames_that_no_video_has_are_refused(item: Any) -> None:
    with pytest.raises(SvacError, match="no possible frame"):
        read_drawings([{**polygon([[0, 0], [9, 0], [9, 9]]), "item_index": item}], CONFIG, Canvas(64, 48))


def test_windows_end_where_videos_do() -> None:
    Window(0, MAX_FRAMES)
    for start, count, stride in (
        (0, MAX_FRAMES + 1, 1),
        (MAX_FRAMES, 1, 1),
        (0, 3, MAX_FRAMES),
        (0, 10**30, 1),
    ):
        with pytest.raises(SvacError, match="not possible"):
            Window(start, count, stride)


def test_ids_with_endless_numbers_are_a_persons() -> None:
    assert RegionName.read("obj1-f" + "9" * 5000) is None
    assert RegionName.read("obj1-f00001-" + "9" * 5000) is None
    assert RegionName.read("obj1-f00001-2") == RegionName("obj1", 1, 0, 2)


def test_sizes() -> None:
    check_size(4320, 7680)
    for height, width in ((8192, 8193), (1, 100_000), (10**400, 1), (0, 5), (2.5, 3)):
        with pytest.raises(SvacError):
            check_size(height, width)
    with pytest.raises(SvacError, match="larger than any"):
        frame_size([{"original_width": 20_000, "original_height": 20_000}])
    with pytest.raises(SvacError, match="larger than any"):
        removals(
            [{"id": "a", "type": "brushlabels", "value": {}, "original_width": 10**9, "original_height": 9}]
        )


def test_a_text_of_megabytes_is_no_prompt() -> None:
    with pytest.raises(SvacError, match="characters"):
        task_prompts({"prompt": "a\n" * 1_000_000}, CONFIG, max_chars=10**9)
