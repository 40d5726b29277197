"""Looks at a video file once: its facts, the timestamp of every frame, and where a seek is safe.

Reading the packets costs milliseconds, decoding them costs seconds. Packets tell the exact frames of most
files; where they are known to lie, or contradict themselves, the file is decoded once instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from svac_backend.errors import SvacError
from svac_backend.video.bitstream import matroska_is_cut, resets_decoder
from svac_backend.video.index import FrameIndex
from svac_backend.video.orientation import Orientation

REENCODE = "Re-encode it, e.g. `ffmpeg -i in.mp4 -c:v libx264 -pix_fmt yuv420p out.mp4`, and try again."

# Containers that hold video, and the audio ones that deserve a better message than "unknown format".
# All others are refused: FFmpeg would render a text file as pictures, or follow a playlist to other files.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,asf,mpegvideo,h264,hevc,obu,ivf,mxf,nut,dv,m4v,"
    "yuv4mpegpipe,apng,rm,mp3,wav,flac,aac"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}

# Codecs of which one packet is one shown frame, if the stream is not interlaced. VP8 hides frames in packets
# of their own; MPEG-4 part 2 has packets without a picture.
_ONE_PACKET_ONE_FRAME = {"h264", "hevc", "vp9", "av1"}
_PROGRESSIVE = {0, 1}  # AVFieldOrder: unknown, progressive


@dataclass(frozen=True)
class VideoInfo:
    """What a video is.

    Attributes:
        width, height: display size in pixels, after rotation.
        frame_count: exact number of frames.
        fps: true average frame rate, frames per second.
        duration: seconds from the first frame to the end of the last.
        rotation: clockwise degrees that turn the stored picture into the shown one: 0, 90, 180 or 270.
        variable_frame_rate: the frames are not evenly spaced.
        codec: FFmpeg's name of the codec, e.g. `h264`; `array` for frames that came as an array.
    """

    width: int
    height: int
    frame_count: int
    fps: float
    duration: float
    rotation: int
    variable_frame_rate: bool
    codec: str


@dataclass(frozen=True)
class Probe:
    """All that reading the frames of a file needs to know.

    Attributes:
        path: the file, absolute.
        signature: its (size in bytes, modification time in ns).
        info, index: as in `VideoSource`.
        decoded_pts: the timestamp that the decoder gives each frame; None where the file has none.
        seek_points: indices of frames before which decoding may start and still give the same pixels; has 0.
        orientation: how the stored picture is turned.
        stored_size: (width, height) in pixels before rotation.
    """

    path: Path
    signature: tuple[int, int]
    info: VideoInfo
    index: FrameIndex
    decoded_pts: tuple[int | None, ...]
    seek_points: tuple[int, ...]
    orientation: Orientation
    stored_size: tuple[int, int]


@dataclass
class _Packets:
    """What the packets say: timestamps, the key packets that reset the decoder, and whether all is well."""

    pts: list[int | None]
    resets: list[int]  # positions in decoding order
    whole: bool
    discarded: int


def signature_of(path: Path) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns) of a file.

    Raises:
        SvacError: no such file, or not a plain file.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise SvacError(f"The video {path} cannot be read: {error.strerror}.", "Check the path.") from error
    if path.is_dir():
        raise SvacError(f"{path} is a folder, not a video.", "Give the path of one video file.")
    if not path.is_file():  # a pipe or a device could block for ever
        raise SvacError(f"{path} is not a plain file.", "Give the path of one video file.")
    return stat.st_size, stat.st_mtime_ns


@contextmanager
def opened(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and choose its video stream; decoding uses all cores.

    Raises:
        SvacError: no video in a format that is known, or no codec for it.
    """
    size, _ = signature_of(path)
    if size == 0:
        raise SvacError(f"The video {path.name} is empty (0 bytes).", "Copy or download it again.")
    if not os.access(path, os.R_OK):
        raise SvacError(f"The video {path} may not be read.", "Give this user the right to read it.")
    try:
        # An absolute path, so that no part of the name is taken for a protocol ("http:").
        container = av.open(str(path.absolute()), options=_OPTIONS | options)
    except (av.FFmpegError, ValueError) as error:
        raise SvacError(
            f"{path.name} is not a video that can be opened ({_reason(error)}).",
            "Give a whole video file, e.g. MP4, WebM, MKV, MOV or AVI.",
        ) from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kind = "only has sound" if container.streams.audio else "has no pictures"
            raise SvacError(f"{path.name} {kind}.", "Give a file with a video stream.")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise SvacError(f"The codec of {path.name} is not known.", REENCODE)
        stream.thread_type = "AUTO"
        yield container, stream


def probe(path: Path, *, max_side: int, max_frames: int) -> Probe:
    """Find the facts, the frame index and the safe seek points of a video file.

    Args:
        path: a video file.
        max_side: largest width or height in pixels; checked before anything is decoded.
        max_frames: largest number of frames.

    Raises:
        SvacError: no such file, not a video, no frames, cut off, too large, or too long.
    """
    path = Path(path).absolute()
    signature = signature_of(path)
    with opened(path) as (container, stream):
        check_side(path, stream.codec_context.width, stream.codec_context.height, max_side)
        codec = stream.codec_context.codec
        codec_name = codec.canonical_name
        trusted = (codec_name in _ONE_PACKET_ONE_FRAME and stream.codec_context.field_order in _PROGRESSIVE) or (
            codec.intra_only
        )
        packets = _read_packets(path, container, stream, max_frames)
        time_base, declared, promised = stream.time_base, stream.average_rate, stream.frames
        safe_format = "444" not in (stream.codec_context.pix_fmt or "")
        is_matroska = "matroska" in container.format.name
    first, orientation, stored_size = _first_frame(path)
    check_side(path, *stored_size, max_side)

    whole = packets.whole and not (is_matroska and matroska_is_cut(path))
    if whole and promised > len(packets.pts) + packets.discarded:
        # An edit list legitimately hides frames; without it all that were promised must be there.
        with opened(path, ignore_editlist="1") as (container, stream):
            unedited = _read_packets(path, container, stream, max_frames)
        whole = promised <= len(unedited.pts) + unedited.discarded

    pts: list[int | None] = sorted(p for p in packets.pts if p is not None)
    ascending = len(pts) == len(packets.pts) and all(a < b for a, b in pairwise(pts))  # type: ignore[operator]
    resets = packets.resets if safe_format or codec_name != "h264" else []
    seek_points = [0]
    if whole and trusted and ascending and pts and first == pts[0]:
        seek_points = _seek_points(packets.pts, resets)  # type: ignore[arg-type]
    else:
        pts = _decode_pts(path, max_frames)
    if not whole:
        raise SvacError(
            f"{path.name} is cut off: {_promise(promised)}only {len(pts)} frames could be read.",
            "Copy or download it again; if it is cut on purpose, re-encode it with ffmpeg.",
        )
    if not pts:
        raise SvacError(f"{path.name} has no frame that can be decoded.", REENCODE)

    index = _frame_index(pts, time_base, declared)
    fps, variable = _rate(index, declared)
    turned = orientation.transposed
    info = VideoInfo(
        width=stored_size[1] if turned else stored_size[0],
        height=stored_size[0] if turned else stored_size[1],
        frame_count=len(pts),
        fps=fps,
        duration=len(pts) / fps,
        rotation=orientation.clockwise,
        variable_frame_rate=variable,
        codec=codec_name,
    )
    return Probe(path, signature, info, index, tuple(pts), tuple(seek_points), orientation, stored_size)


def check_side(path: Path, width: int, height: int, max_side: int) -> None:
    """Raise `SvacError` where a picture is larger than allowed."""
    if max(width, height) > max_side:
        raise SvacError(
            f"{path.name} is {width}x{height} pixels; at most {max_side} per side are accepted.",
            "Scale it down, e.g. `ffmpeg -i in.mp4 -vf scale=1920:-2 out.mp4`, or raise SVAC_MAX_VIDEO_SIDE.",
        )


def _read_packets(path: Path, container: InputContainer, stream: VideoStream, max_frames: int) -> _Packets:
    packets = _Packets(pts=[], resets=[], whole=True, discarded=0)
    try:
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            packets.whole &= not packet.is_corrupt
            if packet.is_discard:
                packets.discarded += 1
                continue
            if packet.is_keyframe and resets_decoder(packet, stream.codec_context):
                packets.resets.append(len(packets.pts))
            packets.pts.append(packet.pts)
            if len(packets.pts) > max_frames:
                raise _too_long(path, max_frames)
    except av.FFmpegError:
        packets.whole = False  # reported by the caller, with the number of frames that can be read
    return packets


def _seek_points(pts: list[int], resets: list[int]) -> list[int]:
    """Return the display indices of the packets that reset the decoder and split decoding and display alike."""
    highest_before, lowest_after = [], []
    high, low = -(1 << 63), 1 << 63
    for value in pts:
        highest_before.append(high)
        high = max(high, value)
    for value in reversed(pts):
        lowest_after.append(low)
        low = min(low, value)
    lowest_after.reverse()
    # Such a packet has as many frames before it on the screen as in the file, so its position is its index.
    return sorted({0, *(i for i in resets if highest_before[i] < pts[i] < lowest_after[i])})


def _first_frame(path: Path) -> tuple[int | None, Orientation, tuple[int, int]]:
    with opened(path) as (container, stream):
        stream.thread_type = "NONE"  # threads would read ahead
        try:
            for frame in container.decode(stream):
                return frame.pts, Orientation.of(frame), (frame.width, frame.height)
        except av.FFmpegError as error:
            raise SvacError(f"The first frame of {path.name} cannot be decoded ({_reason(error)}).", REENCODE) from error
        raise SvacError(f"{path.name} has no frame that can be decoded.", REENCODE)


def _decode_pts(path: Path, max_frames: int) -> list[int | None]:
    pts: list[int | None] = []
    with opened(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                pts.append(frame.pts)
                if len(pts) > max_frames:
                    raise _too_long(path, max_frames)
        except av.FFmpegError as error:
            raise SvacError(
                f"{path.name} is damaged: only {len(pts)} frames could be read ({_reason(error)}).", REENCODE
            ) from error
    return pts


def _frame_index(pts: list[int | None], time_base: Fraction | None, declared: Fraction | None) -> FrameIndex:
    known = [p for p in pts if p is not None]
    if len(known) < len(pts) or not time_base:  # a raw stream: frames follow each other at the declared rate
        return FrameIndex(tuple(range(len(pts))), 1 / (declared or Fraction(25)))
    for i in range(1, len(known)):  # two frames of one timestamp stay two frames
        known[i] = max(known[i], known[i - 1] + 1)
    return FrameIndex(tuple(known), time_base)


def _rate(index: FrameIndex, declared: Fraction | None) -> tuple[float, bool]:
    """Return (average frames per second, whether the frames are unevenly spaced)."""
    count, pts = len(index), index.pts
    if count == 1:
        return float(declared or 25), False
    step = Fraction(pts[-1] - pts[0], count - 1)  # mean gap in ticks
    # Coarse time bases (1 ms in Matroska) round every timestamp, hence one tick of tolerance.
    if declared:
        claimed = 1 / (declared * index.time_base)
        if all(abs(p - pts[0] - i * claimed) <= 1 for i, p in enumerate(pts)):
            return float(declared), False
    variable = any(abs((b - a) - step) > 1 + step / 10 for a, b in pairwise(pts))
    return float(1 / (step * index.time_base)), variable


def _promise(count: int) -> str:
    return f"its header promises {count} frames, but " if count else ""


def _too_long(path: Path, max_frames: int) -> SvacError:
    return SvacError(
        f"{path.name} has more than {max_frames} frames.", "Cut it into shorter videos, or raise SVAC_MAX_FRAMES."
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
