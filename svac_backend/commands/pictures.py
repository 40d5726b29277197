"""Pictures as a video: what Label Studio's player and the model need of a data set that has frames only."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from svac_backend.errors import SvacError
from svac_backend.video.source import VideoSource


def encode_pictures(
    pictures: VideoSource, folder: Path, name: str, progress: Callable[[float], None] | None = None
) -> Path:
    """Write `<name>.mp4` (H.264), or `<name>.webm` (VP9) for a side of odd length, which H.264 cannot have.

    The same pictures always make the same file.

    Args:
        pictures: the frames.
        folder: where to.
        name: of the file, without suffix.
        progress: called with 0..1.

    Returns:
        The file.

    Raises:
        SvacError: a picture is damaged, or the disk is full.
    """
    info = pictures.info
    odd = info.width % 2 or info.height % 2
    path = folder / f"{name}.{'webm' if odd else 'mp4'}"
    codec = "libvpx-vp9" if odd else "libx264"
    # Near what can't be told from the pictures; one thread, so that the file does not depend on the machine.
    options = {"crf": "20", "b": "0", "cpu-used": "5", "deadline": "good"} if odd else {"crf": "18"}
    rate = Fraction(info.fps).limit_denominator(1001)
    try:
        with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
            stream = cast(
                VideoStream, container.add_stream(codec, rate=rate, options={**options, "threads": "1"})
            )
            stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
            for i, picture in pictures.frames(range(len(pictures))):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = i, 1 / rate
                container.mux(stream.encode(frame))
                if progress:
                    progress((i + 1) / len(pictures))
            container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise SvacError(
            f"No video can be made of the pictures of {name}: {error}.",
            "Look whether the disk for temporary files has space (TMPDIR).",
        ) from error
    return path
