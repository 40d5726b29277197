"""From a video and prompts to tracks. Used by the command line and the worker alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.rle import area, from_coco, to_coco
from svac_backend.masks.specks import without_specks
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.settings import Settings
from svac_backend.svac.model import Svac
from svac_backend.video.source import VideoSource

Progress = Callable[[float, str], None]
# Called after each frame with all tracks as far as they are; they are still being filled.
Ready = Callable[[Sequence[Track]], None]


def load_model(settings: Settings) -> Svac:
    """Load the model that the settings name, run as they say.

    Raises:
        SvacError: it or the original SAM-2 is missing or damaged, or the device is not there.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    model = Svac.from_pretrained(settings.model, device=settings.device, dtype=settings.dtype)
    if settings.preset or settings.generate:
        model.run_as(settings.preset, **({"generate": True} if settings.generate else {}))
    if settings.original_sam is not None:
        model.use_original_sam(settings.original_sam)
    return model.compile_encoders() if settings.compile else model


def prelabel(
    model: Svac,
    video: VideoSource,
    prompts: Sequence[ObjectPrompt],
    *,
    specks: float = 0.0,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> list[Track]:
    """Segment every prompt on every frame.

    Args:
        model: the model.
        video: the frames.
        prompts: what to segment; ids must differ.
        specks: islands and pinholes below this share of a mask are dropped, see `masks.specks`; 0 keeps all.
        progress: called with a fraction 0..1 and a message; it may raise to stop the work.
        ready: for those who cannot wait for the end: called after each frame with the tracks so far.

    Returns:
        One track per prompt, in order. Frames without the object have a score and no mask.

    Raises:
        SvacError: no prompt, an empty expression, two prompts with one id, or a damaged video.
    """
    tracks = [Track(p.object_id, p.label, p.expression) for p in prompts]
    if len({t.object_id for t in tracks}) < len(tracks):
        raise SvacError("Two prompts have the same object id.", "Give every object an id of its own.")
    for frame in model.segment(video, [p.expression for p in prompts], progress=progress):
        for track, mask, score in zip(tracks, frame.masks, frame.scores, strict=True):
            track.scores[frame.index] = float(score)
            if mask.any():
                track.masks[frame.index] = to_coco(without_specks(mask, specks))
        if ready:
            ready(tracks)
    return tracks


def propagate(
    model: Svac,
    video: VideoSource,
    tracks: Sequence[Track],
    hints: FrameHints,
    *,
    frames: range | None = None,
    specks: float = 0.0,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> list[Track]:
    """Predict corrected objects anew, each frame from the correction nearest to it.

    Args:
        model: the model.
        video: the frames.
        tracks: all objects as they are; they are not changed.
        hints: what a person showed, by object id and 0-based frame. Given masks are never changed: their frames
            get exactly them and the score 1.0, also outside of `frames`; an empty one: no mask there. An object of
            which only empty masks were shown keeps its other frames: there is nothing to predict it from. Clicks
            that only say what does not belong to the object cut it out of the mask that the track has there.
        frames: the frames to predict; all if None. Others keep what they had.
        specks: as in `prelabel`, in what is predicted.
        progress: called with a fraction 0..1 and a message; it may raise to stop the work.
        ready: as in `prelabel`, with the corrected objects alone, after each object on each frame.

    Returns:
        One track per given track, in order; objects without hints as they were.

    Raises:
        SvacError: a hint for an object that is in no track, or as `Svac.propagate`.
    """
    shown = {object_id: dict(given) for object_id, given in hints.items() if given}
    unknown = sorted(shown.keys() - {t.object_id for t in tracks})
    if unknown:
        raise SvacError(
            f"There is no object {unknown[0]!r} to correct.",
            f"The objects are {', '.join(t.object_id for t in tracks) or 'none'}.",
        )
    result = [replace(track, masks=dict(track.masks), scores=dict(track.scores)) for track in tracks]
    changed = [track for track in result if track.object_id in shown]
    known = [
        track
        for track in changed
        if any(hint.mask is None or area(hint.mask) for hint in shown[track.object_id].values())
    ]
    if known:
        placed = [
            {i: _placed(hint, track.masks.get(i)) for i, hint in shown[track.object_id].items()}
            for track in known
        ]
        for number, index, mask, score in model.propagate(video, placed, frames=frames, progress=progress):
            known[number].scores[index] = score
            known[number].masks.pop(index, None)
            if mask.any():
                known[number].masks[index] = to_coco(without_specks(mask, specks))
            if ready:
                ready(changed)
    for track in changed:
        for index, hint in shown[track.object_id].items():
            if hint.mask is None:
                continue
            track.scores[index] = 1.0
            track.masks.pop(index, None)
            if area(hint.mask):
                track.masks[index] = hint.mask
    return result


def _placed(hint: FrameHint, mask: CocoRle | None) -> FrameHint:
    """Give clicks beside an object, without any on it, the box of the mask that it had there."""
    if hint.mask is not None or hint.box is not None or any(click.positive for click in hint.clicks):
        return hint
    if mask is None or not area(mask):
        return hint
    rows, columns = (np.flatnonzero(from_coco(mask).any(axis)) for axis in (1, 0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return replace(hint, box=box)
