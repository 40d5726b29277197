"""Opens a video file, and nothing but a video file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

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
        raise SvacError(f"The video {path.name} may not be read.", "Give this user the right to read it.")
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
        return "its format is not known as one of videos"
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
