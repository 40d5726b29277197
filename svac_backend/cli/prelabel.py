"""`svac-backend prelabel`: a video file in; tracks, Label Studio results and pictures out. `propagate` uses it, too."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from svac_backend.cli.inputs import check_prompts, open_video, prompt_labels, read_config, shipped_config
from svac_backend.cli.terminal import bar, console
from svac_backend.errors import SvacError
from svac_backend.evaluation.predictions import writing
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data
from svac_backend.masks.render import OverlayWriter, contact_sheet, overlay
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import EACH, Track, each_of, prompt_of
from svac_backend.settings import Settings
from svac_backend.versions import served_version
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import VideoInfo, VideoSource, playable_rate

# Pictures per row of a contact sheet, and their longest side in pixels.
COLUMNS, PICTURE_PX = 4, 480
# Frames per second of the overlay if the video's own rate cannot be played.
OVERLAY_FPS = 25.0


def run(
    settings: Settings,
    path: Path,
    prompts: list[str],
    out: Path,
    config_file: Path | None,
    *,
    instances: bool = False,
) -> Written:
    """Segment one video and write `tracks.json`, `label_studio.json`, `overlay.mp4` and `contact_sheet.png`.

    Without a config file, the shipped brush config is used, with the prompts' labels; each instance then gets a label
    of its own, `dog 1`. `instances` treats every prompt as if it began with `each:`.

    Raises:
        SvacError: there is no prompt or a bad one, no model, the video can't be read, or the folder can't be written.
    """
    if not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')
    if instances:
        lines = [line for prompt in prompts for line in prompt.splitlines() if line.strip()]
        prompts = [line if each_of(line) is not None else EACH + line for line in lines]
    config = parse_config(read_config(config_file) if config_file else shipped_config(prompt_labels(prompts)))
    wishes = check_prompts(prompts, config, settings)
    served_version(settings)  # reports what is wrong before anything is written
    with open_video(path, settings) as video:
        info = video.info
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        # Imported here, since it imports torch: a mistake in the command is reported without that wait.
        from svac_backend.jobs.worker import load_served
        from svac_backend.pipeline import prelabel

        model, version = load_served(settings)
        started = time.monotonic()
        with bar("segmenting") as progress:
            tracks = prelabel(
                model,
                video,
                wishes,
                labels=config.mask_control().labels,
                specks=settings.speck_share,
                progress=lambda done, _: progress(done),
            )
        seconds = time.monotonic() - started
        if config_file is None:
            tracks = [replace(t, label=t.expression) if prompt_of(t.object_id) else t for t in tracks]
            config = parse_config(shipped_config([track.label for track in tracks]))
        found = Segmented(path.name, version, tracks, prompts, config)
        written = write_results(out, video, found, settings)
        whole = time.monotonic() - started
    hint = "The model found nothing of that kind; try other words, for example a colour."
    tell(tracks, info.frame_count, hint)
    console.print(
        f"{info.frame_count} frames of {info.width}x{info.height} in {seconds:.1f} s "
        f"({info.frame_count / seconds:.1f} frames/s; {info.frame_count / whole:.1f} including writing). "
        f"Model {version}. Results in {escape(str(out))}"
    )
    return written


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        files: paths of the files.
        model_version: the model's version.
        frames: number of frames of the video.
        objects: id, label, expression, number of masks and mean score of each object.
    """

    files: list[str]
    model_version: str
    frames: int
    objects: list[dict[str, Any]]


@dataclass(frozen=True)
class Segmented:
    """What was found in a video.

    Attributes:
        name: name of the video's file.
        version: the model's version.
        tracks: the objects.
        prompts: the prompt in the task's data.
        config: the labelling config that the regions have to fit.
    """

    name: str
    version: str
    tracks: Sequence[Track]
    prompts: Sequence[str]
    config: LabelConfig


def write_results(out: Path, video: VideoReader, found: Segmented, settings: Settings) -> Written:
    """Write `tracks.json`, `label_studio.json`, `overlay.mp4` and `contact_sheet.png`.

    Raises:
        SvacError: the folder can't be written, or the config can't show the masks.
    """
    info, tracks = video.info, found.tracks
    content = {
        "video": found.name,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frame_count": info.frame_count,
        "model_version": found.version,
        "tracks": [track.to_json() for track in tracks],
    }
    with writing(out):
        # The tracks first: they took the time, and an error with a picture must not lose them.
        (out / "tracks.json").write_text(json.dumps(content))
        (out / "label_studio.json").write_text(json.dumps([_task(info, found, settings)]))
        _write_overlay(video, tracks, out / "overlay.mp4")
        titles = {i: f"frame {i}" for i in spread(range(len(video)), 12)}
        write_contact_sheet(video, tracks, titles, out / "contact_sheet.png")
    names = ("tracks.json", "label_studio.json", "overlay.mp4", "contact_sheet.png")
    objects = [
        {
            "id": track.object_id,
            "label": track.label,
            "expression": track.expression,
            "masks": len(track.masks),
            "score": round(track.score, 4),
        }
        for track in tracks
    ]
    return Written([str(out / name) for name in names], found.version, info.frame_count, objects)


def _task(info: VideoInfo, found: Segmented, settings: Settings) -> dict[str, Any]:
    """Return the task with its prediction, as Label Studio imports it; its frames have no address yet."""
    canvas, options = Canvas(info.width, info.height), RegionOptions.of(settings)
    results = tracks_to_results(found.tracks, found.config.mask_control(), canvas, options)
    validate_results(results, found.config, frame_count=info.frame_count)
    return {
        "data": build_task_data(found.name, [], info.fps, found.prompts, config=found.config),
        "predictions": [to_prediction(results, found.version)],
    }


def masks_of_frame(tracks: Sequence[Track], index: int, height: int, width: int) -> NDArray[np.bool_]:
    """Return the masks of one frame, bool [N, H, W]; all False for a track without a mask there."""
    masks = np.zeros((len(tracks), height, width), dtype=np.bool_)
    for mask, track in zip(masks, tracks, strict=True):
        if index in track.masks:
            mask[:] = from_coco(track.masks[index])
    return masks


def _write_overlay(video: VideoSource, tracks: Sequence[Track], path: Path) -> None:
    labels = [track.expression for track in tracks]
    info = video.info
    fps = playable_rate(info.fps) or OVERLAY_FPS
    with OverlayWriter(path, fps, info.width, info.height) as writer, bar("drawing") as progress:
        for start, frames in video.windows(16):
            for i, frame in enumerate(frames, start):
                writer.write(frame, masks_of_frame(tracks, i, info.height, info.width), labels=labels)
            progress((start + len(frames)) / len(video))


def write_contact_sheet(
    video: VideoSource, tracks: Sequence[Track], titles: Mapping[int, str], path: Path
) -> None:
    """Write a PNG of some frames with their masks; `titles` maps each frame to its title, in order.

    Raises:
        SvacError: there is no such frame, or the picture cannot be written.
    """
    labels = [track.expression for track in tracks]
    drawn = []
    for i, frame in video.frames(list(titles)):
        height, width = frame.shape[:2]
        picture = overlay(frame, masks_of_frame(tracks, i, height, width), labels=labels)
        scale = min(1.0, PICTURE_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        drawn.append(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
    sheet = contact_sheet(drawn, columns=COLUMNS, titles=list(titles.values()))
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise SvacError(f"{path} can't be written.", "Check that the folder exists and has space.")


def spread(frames: Sequence[int], count: int) -> list[int]:
    """Return at most `count` frames, evenly spread, in order."""
    places = {round(k) for k in np.linspace(0, len(frames) - 1, min(count, len(frames)))} if frames else ()
    return [frames[place] for place in sorted(places)]


def tell(tracks: Sequence[Track], frame_count: int, hint: str) -> None:
    """Print a line per object, and a hint below an object without masks."""
    for track in tracks:
        console.print(
            f"{track.object_id} [bold]{escape(track.expression)}[/]: a mask on {len(track.masks)} of "
            f"{frame_count} frames, mean score {track.score:.2f}"
        )
        if not track.masks:
            console.print(f"  {hint}")
