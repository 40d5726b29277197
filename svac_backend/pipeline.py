"""From a video and prompts to tracks. Used by the command line and the worker alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from svac_backend.errors import SvacError
from svac_backend.masks.hints import FrameHint, FrameHints
from svac_backend.masks.instances import Things, named, parts_of
from svac_backend.masks.rle import area, from_coco, to_coco
from svac_backend.masks.specks import without_specks
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.settings import Settings
from svac_backend.svac.model import Svac
from svac_backend.video.source import VideoSource

Progress = Callable[[float, str], None]
# Called after each frame with all tracks as far as they are; they are still being filled.
Ready = Callable[[Sequence[Track]], None]

# Of the progress bar where instances are told apart: what the sentence takes.
UNION_SHARE = 0.3


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
    labels: Collection[str] = (),
    specks: float = 0.0,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> list[Track]:
    """Segment every prompt on every frame.

    Args:
        model: the model.
        video: the frames.
        prompts: what to segment; ids must differ. One that begins with `each:` gives a track for each of its things,
            `obj1.1`, `obj1.2` ..., told apart once the whole video was looked at; see `masks.instances`.
        labels: which labels there are; an instance gets that of its own name, `dog 2`, if it is one of them.
        specks: islands and pinholes below this share of a mask are dropped, see `masks.specks`; 0 keeps all.
        progress: called with a fraction 0..1 and a message; it may raise to stop the work.
        ready: for those who cannot wait for the end: called after each frame with the tracks so far, instances aside.

    Returns:
        One track per prompt, in order, or those of its instances; a sentence without any is one track without masks.
        Frames without the object have a score and no mask.

    Raises:
        SvacError: no prompt, an empty expression, two prompts with one id, or a damaged video.
    """
    tracks = [Track(p.object_id, p.label, p.expression) for p in prompts]
    if len({t.object_id for t in tracks}) < len(tracks):
        raise SvacError("Two prompts have the same object id.", "Give every object an id of its own.")
    parts: dict[str, dict[int, list[CocoRle]]] = {p.object_id: {} for p in prompts if p.each is not None}
    plain = [track for track in tracks if track.object_id not in parts]
    told = _from_to(progress, 0.0, 1.0 if not parts else UNION_SHARE)
    sentences = [p.expression if p.each is None else p.each for p in prompts]
    for frame in model.segment(video, sentences, progress=told):
        for track, mask, score in zip(tracks, frame.masks, frame.scores, strict=True):
            track.scores[frame.index] = float(score)
            if track.object_id in parts:
                parts[track.object_id][frame.index] = parts_of(without_specks(mask, specks))
            elif mask.any():
                track.masks[frame.index] = to_coco(without_specks(mask, specks))
        if ready and plain:
            ready(plain)
    found: list[Track] = []
    for track in tracks:
        if track.object_id not in parts:
            found.append(track)
            continue
        done = UNION_SHARE + (1 - UNION_SHARE) * list(parts).index(track.object_id) / len(parts)
        told = _from_to(progress, done, done + (1 - UNION_SHARE) / len(parts))
        things = Things(parts[track.object_id])
        of_each = _instances(model, video, things, track, specks, told) or [track]
        found += named(of_each, track.object_id, track.label, labels)
    return found


def _instances(
    model: Svac, video: VideoSource, things: Things, union: Track, specks: float, progress: Progress | None
) -> list[Track]:
    """Tell the things of a sentence apart: show memory what is apart, and see which parts that explains."""
    tracks: list[Track] = []
    shown: list[dict[int, FrameHint]] = []
    begun = 0.0
    while new := things.unseen():
        # How often is not known before: each time half of what is left of the bar.
        told = _from_to(progress, begun, begun + (1 - begun) / 2)
        begun += (1 - begun) / 2
        tracks += _carried(model, video, new, specks, told)
        shown += new
        things.see(tracks)
    anchors = things.anchors()
    if anchors != shown:
        tracks = _carried(model, video, anchors, specks, _from_to(progress, begun, 1.0))
    for track, hints in zip(tracks, anchors, strict=True):
        for frame in hints:  # the sentence found it there, no person: as sure as that was
            track.scores[frame] = min(union.scores[frame], 0.999)
    return things.settle(tracks)


def _carried(
    model: Svac,
    video: VideoSource,
    hints: Sequence[dict[int, FrameHint]],
    specks: float,
    progress: Progress | None,
) -> list[Track]:
    numbered = {str(number): shown for number, shown in enumerate(hints)}
    tracks = [Track(name, "", "") for name in numbered]
    return propagate(model, video, tracks, numbered, specks=specks, progress=progress)


def _from_to(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Return what tells a part of the work as that part of the whole."""
    if progress is None:
        return None
    return lambda done, message: progress(start + (end - start) * done, message)


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
