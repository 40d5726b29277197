"""What a person showed on some frames travels to the others: propagation with SAM-2's memory.

Corrected masks, and masks decoded from clicks and boxes, are an object's conditioning frames. Every other frame is
predicted from the correction nearest to it, in a forward sweep and a backward sweep over the video that all objects
share: `plan_legs` says which frame is predicted from which correction, `SweepFrames` reads windows of the video in
either direction, and a window's features are computed once. Objects do not see each other.

Nothing can be predicted from a frame that an object is not on. Such a frame is passed as SAM-2 passes a frame on which
it finds no object; between two of them, with nothing else shown, the object is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import select_closest_cond_frames
from torch import Tensor

from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import area, from_coco
from svac_backend.svac.parts import Parts
from svac_backend.svac.sam.decoding import masks_at_size
from svac_backend.svac.sam.grounding import FrameFeatures, decode, encode_in_parts, without_memory
from svac_backend.svac.sam.memory import MemoryTracker
from svac_backend.svac.streaming import AHEAD, HELD_BYTES, PENDING, Image, prefetch, resized
from svac_backend.video.source import VideoSource


class SweepFrames:
    """Chosen frames of one video at SAM-2's size, in windows, forwards and backwards.

    What fits into `HELD_BYTES` is decoded once and held. Else each sweep decodes what it needs: forwards in one pass,
    backwards in blocks, since a video is decoded forwards only.

    Args:
        video: where the frames come from.
        size: S, the side of the model's pictures.
        chosen: all frames that will be asked for.
    """

    def __init__(self, video: VideoSource, size: int, chosen: Collection[int]) -> None:
        self.video, self.size = video, size
        self._chosen = sorted(set(chosen))
        self._frames_held = max(1, HELD_BYTES // (size * size * 3))
        self._held: dict[int, Image] | None = None

    def windows(
        self, indices: Sequence[int], window: int, *, reverse: bool = False
    ) -> Generator[tuple[list[int], Image]]:
        """Yield windows of some of the chosen frames: their indices and u8 [n, S, S, 3], n <= `window`.

        Args:
            indices: ascending, unique.
            window: most frames of a window.
            reverse: from the last frame to the first, within the windows too.
        """
        if not indices:
            return
        if len(self._chosen) <= self._frames_held:
            if self._held is None:
                self._held = dict(self._resized(self._chosen))
            ordered = list(reversed(indices)) if reverse else list(indices)
            for start in range(0, len(ordered), window):
                part = ordered[start : start + window]
                yield part, np.stack([self._held[i] for i in part])
            return
        made = self._backwards(indices, window) if reverse else self._forwards(indices, window)
        yield from prefetch(made, AHEAD)

    def _forwards(self, indices: Sequence[int], window: int) -> Generator[tuple[list[int], Image]]:
        part: list[tuple[int, Image]] = []
        for item in self._resized(indices):
            part.append(item)
            if len(part) == window or item[0] == indices[-1]:
                yield [i for i, _ in part], np.stack([small for _, small in part])
                part = []

    def _backwards(self, indices: Sequence[int], window: int) -> Generator[tuple[list[int], Image]]:
        # A block in work, one being cut into windows, and windows that wait: together they stay within the bound.
        size = max(window, self._frames_held // 2 // window * window)
        for stop in range(len(indices), 0, -size):
            block = list(self._resized(indices[max(0, stop - size) : stop]))[::-1]
            for start in range(0, len(block), window):
                part = block[start : start + window]
                yield [i for i, _ in part], np.stack([small for _, small in part])

    def _resized(self, indices: Sequence[int]) -> Iterator[tuple[int, Image]]:
        with closing(prefetch(self.video.frames(indices), PENDING)) as frames:
            yield from resized(frames, self.size)


@dataclass(frozen=True)
class Leg:
    """A walk away from one correction.

    Attributes:
        source: the frame of the correction.
        frames: the frames to predict, in order: from the one beside the source to the last one that is needed.
    """

    source: int
    frames: range

    @property
    def reverse(self) -> bool:
        """Whether it goes back in time."""
        return self.frames.step < 0


def plan_legs(corrected: Sequence[int], wanted: range) -> list[Leg]:
    """Return the walks that reach every wanted frame from the correction nearest to it.

    Halfway between two corrections the earlier one counts. A leg ends at its last wanted frame; it covers frames
    that are not wanted only where they lie between the correction and a wanted frame.

    Args:
        corrected: frames with a correction, ascending, at least one.
        wanted: frames to predict; step 1.
    """
    legs = []
    starts = [(corrected[-1], wanted.stop - 1)]
    ends = [(corrected[0], wanted.start)]
    for before, after in pairwise(corrected):
        middle = (before + after) // 2
        starts.append((before, middle))
        ends.append((after, middle + 1))
    for source, last in starts:
        # Not beyond the last wanted frame, and not at all where the wanted frames begin later.
        last = min(last, wanted.stop - 1)
        if last > source and last >= wanted.start:
            legs.append(Leg(source, range(source + 1, last + 1)))
    for source, first in ends:
        first = max(first, wanted.start)
        if first < source and first < wanted.stop:
            legs.append(Leg(source, range(source - 1, first - 1, -1)))
    return sorted(legs, key=lambda leg: leg.source)


# Conditioning frames that a frame attends, the nearest ones. SAM-2 sets no bound; a person may correct many frames.
NEAREST = 4

Found = tuple[int, int, NDArray[np.bool_], float]
FrameMapping = Mapping[int, FrameHint]


class _Object:
    """One object: what was shown of it, what has to be walked, and its memory."""

    def __init__(self, hints: dict[int, FrameHint], frames: range, memory: MemoryTracker) -> None:
        self.hints, self.memory = hints, memory
        empty = {i: hint.mask is not None and not area(hint.mask) for i, hint in hints.items()}
        self.absent = {i for i, is_empty in empty.items() if is_empty}
        sources = [i for i in hints if i not in self.absent]
        legs = plan_legs(sources, frames) if sources else []
        # Between two frames that it is not on, with nothing else shown between, it is not looked for.
        self.gone = {i for a, b in pairwise(hints) if empty[a] and empty[b] for i in range(a + 1, b)}
        if not sources:
            self.gone = set(frames) - self.absent
        self.walks = {
            reverse: {
                i: leg for leg in legs if leg.reverse is reverse for i in leg.frames if i not in self.gone
            }
            for reverse in (False, True)
        }
        # Corrections that have to be looked at. Clicks need their mask even where nothing is predicted from them.
        self.needed = {i for i in sources if hints[i].mask is None and i in frames}
        for leg in legs:
            # What a leg's first and last frame attend covers what those between attend: the nearest corrections,
            # and those that the walk has behind it as recent frames.
            first, last, step = leg.frames[0], leg.frames[-1], leg.frames.step
            for index in (first, last):
                self.needed.update(select_closest_cond_frames(index, dict.fromkeys(sources), NEAREST)[0])
            reach = memory.sam.max_obj_ptrs_in_encoder
            self.needed.update(i for i in sources if 0 < (first - i) * step < reach)


class Propagation:
    """The propagation of one video's corrections.

    Args:
        sam: the model.
        video: the frames.
        hints: for each object what was shown, by 0-based frame.
        frames: the frames to predict; all if None. Others are looked at only on the way there.
        window: frames that are held and encoded at a time.
        progress: called with a fraction 0..1 and a message; it may raise to stop the work.

    Raises:
        SvacError: nothing was shown of an object, or what was shown does not fit the video.
    """

    def __init__(
        self,
        sam: SAM2Base,
        video: VideoSource,
        hints: Sequence[FrameMapping],
        *,
        frames: range | None = None,
        window: int = 16,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        self.sam, self.video, self.window, self.progress = sam, video, window, progress
        self.height, self.width = video.info.height, video.info.width
        self.frames = _checked_range(frames, len(video))
        if not hints:
            raise SvacError("There is nothing to propagate.", "Correct at least one object on one frame.")
        self.objects = [self._object(shown) for shown in hints]
        self.conditioning = sorted({i for one in self.objects for i in one.needed})
        self.sweeps = {
            reverse: sorted({i for one in self.objects for i in one.walks[reverse]})
            for reverse in (False, True)
        }
        touched = [*self.conditioning, *self.sweeps[False], *self.sweeps[True]]
        self.source = SweepFrames(video, sam.image_size, touched)
        self._done, self._total = 0, len(touched)
        self.parts = Parts(window)

    def run(self) -> Iterator[Found]:
        """Yield (object, frame, mask bool [H, W], score 0..1): each object on each frame of `frames` once."""
        yield from self._given()
        yield from self._condition()
        for reverse in (False, True):
            yield from self._sweep(reverse)

    def _object(self, shown: FrameMapping) -> _Object:
        if not shown:
            raise SvacError("Nothing was shown of an object.", "Give it a mask, clicks or a box on a frame.")
        hints = dict(sorted(shown.items()))
        for index, hint in hints.items():
            self._check(index, hint)
        memory = MemoryTracker(self.sam, 1, len(self.video), no_object_masking=True, nearest=NEAREST)
        return _Object(hints, self.frames, memory)

    def _check(self, index: int, hint: FrameHint) -> None:
        """Refuse what does not fit the video. Raises `SvacError`."""
        if not 0 <= index < len(self.video):
            raise SvacError(
                f"There is no frame {index} to correct.",
                f"The video has the frames 0 to {len(self.video) - 1}.",
            )
        size = [self.height, self.width]
        if hint.mask is not None:
            if list(hint.mask["size"]) != size:
                raise SvacError(
                    f"The mask of frame {index} is for {hint.mask['size'][1]}x{hint.mask['size'][0]} pixels.",
                    f"Give masks of the video's size, {self.width}x{self.height}.",
                )
            return
        if hint.box is None and not any(click.positive for click in hint.clicks):
            raise SvacError(
                f"The clicks on frame {index} only say where the object is not.",
                "Add a click on the object, or a box around it.",
            )
        points = [(click.x, click.y) for click in hint.clicks]
        if hint.box is not None:
            left, top, right, bottom = hint.box
            if right <= 0 or bottom <= 0 or left >= self.width or top >= self.height:
                raise SvacError(f"The box on frame {index} is beside the picture.", "Draw it on the picture.")
        for x, y in points:
            if not (0 <= x <= self.width and 0 <= y <= self.height):
                raise SvacError(
                    f"The click ({x:g}, {y:g}) on frame {index} is beside the picture.",
                    f"Coordinates are pixels of the {self.width}x{self.height} frame.",
                )

    def _given(self) -> Iterator[Found]:
        """Yield the masks that were given, and empty ones where an object is not looked for."""
        for number, one in enumerate(self.objects):
            for index in self.frames:
                hint = one.hints.get(index)
                if hint is not None and hint.mask is not None:
                    yield number, index, from_coco(hint.mask), 1.0
                elif index in one.gone:
                    yield number, index, np.zeros((self.height, self.width), np.bool_), 0.0

    def _condition(self) -> Iterator[Found]:
        """Give memory the corrections; yield the masks that clicks and boxes make."""
        with closing(self.source.windows(self.conditioning, self.window)) as windows:
            for indices, pixels in windows:
                features = encode_in_parts(self.sam, pixels, self.parts)
                for k, index in enumerate(indices):
                    here = features.take([k])
                    for number, one in enumerate(self.objects):
                        hint = one.hints.get(index)
                        if hint is None or index not in one.needed:
                            continue
                        if hint.mask is not None:
                            one.memory.condition_masks(index, here, self._shrunk(from_coco(hint.mask)))
                            continue
                        logits, score = self._point_at(one, index, here, hint)
                        if index in self.frames:
                            yield number, index, self._mask(logits), score
                self._tell(len(indices), "reading the corrections")

    def _sweep(self, reverse: bool) -> Iterator[Found]:
        with closing(self.source.windows(self.sweeps[reverse], self.window, reverse=reverse)) as windows:
            for indices, pixels in windows:
                features = encode_in_parts(self.sam, pixels, self.parts)
                for k, index in enumerate(indices):
                    here = features.take([k])
                    for number, one in enumerate(self.objects):
                        leg = one.walks[reverse].get(index)
                        if leg is None:
                            continue
                        if index == leg.frames[0]:
                            one.memory.restart()
                        if index in one.absent:
                            one.memory.absent(index, here)
                            continue
                        logits, scores = one.memory.track(index, here, reverse=reverse)
                        if index in self.frames:
                            yield number, index, self._mask(logits), float(scores[0])
                self._tell(len(indices), f"{'backwards' if reverse else 'forwards'} to frame {indices[-1]}")

    def _point_at(
        self, one: _Object, index: int, features: FrameFeatures, hint: FrameHint
    ) -> tuple[Tensor, float]:
        """Decode clicks and a box without memory, and remember the result; returns logits and the score."""
        points, labels = self._points(hint)
        low = without_memory(self.sam, features)
        where = (points.to(low.device), labels.to(low.device))
        out = decode(
            self.sam, low, features.high, None, no_object_masking=False, points=where, source="shown"
        )
        # Where a person points there is something, whatever the model believes.
        existence = torch.where((out.logits > 0).any(-1).any(-1), out.existence.abs(), out.existence)
        one.memory.condition(index, features, out.logits, existence, out.token)
        return out.logits, float(out.score[0])

    def _points(self, hint: FrameHint) -> tuple[Tensor, Tensor]:
        """Return points f32 [1, P, 2] in SAM-2's pixels and its labels i32 [1, P]: a box is two corners, first."""
        rows = [(click.x, click.y, int(click.positive)) for click in hint.clicks]
        if hint.box is not None:
            left, top, right, bottom = hint.box
            rows = [(left, top, 2), (right, bottom, 3), *rows]
        scale = torch.tensor([self.sam.image_size / self.width, self.sam.image_size / self.height])
        points = torch.tensor([[x, y] for x, y, _ in rows], dtype=torch.float32) * scale
        return points[None], torch.tensor([[label for _, _, label in rows]], dtype=torch.int32)

    def _shrunk(self, mask: NDArray[np.bool_]) -> Tensor:
        """Return a mask at SAM-2's size, bool [1, S, S]; an object too small for it keeps its strongest pixels."""
        size, device = (self.sam.image_size, self.sam.image_size), self.sam.no_mem_embed.device
        full = torch.from_numpy(mask).to(device)[None, None].float()
        scaled = F.interpolate(full, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        most = float(scaled.max())
        return scaled >= (0.5 if most >= 0.5 or most == 0 else most / 2)

    def _mask(self, logits: Tensor) -> NDArray[np.bool_]:
        """Return one object's logits [1, S/4, S/4] as a mask at the frame's size."""
        mask: NDArray[np.bool_] = (
            masks_at_size(logits, self.sam.image_size, self.height, self.width)[0].cpu().numpy()
        )
        return mask

    def _tell(self, steps: int, message: str) -> None:
        self._done += steps
        if self.progress:
            self.progress(self._done / self._total, message)


def _checked_range(frames: range | None, count: int) -> range:
    """Return the frames to predict. Raises `SvacError` where the video has no such frames."""
    if frames is None:
        return range(count)
    if frames.step != 1 or not 0 <= frames.start < frames.stop <= count:
        raise SvacError(
            f"The frames {frames.start} up to {frames.stop} are not a part of the video.",
            f"Give a first frame and an end between 0 and {count}.",
        )
    return frames
