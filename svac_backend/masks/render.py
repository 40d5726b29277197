"""Pictures of masks: overlays on frames, contact sheets, overlay videos, and text in whatever script people write.

Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with the common forms of
colour blindness can tell apart. An object also has an outline and, if wanted, its name beside it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from svac_backend.errors import SvacError

_PADDING = 3
# Pillow looks these up in the system's font folders. The first that knows every letter of a text is taken.
_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
)
_UNASSIGNED = "\uffff"  # no font has it, so it shows what a font draws for letters it does not know

_Font = ImageFont.FreeTypeFont


@lru_cache(maxsize=256)
def text_picture(text: str, size: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return one line of text on a coloured ground.

    Args:
        text: letters that no installed font knows are shown without their accents, or as `?`.
        size: height of the font in pixels.
        background: RGB 0..255; the ink is black or white, whichever is easier to read on it.

    Returns:
        u8 [h, w, 3] RGB, read-only; every text of one size has the same height, or nearly.
    """
    text = unicodedata.normalize("NFC", " ".join(text.split()))
    font, text = _font_for(text, size)
    left, top, right, bottom = font.getbbox(text)
    _, usual_top, _, usual_bottom = font.getbbox("Ag")
    top, bottom = min(top, usual_top), max(bottom, usual_bottom)
    width, height = (int(np.ceil(side)) + 2 * _PADDING for side in (right - left, bottom - top))
    image = Image.new("RGB", (width, height), background)
    luminance = float(np.dot(background, (0.299, 0.587, 0.114)))
    ink = (0, 0, 0) if luminance > 120 else (255, 255, 255)
    ImageDraw.Draw(image).text((_PADDING - left, _PADDING - top), text, fill=ink, font=font)
    return np.asarray(image)


def _font_for(text: str, size: int) -> tuple[_Font, str]:
    """Return a font that knows every letter of the text, or else a font and a text plain enough for it."""
    fonts = [font for name in _FONTS if (font := _installed(name, size)) is not None]
    for font in fonts:
        if _knows(font, text):
            return font, text
    font = fonts[0] if fonts else _built_in(size)
    return font, "".join(letter if _knows(font, letter) else _plain(letter) for letter in text)


def _plain(letter: str) -> str:
    """Return the ASCII letter under an accent, or `?`."""
    return unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode("ascii") or "?"


def _knows(font: _Font, text: str) -> bool:
    unknown = bytes(font.getmask(_UNASSIGNED))
    return all(letter == " " or bytes(font.getmask(letter)) != unknown for letter in set(text))


@lru_cache(maxsize=64)
def _installed(name: str, size: int) -> _Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # not on this system: the next name is tried
        return None


@lru_cache(maxsize=8)
def _built_in(size: int) -> _Font:
    font = ImageFont.load_default(size)  # knows ASCII only
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise SvacError(
            "This Pillow was built without FreeType.", "Install Pillow from a wheel: pip install pillow."
        )
    return font


Picture = NDArray[np.uint8]

PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (204, 121, 167),  # reddish purple
    (86, 180, 233),  # sky blue
    (213, 94, 0),  # vermilion
    (240, 228, 66),  # yellow
)
"""RGB 0..255 of object 0, 1, ...; it starts again after the last."""

_OPACITY = 0.5
_SHEET_GAP = 6
_SHEET_BACKGROUND = 255


def overlay(frame: Picture, masks: NDArray[np.bool_], *, labels: Sequence[str] | None = None) -> Picture:
    """Draw masks over a frame: a translucent fill, an outline and a name for each object.

    Args:
        frame: u8 [H, W, 3] RGB; it is left as it is.
        masks: bool [N, H, W], object n in colour `PALETTE[n % len(PALETTE)]`; later ones lie on top.
        labels: N names; an empty one draws nothing.

    Returns:
        u8 [H, W, 3] RGB, a new array.

    Raises:
        SvacError: a wrong dtype or shape, or more or fewer labels than masks.
    """
    _check_picture(frame)
    height, width = frame.shape[:2]
    if masks.dtype != np.bool_ or masks.ndim != 3 or masks.shape[1:] != (height, width):
        raise SvacError(
            f"Masks of {masks.dtype} {list(masks.shape)} do not lie on a frame of {width}x{height} pixels.",
            "Give bool masks [N, H, W] of the frame's size.",
        )
    if labels is not None and len(labels) != len(masks):
        raise SvacError(
            f"{len(labels)} labels were given for {len(masks)} masks.", "Give one label per mask."
        )

    drawn = np.ascontiguousarray(frame).copy()
    boxes = [_draw_mask(drawn, mask, PALETTE[n % len(PALETTE)]) for n, mask in enumerate(masks)]
    for n, (box, label) in enumerate(zip(boxes, labels or [], strict=False)):
        if box is not None and label:  # after all fills, so that no mask hides a name
            _draw_label(drawn, label, box, PALETTE[n % len(PALETTE)])
    return drawn


def _draw_mask(
    drawn: Picture, mask: NDArray[np.bool_], colour: tuple[int, int, int]
) -> tuple[int, int] | None:
    """Fill and outline one mask within its bounding box; return its left and top, None if it is empty."""
    cover = np.ascontiguousarray(mask).view(np.uint8)
    left, top, width, height = cv2.boundingRect(cover)
    if width == 0:
        return None
    region = drawn[top : top + height, left : left + width]
    inside = np.ascontiguousarray(cover[top : top + height, left : left + width])
    cv2.copyTo(cv2.LUT(region, _blend_table(colour)), inside, region)
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(drawn.shape[:2]) / 360))
    cv2.drawContours(drawn, contours, -1, colour, thickness, offset=(left, top))
    return left, top


@lru_cache(maxsize=64)
def _blend_table(colour: tuple[int, int, int]) -> Picture:
    """Return u8 [1, 256, 3]: what each channel value becomes under a translucent fill."""
    values = np.arange(256)[:, None] * (1 - _OPACITY) + np.array(colour) * _OPACITY
    return values.round().astype(np.uint8)[None]


def _draw_label(drawn: Picture, label: str, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Put a name above the box that starts at `corner`, moved so that it stays within the picture."""
    height, width = drawn.shape[:2]
    tag = text_picture(label, max(11, round(min(height, width) / 40)), colour)
    tag = tag[:height, :width]
    left = min(corner[0], width - tag.shape[1])
    top = max(corner[1] - tag.shape[0], 0)
    drawn[top : top + tag.shape[0], left : left + tag.shape[1]] = tag[: height - top]


def contact_sheet(images: Sequence[Picture], *, columns: int, titles: Sequence[str] | None = None) -> Picture:
    """Lay pictures out in rows, each with its title above it.

    Args:
        images: u8 [h, w, 3] RGB each; sizes may differ, each cell has the size of the largest.
        columns: pictures per row, 1 at least.
        titles: one per picture.

    Returns:
        u8 [H, W, 3] RGB on white.

    Raises:
        SvacError: no picture, no column, or more or fewer titles than pictures.
    """
    if not images or columns < 1:
        raise SvacError("A contact sheet needs a picture and a column.", "Give at least one of each.")
    if titles is not None and len(titles) != len(images):
        raise SvacError(
            f"{len(titles)} titles were given for {len(images)} pictures.", "Give one title per picture."
        )
    for image in images:
        _check_picture(image)
    white = (_SHEET_BACKGROUND,) * 3
    cell_height, cell_width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    size = max(12, round(cell_height / 24))
    strips = [text_picture(title, size, white) for title in titles] if titles is not None else []
    strip_height = max((strip.shape[0] for strip in strips), default=0)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_y, step_x = cell_height + strip_height + _SHEET_GAP, cell_width + _SHEET_GAP
    sheet = np.full(
        (rows * step_y + _SHEET_GAP, columns * step_x + _SHEET_GAP, 3), _SHEET_BACKGROUND, np.uint8
    )
    for i, image in enumerate(images):
        y, x = (i // columns) * step_y + _SHEET_GAP, (i % columns) * step_x + _SHEET_GAP
        if strips:
            strip = strips[i][:, :cell_width]
            sheet[y : y + strip.shape[0], x : x + strip.shape[1]] = strip
        y += strip_height
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


class OverlayWriter:
    """Writes frames, with masks drawn over them, to an MP4 that browsers play (H.264, yuv420p).

    H.264 with 4:2:0 colour needs even sides: the last column or row of an odd picture is doubled.
    A context manager; when its body raises, the half-written file is removed.

    Args:
        path: file to write; its folder must exist.
        fps: frames per second, 0.001 to 1000; the video's true average rate keeps overlay and video in step.
        width, height: size of the frames in pixels.

    Raises:
        SvacError: a rate or size that no video can have, or a folder that does not exist.
    """

    def __init__(self, path: str | Path, fps: float, width: int, height: int) -> None:
        if not 0.001 <= fps <= 1000 or min(width, height) < 1:
            raise SvacError(
                f"No video has {width}x{height} pixels and {fps} frames per second.",
                "Give a positive size and a rate from 0.001 to 1000.",
            )
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise SvacError(f"The folder {self.path.parent} does not exist.", "Create it first.")
        self.width, self.height = width, height
        self.frames_written = 0
        rate = Fraction(fps).limit_denominator(100_000)
        self._frame_time = 1 / rate
        self._container: OutputContainer | None = av.open(
            str(self.path), "w", format="mp4", options={"movflags": "+faststart"}
        )
        stream = self._container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        # The matrix and range that cv2 converts with; a player would guess BT.709 for large pictures.
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        self._stream = stream

    def write(
        self, frame: Picture, masks: NDArray[np.bool_] | None = None, *, labels: Sequence[str] | None = None
    ) -> None:
        """Append a frame, u8 [H, W, 3] RGB; with masks bool [N, H, W], drawn as by `overlay`.

        Raises:
            SvacError: the frame has another size than the video, or as `overlay`.
        """
        if self._container is None:
            raise SvacError(f"{self.path.name} is finished already.", "Make a new writer for more frames.")
        _check_picture(frame)
        if frame.shape[:2] != (self.height, self.width):
            raise SvacError(
                f"A frame of {frame.shape[1]}x{frame.shape[0]} pixels does not fit into a video of "
                f"{self.width}x{self.height}.",
                "Give every frame in the size that the writer was made with.",
            )
        if masks is not None:
            frame = overlay(frame, masks, labels=labels)
        odd_rows, odd_columns = self.height % 2, self.width % 2
        if odd_rows or odd_columns:
            frame = np.pad(frame, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
        planes = np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2YUV_I420), dtype=np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts = self.frames_written
        picture.time_base = self._frame_time
        self._container.mux(self._stream.encode(picture))
        self.frames_written += 1

    def close(self) -> None:
        """Finish the file. Raises `SvacError` if no frame was written; nothing is left behind then."""
        if self._container is None:
            return
        if not self.frames_written:
            self._discard()
            raise SvacError(
                f"No frame was written to {self.path.name}.", "Write at least one frame before closing."
            )
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None

    def _discard(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()


def _check_picture(frame: Picture) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise SvacError(
            f"A picture is u8 [H, W, 3], not {frame.dtype} {list(frame.shape)}.",
            "Convert it to 8-bit RGB first.",
        )
