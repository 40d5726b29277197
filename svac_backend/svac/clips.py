"""Which frames the MLLM sees, which clip each frame belongs to, and which [SEG] decodes it. Pure integers.

The rules of `uniform`, `uniform_plus`, `wrap_around` and `wrap_around_plus` are those of the published SaSaSa2VA code;
`first` is Sa2VA's, `linspace` Sa2VA-i's.
"""

from __future__ import annotations

from dataclasses import dataclass

from svac_backend.errors import SvacError
from svac_backend.svac.config import MethodConfig


@dataclass(frozen=True)
class ClipPlan:
    """The plan of one video.

    Attributes:
        selected: 0-based indices of the N x m frames that the MLLM sees, clip after clip, ascending.
        decode: (frame, clip) pairs that are decoded with a [SEG] embedding; ascending by frame. A frame can stand in
            several pairs (`uniform_plus` on short videos); its logits are then averaged, as the published code does.
        propagated: first frame that SAM-2's memory has to reach, or None when every frame is decoded.
        frames_per_clip: m.
        num_frames: frames of the video.
    """

    selected: tuple[int, ...]
    decode: tuple[tuple[int, int], ...]
    propagated: int | None
    frames_per_clip: int
    num_frames: int

    @property
    def num_clips(self) -> int:
        """N."""
        return len(self.selected) // self.frames_per_clip

    def clip(self, number: int) -> tuple[int, ...]:
        """Return the frames of one clip, the anchor frame first."""
        start = number * self.frames_per_clip
        return self.selected[start : start + self.frames_per_clip]


def plan(num_frames: int, method: MethodConfig) -> ClipPlan:
    """Plan a video of `num_frames` frames.

    Raises:
        SvacError: the video has no frame.
    """
    if num_frames < 1:
        raise SvacError("The video has no frame.", "Check that the file plays in a video player.")
    m, n = method.frames_per_clip, method.num_clips
    total = n * m
    if method.sampling == "first":
        # Sa2VA sees the first frames; a shorter video has fewer images, not repeated ones.
        seen = min(total, num_frames)
        return ClipPlan(
            selected=tuple(range(seen)),
            decode=tuple((i, 0) for i in range(seen)),
            propagated=seen if seen < num_frames else None,
            frames_per_clip=seen,
            num_frames=num_frames,
        )
    if method.sampling == "linspace":
        # First and last frame, and evenly spaced frames between; a short video has fewer images, not repeated ones.
        seen_at = sorted({k * (num_frames - 1) // max(total - 1, 1) for k in range(total)})
        rest = sorted(set(range(num_frames)) - set(seen_at))
        return ClipPlan(
            selected=tuple(seen_at),
            decode=tuple((i, 0) for i in seen_at),
            propagated=rest[0] if rest else None,
            frames_per_clip=len(seen_at),
            num_frames=num_frames,
        )
    wraps = method.sampling in ("wrap_around", "wrap_around_plus") and num_frames < total
    if wraps:
        selected = tuple(sorted(k % num_frames for k in range(total)))
    elif method.sampling == "wrap_around":
        selected = tuple(range(total))
    else:
        selected = tuple(k * num_frames // total for k in range(total))

    propagated: int | None = None
    if method.sampling == "uniform_plus" and num_frames < total:
        decode = tuple((frame, k // m) for k, frame in enumerate(selected))
    elif wraps:
        first: dict[int, int] = {}
        for k, frame in enumerate(selected):
            first.setdefault(frame, k // m)
        decode = tuple(sorted(first.items()))
    elif method.sampling == "wrap_around" and num_frames > total:
        decode = tuple((i, i // m) for i in range(total))
        propagated = total
    else:
        decode = tuple((i, i * n // num_frames) for i in range(num_frames))
    if method.propagation == "memory" and propagated is None and len({f for f, _ in decode}) < num_frames:
        propagated = decode[-1][0] + 1
    return ClipPlan(selected, decode, propagated, frames_per_clip=m, num_frames=num_frames)
