"""Opens video files and nothing else, and tells what PyAV does not.

That is whether a key packet resets the decoder, whether a Matroska file is cut off, and how the stored picture is
turned before it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData, Type
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from svac_backend.errors import SvacError

REENCODE = "Re-encode it, e.g. `ffmpeg -i in.mp4 -c:v libx264 -pix_fmt yuv420p out.mp4`, and try again."

# FFmpeg's names of the containers that hold video, and of the sound files that deserve a better message than
# "unknown". All others are refused: FFmpeg would draw a text file, or follow a playlist to other files.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,gif,asf,mpegvideo,h264,hevc,obu,ivf,mxf,nut,dv,m4v,"
    "yuv4mpegpipe,apng,rm,mp3,wav,flac,aac"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}


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
    """Open a file and choose its video stream; half of the cores decode it, the others work on what is decoded.

    Args:
        path: a video file.
        options: options of FFmpeg's demuxer, e.g. `ignore_editlist="1"`.

    Raises:
        SvacError: no such file, no video in a format that is known, or no codec for it.
    """
    size, _ = signature_of(path)
    if size == 0:
        raise SvacError(f"The video {path.name} is empty (0 bytes).", "Copy or download it again.")
    if not os.access(path, os.R_OK):
        raise SvacError(f"This user has no right to read {path.name}.", "Give them the right to read it.")
    try:
        # An absolute path, so that no part of the name is taken for a protocol ("http:").
        container = av.open(str(path.absolute()), options=_OPTIONS | options, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise SvacError(
            f"{path.name} is not a video that can be opened ({reason(error)}).",
            "Give a whole video file, e.g. MP4, WebM, MKV, MOV or AVI.",
        ) from error
    with container:
        stream = _choose(path, container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = max(1, (os.cpu_count() or 1) // 2)
        yield container, stream


def reason(error: Exception) -> str:
    """Return FFmpeg's short text for what went wrong."""
    if isinstance(error, av.ArgumentError):  # what FFmpeg answers to a format that is not on the list
        return "its format is not one of the known video formats"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _choose(path: Path, container: InputContainer) -> VideoStream:
    """Return the stream a player would show; a cover picture is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kind = "only has sound" if container.streams.audio else "has no pictures"
        raise SvacError(f"{path.name} {kind}.", "Give a file with a video stream.")
    best = container.streams.best("video")
    stream = next((s for s in streams if s is best or s.index == getattr(best, "index", None)), streams[0])
    if stream.codec_context is None:
        raise SvacError(f"The codec of {path.name} is not known.", REENCODE)
    return stream


_KEY_MEANS_RESET = {"vp9", "av1"}


def resets_decoder(packet: Packet[Any], codec: VideoCodecContext) -> bool:
    """Tell whether what follows a key packet is decoded the same, whatever came before.

    Containers also mark recovery points (open groups, intra refresh) as key; only an instantaneous decoder
    refresh (IDR) of H.264 (ITU-T H.264, table 7-1, NAL type 5) and H.265 (ITU-T H.265, table 7-1, types 19
    and 20) is proof. A key frame of VP9 and AV1 resets the decoder by definition, and so does every frame of
    a codec without prediction between frames. For all other codecs the answer is no.
    """
    name = codec.codec.canonical_name
    if name in _KEY_MEANS_RESET or codec.codec.intra_only:
        return True
    if name not in {"h264", "hevc"}:
        return False
    for header in _nal_headers(bytes(packet), codec.extradata or b"", name):
        kind = header & 31 if name == "h264" else header >> 1 & 63
        if name == "h264" and 1 <= kind <= 5:
            return kind == 5
        if name == "hevc" and kind < 32:
            return kind in {19, 20}
    return False


def _nal_headers(data: bytes, extradata: bytes, codec: str) -> Iterator[int]:
    """Yield the first byte of each NAL unit: start codes (Annex B) or lengths (ISO/IEC 14496-15)."""
    if extradata[:1] != b"\x01":
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            yield data[at + 3]
            at = data.find(b"\0\0\1", at + 3)
        return
    size_byte = 4 if codec == "h264" else 21
    width = (extradata[size_byte] & 3) + 1 if len(extradata) > size_byte else 4
    at = 0
    while at + width < len(data):
        yield data[at + width]
        at += width + int.from_bytes(data[at : at + width], "big")


def matroska_is_cut(path: Path) -> bool:
    """Tell whether a Matroska or WebM file is shorter than its segment says (RFC 8794, RFC 9559).

    FFmpeg ends such a file without a word. A live recording has no known size: never cut.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    at = 4  # behind the EBML header's identifier
    size, width = _vint(head, at)
    if head[:4] != b"\x1a\x45\xdf\xa3" or size is None:
        return False
    at += width + size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return False
    size, width = _vint(head, at + 4)
    return size is not None and at + 4 + width + size > path.stat().st_size


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return (value, width in bytes) of an EBML variable-size integer; the value is None where unknown."""
    if at >= len(data) or data[at] == 0:
        return None, 1
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width


@dataclass(frozen=True)
class Orientation:
    """A turn by a multiple of 90 degrees and perhaps a mirroring: transpose first, then flip.

    Attributes:
        transposed: rows become columns.
        flip_x: mirrored left to right.
        flip_y: mirrored top to bottom.
    """

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read a frame's display matrix (ISO/IEC 14496-12, `matrix` of the track header).

        The matrix (a b u, c d v, x y w) sends a stored point (p, q) to (a p + c q, b p + d q). Angles that
        are no multiple of 90 degrees are rounded to one.
        """
        matrix: SideData | None = next(
            (d for d in cast("Iterable[SideData]", frame.side_data) if d.type == Type.DISPLAYMATRIX), None
        )
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def clockwise(self) -> int:
        """Clockwise degrees from the stored to the shown picture: 0, 90, 180 or 270, mirroring set aside."""
        if self.transposed:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture u8 [H, W, 3]; the result is contiguous."""
        if self == Orientation():
            return picture
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.flip_x:
            picture = picture[:, ::-1]
        if self.flip_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)
