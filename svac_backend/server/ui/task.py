"""The page of a task: a player of its masks over its frames, the least certain frames, and what people corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, request

from svac_backend.errors import SvacError
from svac_backend.labelstudio.tasks import shown_frames
from svac_backend.masks.render import PALETTE
from svac_backend.masks.rle import iou
from svac_backend.masks.tracks import Track
from svac_backend.server.jobs_api import NotFound
from svac_backend.server.ui.frame import Frame
from svac_backend.server.ui.pictures import Pictures, mask_picture
from svac_backend.store.corrections import Correction, CorrectionStore
from svac_backend.store.predictions import Prediction

# How many uncertain frames are listed, and how far apart at least; how many pictures a correction has.
WORST, APART, PICTURES = 8, 5, 6
# Width and height of the certainty strip, in units of its SVG.
STRIP = (600, 60)
CACHE_S = 300


@dataclass(frozen=True)
class Changed:
    """A frame that a person drew on. The model's mask is at `place` of its prediction; `agree` is the IoU of both."""

    frame: int
    place: int | None
    agree: float | None


@dataclass(frozen=True)
class CorrectedObject:
    """A corrected object, as the page shows it.

    Attributes:
        one: the correction.
        before: key of the prediction that was corrected, if it is still here.
        frames: some of the drawn frames, spread over the video.
    """

    one: Correction
    before: str | None
    frames: list[Changed]


def add(routes: Blueprint, frame: Frame) -> None:
    """Add the routes of a task and of its pictures."""
    backend, pictures = frame.backend, Pictures(frame.backend)
    corrections = CorrectionStore(backend.database)

    @routes.get("/projects/<project>/tasks/<task>")
    def task(project: str, task: str) -> Response:
        known = backend.tasks.get(project, task)
        made = corrections.of_task(project, task)
        versions = backend.predictions.of_task(project, task)
        if known is None and not made and not versions:
            raise NotFound("This task has no prediction.", "Open it in Label Studio to have it predicted.")
        key = request.args.get("prediction") or (
            known.prediction if known else versions[0][0] if versions else ""
        )
        prediction = pictures.prediction(key) if key else None
        names = dict(versions) | ({known.prediction: known.model_version} if known else {})
        return frame.page(
            "task",
            project=project,
            task=task,
            known=known,
            key=key,
            versions=names,
            player=None if prediction is None or key not in names else _player(prediction, project, task),
            corrected=[_corrected(pictures, names, one) for one in made],
            colours=[f"#{r:02x}{g:02x}{b:02x}" for r, g, b in PALETTE],
        )

    def _player(prediction: Prediction, project: str, task: str) -> dict[str, object]:
        told = pictures.task(project, task)
        frames = [
            index
            for index in shown_frames(prediction.frame_count, told.window)
            if index < prediction.frame_count
        ]
        certain = pictures.certainty(prediction, frames)
        worst = worst_frames(certain)
        try:
            at = int(request.args.get("frame", worst[0] if worst else frames[0]))
        except ValueError:
            at = frames[0]
        return {
            "frames": frames,
            "at": at if at in frames else frames[0],
            "worst": [(index, certain[index]) for index in worst],
            "strip": _strip(frames, certain),
            "tracks": prediction.tracks,
            "fps": prediction.fps,
            "size": (prediction.width, prediction.height),
            "version": prediction.model_version,
        }

    @routes.get("/projects/<project>/tasks/<task>/frames/<int:index>.jpg")
    def frame_picture(project: str, task: str, index: int) -> Response:
        return _picture(pictures.frame(project, task, index), "image/jpeg")

    @routes.get("/masks/<key>/<int:index>.png")
    def masks(key: str, index: int) -> Response:
        prediction = pictures.prediction(key)
        if prediction is None:
            raise NotFound("This prediction is gone.", "Load the page again.")
        only = request.args.get("object", type=int)
        chosen = [
            track.masks.get(index) if only in (None, place) else None
            for place, track in enumerate(prediction.tracks)
        ]
        return _picture(mask_picture(chosen), "image/png")

    @routes.get("/projects/<project>/tasks/<task>/corrections/<annotation>/<object_id>/<int:index>.png")
    def corrected(project: str, task: str, annotation: str, object_id: str, index: int) -> Response:
        for one in corrections.of_task(project, task):
            if (one.annotation_id, one.track.object_id) == (annotation, object_id):
                return _picture(mask_picture([one.track.masks.get(index)]), "image/png")
        raise NotFound("There is no such correction.", "Load the page again.")


def worst_frames(certain: Mapping[int, float], count: int = WORST, apart: int = APART) -> list[int]:
    """Return up to `count` of the least certain frames, the worst first, at least `apart` frames from one another."""
    found: list[int] = []
    for index in sorted(certain, key=lambda index: (certain[index], index)):
        if all(abs(index - other) >= apart for other in found):
            found.append(index)
        if len(found) == count:
            break
    return found


def _corrected(pictures: Pictures, names: Mapping[str, str], one: Correction) -> CorrectedObject:
    """Find the model's masks of a corrected object, and compare some frames."""
    version = one.model_version
    before = next((key for key, name in names.items() if name == version), None) if version else None
    prediction = pictures.prediction(before) if before else None
    place = None if prediction is None else _place(prediction.tracks, one)
    drawn = sorted(one.drawn)
    step = max(1, -(-len(drawn) // PICTURES))
    frames = []
    for index in drawn[::step][:PICTURES]:
        model = None if prediction is None or place is None else prediction.tracks[place].masks.get(index)
        mine, agree = one.track.masks.get(index), None
        if model is not None and mine is not None:
            try:
                agree = iou(model, mine)
            except SvacError:  # of another size
                agree = None
        frames.append(Changed(index, place, agree))
    return CorrectedObject(one, None if place is None else before, frames)


def _place(tracks: Sequence[Track], one: Correction) -> int | None:
    names = [(track.object_id, track.expression) for track in tracks]
    same = [place for place, name in enumerate(names) if name[0] == one.track.object_id]
    alike = [place for place, name in enumerate(names) if name[1] == one.expression]
    return next(iter(same + alike), None)


def _strip(frames: Sequence[int], certain: Mapping[int, float]) -> str:
    """Return the certainty of the frames as a few hundred points at most of a polyline, `STRIP` in size."""
    width, height = STRIP
    step = max(1, len(frames) // 300)
    points = []
    for start in range(0, len(frames), step):
        values = [certain[index] for index in frames[start : start + step] if index in certain]
        if values:
            x = width * start / max(1, len(frames) - 1)
            points.append(f"{x:.1f},{height - (height - 2) * min(values) - 1:.1f}")
    return " ".join(points)


def _picture(data: bytes, kind: str) -> Response:
    return Response(data, mimetype=kind, headers={"Cache-Control": f"private, max-age={CACHE_S}"})
