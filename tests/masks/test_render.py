"""Overlays, contact sheets and overlay videos."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.masks.render import PALETTE, OverlayWriter, contact_sheet, overlay

GREY = np.full((90, 160, 3), 100, np.uint8)


def box(left: int, top: int, right: int, bottom: int, shape: tuple[int, int] = (90, 160)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_mask_is_filled_half_way_to_its_colour_and_outlined_in_it() -> None:
    frame = GREY.copy()
    drawn = overlay(frame, np.stack([box(20, 30, 60, 70), box(100, 30, 140, 70)]))
    np.testing.assert_array_equal(frame, GREY)
    for n, left in enumerate((20, 100)):
        np.testing.assert_allclose(drawn[50, left + 20], (100 + np.array(PALETTE[n])) / 2, atol=1)
        np.testing.assert_array_equal(drawn[30, left + 20], PALETTE[n])
        np.testing.assert_array_equal(drawn[50, left], PALETTE[n])
    outside = ~(box(18, 28, 62, 72) | box(98, 28, 142, 72))
    assert (drawn[outside] == 100).all()


def test_no_mask_and_empty_masks_leave_the_frame_as_it_is() -> None:
    np.testing.assert_array_equal(overlay(GREY, np.zeros((0, 90, 160), bool)), GREY)
    np.testing.assert_array_equal(overlay(GREY, np.zeros((2, 90, 160), bool), labels=["a", "b"]), GREY)


def test_more_objects_than_colours() -> None:
    masks = np.stack([box(10 * n, 0, 10 * n + 10, 90) for n in range(9)])
    drawn = overlay(GREY, masks)
    np.testing.assert_array_equal(drawn[45, 75], drawn[45, 5])
    assert len({tuple(drawn[45, 10 * n + 5]) for n in range(7)}) == 7


def test_a_hole_is_not_filled() -> None:
    mask = box(20, 20, 80, 80) & ~box(40, 40, 60, 60)
    drawn = overlay(GREY, mask[None])
    np.testing.assert_array_equal(drawn[50, 50], (100, 100, 100))


def test_a_read_only_frame_and_views_are_taken() -> None:
    frame = np.broadcast_to(np.uint8(100), (90, 160, 3))
    masks = np.asfortranarray(box(20, 30, 60, 70))[None]
    np.testing.assert_array_equal(overlay(frame, masks), overlay(GREY, box(20, 30, 60, 70)[None]))


@pytest.mark.parametrize("region", [(20, 30, 60, 70), (0, 0, 10, 10), (150, 80, 160, 90), (0, 0, 160, 90)])
def test_a_label_stands_in_its_colour_within_the_picture(region: tuple[int, int, int, int]) -> None:
    mask = box(*region)[None]
    plain, named = overlay(GREY, mask), overlay(GREY, mask, labels=["dog"])
    changed = (plain != named).any(axis=2)
    assert changed.sum() > 100
    assert (named[changed] == PALETTE[0]).all(axis=1).mean() > 0.4


def test_a_label_longer_than_the_picture_is_cut() -> None:
    drawn = overlay(GREY, box(20, 30, 60, 70)[None], labels=["the dog that jumps over the fence " * 5])
    assert drawn.shape == GREY.shape


@pytest.mark.parametrize("side", [1, 2, 3, 9])
def test_tiny_pictures(side: int) -> None:
    frame = np.zeros((side, side, 3), np.uint8)
    drawn = overlay(frame, np.ones((1, side, side), bool), labels=["dog"])
    assert drawn.shape == frame.shape
    assert drawn.any()


@pytest.mark.parametrize(
    ("frame", "masks", "labels", "reason"),
    [
        (GREY.astype(np.float32), np.zeros((1, 90, 160), bool), None, "picture is u8"),
        (GREY[..., 0], np.zeros((1, 90, 160), bool), None, "picture is u8"),
        (GREY, np.zeros((1, 90, 160), np.uint8), None, "do not lie on a frame"),
        (GREY, np.zeros((90, 160), bool), None, "do not lie on a frame"),
        (GREY, np.zeros((1, 160, 90), bool), None, "do not lie on a frame"),
        (GREY, np.zeros((2, 90, 160), bool), ["dog"], "1 labels were given for 2 masks"),
    ],
)
def test_bad_input_is_refused(
    frame: np.ndarray, masks: np.ndarray, labels: list[str] | None, reason: str
) -> None:
    with pytest.raises(SvacError, match=reason):
        overlay(frame, masks, labels=labels)


def test_the_palette_tells_apart_without_red_and_green() -> None:
    """With the red-green difference taken away, as deuteranopes see, no two colours are alike."""
    luminance_and_blue = np.array([(0.3 * r + 0.6 * g + 0.1 * b, b - (r + g) / 2) for r, g, b in PALETTE])
    distance = np.linalg.norm(luminance_and_blue[:, None] - luminance_and_blue[None], axis=2)
    assert distance[~np.eye(len(PALETTE), dtype=bool)].min() > 30


def test_a_contact_sheet_lays_pictures_out_in_rows() -> None:
    pictures = [np.full((20 + n, 30, 3), 10 * n, np.uint8) for n in range(5)]
    sheet = contact_sheet(pictures, columns=2)
    found = [(sheet == 10 * n).all(axis=2) for n in range(5)]
    assert [int(picture.sum()) for picture in found] == [(20 + n) * 30 for n in range(5)]
    corners = [tuple(np.argwhere(picture)[0]) for picture in found]
    assert corners[0][0] == corners[1][0] < corners[2][0] == corners[3][0] < corners[4][0]
    assert corners[0][1] == corners[2][1] == corners[4][1] < corners[1][1] == corners[3][1]


def test_titles_stand_above_their_pictures() -> None:
    pictures = [np.full((40, 60, 3), 128, np.uint8)] * 2
    bare, titled = (
        contact_sheet(pictures, columns=5),
        contact_sheet(pictures, columns=5, titles=["frame 0", ""]),
    )
    assert titled.shape[0] > bare.shape[0]
    assert titled.shape[1] == bare.shape[1]
    first_row = int(np.argwhere((titled == 128).all(axis=2))[0][0])
    strip = titled[:first_row]
    middle = strip.shape[1] // 2
    assert strip[:, :middle].min() < 60
    assert strip[:, middle:].min() == 255


def test_bad_sheets_are_refused() -> None:
    with pytest.raises(SvacError, match="needs a picture"):
        contact_sheet([], columns=2)
    with pytest.raises(SvacError, match="needs a picture and a column"):
        contact_sheet([GREY], columns=0)
    with pytest.raises(SvacError, match="2 titles were given for 1 pictures"):
        contact_sheet([GREY], columns=1, titles=["a", "b"])


def read(path: Path) -> tuple[list[np.ndarray], av.video.stream.VideoStream]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], stream


@pytest.mark.parametrize(("width", "height"), [(160, 90), (161, 91), (33, 64), (1, 1)])
@pytest.mark.parametrize("fps", [24.0, 30000 / 1001])
def test_a_video_holds_every_frame_at_its_rate(tmp_path: Path, width: int, height: int, fps: float) -> None:
    path = tmp_path / "out.mp4"
    with OverlayWriter(path, fps, width, height) as writer:
        for value in (40, 120, 200):
            writer.write(np.full((height, width, 3), value, np.uint8))
    frames, stream = read(path)
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert float(stream.average_rate) == pytest.approx(fps, rel=1e-5)
    assert [frame.shape for frame in frames] == [(height + height % 2, width + width % 2, 3)] * 3
    assert [round(float(frame.mean())) for frame in frames] == pytest.approx([40, 120, 200], abs=3)


def test_a_video_shows_the_masks_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    mask = box(16, 16, 96, 80)
    with OverlayWriter(path, 25, 160, 90) as writer:
        writer.write(GREY, mask[None], labels=["dog"])
        writer.write(GREY)
    (first, second), _ = read(path)
    np.testing.assert_allclose(first[60, 60], overlay(GREY, mask[None])[60, 60], atol=6)
    np.testing.assert_allclose(second[60, 60], (100, 100, 100), atol=6)


def test_a_video_cannot_be_empty_and_takes_no_frame_of_another_size(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with pytest.raises(SvacError, match="No frame was written"), OverlayWriter(path, 25, 160, 90):
        pass
    assert not path.exists()
    with OverlayWriter(path, 25, 160, 90) as writer:
        writer.write(GREY)
        with pytest.raises(SvacError, match="does not fit"):
            writer.write(GREY[:50])
    assert len(read(path)[0]) == 1


def test_a_video_that_is_interrupted_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"

    def interrupted() -> None:
        with OverlayWriter(path, 25, 160, 90) as writer:
            for _ in range(100):
                writer.write(GREY)
            assert path.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()


def test_bad_videos_are_refused(tmp_path: Path) -> None:
    for fps, width, height in ((0, 160, 90), (float("nan"), 160, 90), (25, 0, 90)):
        with pytest.raises(SvacError, match="No video has"):
            OverlayWriter(tmp_path / "out.mp4", fps, width, height)
    with pytest.raises(SvacError, match="does not exist"):
        OverlayWriter(tmp_path / "nowhere" / "out.mp4", 25, 160, 90)
    writer = OverlayWriter(tmp_path / "out.mp4", 25, 160, 90)
    writer.write(GREY)
    writer.close()
    writer.close()
    with pytest.raises(SvacError, match="finished already"):
        writer.write(GREY)
