"""Looks at a video file once: its facts, the timestamp of every frame, and where a seek is safe.

Reading the packets costs milliseconds, decoding them costs seconds. Packets tell the exact frames of most
files; where they are known to lie, or contradict themselves, the file is decoded once instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from svac_backend.errors import SvacError
from svac_backend.video.container import (
    REENCODE,
    Orientation,
    matroska_is_cut,
    opened,
    reason,
    resets_decoder,
    signature_of,
)
from svac_backend.video.source import FrameIndex, VideoInfo, average_rate, build_index

# Codecs of which one packet is one shown frame, if the stream is not interlaced. VP8 hides frames in packets
# of their own; MPEG-4 part 2 has packets without a picture.
_ONE_PACKET_ONE_FRAME = {"h264", "hevc", "vp9", "av1"}
_PROGRESSIVE = {0, 1}  # AVFieldOrder: unknown, progressive


@dataclass(frozen=True)
class Probe:
    """All that reading the frames of a file needs to know.

    Attributes:
        path: the file, absolute.
        signature: its (size in bytes, modification time in ns).
        info, index: as in `VideoSource`.
        decoded_pts: the timestamp that the decoder gives each frame; None where the file has none.
        seek_points: ascending indices of frames at which decoding may start and give the same pixels; has 0.
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
    """What the packets of the video stream say, in decoding order.

    Attributes:
        pts: timestamps of the packets that are shown.
        resets: positions in `pts` of the packets that reset the decoder.
        hidden: number of packets that an edit list hides.
        whole: no packet was cut off, and the file could be read to its end.
        orderly: decoding times ascend (they jump back where recordings were glued), no packet is damaged.
    """

    pts: list[int | None] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    hidden: int = 0
    whole: bool = True
    orderly: bool = True

    def __len__(self) -> int:
        return len(self.pts) + self.hidden


def probe(path: Path, *, max_side: int, max_frames: int) -> Probe:
    """Find the facts, the frame index and the safe seek points of a video file.

    Args:
        path: a video file.
        max_side: largest width or height in pixels; checked before anything is decoded.
        max_frames: largest number of frames.

    Raises:
        SvacError: no such file, not a video, no frames, cut off or damaged, too large, or too long.
    """
    path = path.absolute()
    signature = signature_of(path)
    with opened(path) as (container, stream):
        context = stream.codec_context
        codec = context.codec.canonical_name
        _check_side(path, context.width, context.height, max_side)
        packets = _read_packets(path, container, stream, max_frames)
        time_base, declared, promised = stream.time_base, stream.average_rate, stream.frames
        trusted = _packets_are_frames(context) and packets.orderly
        format_name = container.format.name
    if not packets.pts:
        raise SvacError(f"{path.name} has no frames that can be read.", "Copy or download it again.")
    first_pts, orientation, stored_size = _first_frame(path)
    _check_side(path, *stored_size, max_side)

    pts: Sequence[int | None]
    seek_points = [0]
    whole = _is_whole(path, packets, promised, format_name, max_frames)
    shown = sorted(p for p in packets.pts if p is not None)
    distinct = len(shown) == len(packets.pts) and all(a < b for a, b in pairwise(shown))
    if whole and trusted and distinct and first_pts == shown[0]:
        pts = shown
        seek_points = _seek_points([p for p in packets.pts if p is not None], packets.resets)
    elif whole:
        pts = _decoded_pts(path, max_frames)
    else:
        promise = f"its header promises {promised} frames, but " if promised else ""
        raise SvacError(
            f"{path.name} is cut off: {promise}only {_count_readable(path)} frames could be read.",
            "Copy or download it again; to use what there is, re-encode it with ffmpeg.",
        )

    index = build_index(pts, time_base, declared)
    fps, variable = average_rate(index, declared)
    width, height = stored_size[::-1] if orientation.transposed else stored_size
    info = VideoInfo(
        width, height, len(pts), fps, len(pts) / fps, orientation.clockwise, variable, codec=codec
    )
    return Probe(path, signature, info, index, tuple(pts), tuple(seek_points), orientation, stored_size)


def _packets_are_frames(context: VideoCodecContext) -> bool:
    """Tell whether each packet of this stream is one frame, as far as its codec says."""
    if context.codec.intra_only:
        return True
    return context.codec.canonical_name in _ONE_PACKET_ONE_FRAME and context.field_order in _PROGRESSIVE


def _read_packets(path: Path, container: InputContainer, stream: VideoStream, max_frames: int) -> _Packets:
    packets = _Packets()
    last_dts: int | None = None
    # Elsewhere only a packet that the file's end cuts is corrupt; a broadcast loses packets on its way.
    broadcast = container.format.name in {"mpegts", "mpeg"}
    try:
        for packet in container.demux(stream):
            if packet.size == 0:  # the end
                continue
            if packet.is_corrupt:
                packets.orderly = False
                packets.whole &= broadcast
            packets.orderly &= last_dts is None or packet.dts is None or packet.dts > last_dts
            last_dts = packet.dts
            if packet.is_discard:
                packets.hidden += 1
                continue
            if packet.is_keyframe and resets_decoder(packet, stream.codec_context):
                packets.resets.append(len(packets.pts))
            packets.pts.append(packet.pts)
            if len(packets.pts) > max_frames:
                raise _too_long(path, max_frames)
    except av.FFmpegError:
        packets.whole = False  # `probe` raises, when it knows how many frames can be read
    return packets


def _is_whole(path: Path, packets: _Packets, promised: int, format_name: str, max_frames: int) -> bool:
    """Tell whether all is there that the file's header promises."""
    if not packets.whole or ("matroska" in format_name and matroska_is_cut(path)):
        return False
    if promised <= len(packets):
        return True
    # An edit list may drop frames altogether; without it, all that were promised must be there.
    with opened(path, ignore_editlist="1") as (container, stream):
        unedited = _read_packets(path, container, stream, max(max_frames, promised))
    return unedited.whole and promised <= len(unedited)


def _seek_points(pts: Sequence[int], resets: Sequence[int]) -> list[int]:
    """Return the display indices of packets that reset the decoder and are a border in display order too.

    Args:
        pts: timestamps in decoding order.
        resets: positions in `pts` of the packets that reset the decoder.
    """
    # The latest timestamp before each packet, and the earliest from each packet on.
    latest = list(accumulate(pts, max, initial=-(1 << 63)))
    earliest = list(accumulate(reversed(pts), min, initial=1 << 63))[::-1]
    # The same frames come before such a packet on the screen as in the file: its position is its index.
    return sorted({0, *(i for i in resets if latest[i] < pts[i] < earliest[i + 1])})


def _first_frame(path: Path) -> tuple[int | None, Orientation, tuple[int, int]]:
    """Return the first frame's (timestamp, orientation, (width, height))."""
    with opened(path) as (container, stream):
        stream.thread_type = "NONE"  # threads would read many frames ahead
        try:
            frame = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise SvacError(
                f"The first frame of {path.name} cannot be decoded ({reason(error)}).", REENCODE
            ) from error
        if frame is None:
            raise SvacError(f"{path.name} has no frame that can be decoded.", REENCODE)
        return frame.pts, Orientation.of(frame), (frame.width, frame.height)


def _decoded_pts(path: Path, max_frames: int) -> list[int | None]:
    """Return the timestamp of every frame as the decoder gives it; decodes the whole file."""
    pts: list[int | None] = []
    with opened(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                pts.append(frame.pts)
                if len(pts) > max_frames:
                    raise _too_long(path, max_frames)
        except av.FFmpegError as error:
            raise SvacError(
                f"{path.name} is damaged: only {_count_readable(path)} frames could be read "
                f"({reason(error)}).",
                REENCODE,
            ) from error
    return pts


def _count_readable(path: Path) -> int:
    """Return the number of frames before the first damage, the same on every machine."""
    count = 0
    with opened(path) as (container, stream):
        stream.thread_type = "SLICE"  # with several frames at work, an error would swallow those before it
        try:
            for packet in container.demux(stream):
                count += len(packet.decode())
        except av.FFmpegError:
            with suppress(av.FFmpegError):  # this is the report of the damage: nothing is hidden
                count += len(stream.decode(None))
    return count


def _check_side(path: Path, width: int, height: int, max_side: int) -> None:
    if max(width, height) > max_side:
        raise SvacError(
            f"{path.name} is {width}x{height} pixels; at most {max_side} per side are accepted.",
            "Scale it down, e.g. `ffmpeg -i in.mp4 -vf scale=1920:-2 out.mp4`, or raise SVAC_MAX_VIDEO_SIDE.",
        )


def _too_long(path: Path, max_frames: int) -> SvacError:
    return SvacError(
        f"{path.name} has more than {max_frames} frames.",
        "Cut it into shorter videos, or raise SVAC_MAX_FRAMES.",
    )
