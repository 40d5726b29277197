"""`svac-backend prelabel`: a video file in, tracks, Label Studio results and pictures out.

`propagate` writes the same: tracks, a task for Label Studio, an overlay video and a contact sheet.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from svac_backend.cli.inputs import check_prompts, open_video, prompt_labels, read_config, shipped_config
from svac_backend.cli.terminal import bar, console
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.versions import served_version
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import VideoInfo


def run(settings: Settings, path: Path, prompts: list[str], out: Path, config_file: Path | None) -> None:
    """Segment one video and write `tracks.json`, `label_studio.json`, `overlay.mp4` and `contact_sheet.png`.

    Args:
        settings: the model and what is sent to the editor.
        path: the video.
        prompts: what to segment.
        out: folder for the results; made when needed.
        config_file: labelling config; the shipped brush config, with the prompts' labels, if None.

    Raises:
        SvacError: no prompt, a bad one, no model, a video that can't be read, or a folder that can't be written.
    """
    if not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')
    config = parse_config(read_config(config_file) if config_file else shipped_config(prompt_labels(prompts)))
    wishes = check_prompts(prompts, config, settings)
    served_version(settings)  # says what is wrong before anything is written
    with open_video(path, settings) as video:
        info = video.info
        prepare(out)
        # Here, since it imports torch: a mistake in the command is told without waiting for that.
        from svac_backend.jobs.worker import load_served
        from svac_backend.pipeline import prelabel

        model, version = load_served(settings)
        started = time.monotonic()
        with bar("segmenting") as progress:
            tracks = prelabel(model, video, wishes, progress=lambda done, _: progress(done))
        seconds = time.monotonic() - started
        found = Segmented(path.name, version, tracks, prompts, config)
        write_results(out, video, found, settings)
        whole = time.monotonic() - started
    tell(
        tracks,
        info.frame_count,
        "The model found nothing of that kind; try other words, for example a colour.",
    )
    console.print(
        f"{info.frame_count} frames of {info.width}x{info.height} in {seconds:.1f} s "
        f"({info.frame_count / seconds:.1f} frames/s; {info.frame_count / whole:.1f} with what was written). "
        f"Model {version}. Results in {escape(str(out))}"
    )


@dataclass(frozen=True)
class Segmented:
    """What was found in a video.

    Attributes:
        name: of the video's file.
        version: of the model.
        tracks: the objects.
        prompts: what the task says that was asked for.
        config: what the regions have to fit.
    """

    name: str
    version: str
    tracks: Sequence[Track]
    prompts: Sequence[str]
    config: LabelConfig


def prepare(out: Path) -> None:
    """Make the folder for the results. Raises `SvacError` where that can't be done."""
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)


def write_results(out: Path, video: VideoReader, found: Segmented, settings: Settings) -> None:
    """Write `tracks.json`, `label_studio.json`, `overlay.mp4` and `contact_sheet.png`.

    Args:
        out: an existing folder.
        video: the frames.
        found: what is written.
        settings: what is sent to the editor.

    Raises:
        SvacError: the folder can't be written, or the config can't show the masks.
    """
    # Here, since it imports torch: a mistake in the command is told without waiting for that.
    from svac_backend.pipeline import write_contact_sheet, write_overlay

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
    with _writing(out):
        with bar("drawing") as progress:
            write_overlay(video, tracks, out / "overlay.mp4", progress=lambda done, _: progress(done))
        write_contact_sheet(video, tracks, out / "contact_sheet.png")
        (out / "tracks.json").write_text(json.dumps(content))
        (out / "label_studio.json").write_text(json.dumps([_task(info, found, settings)]))


def _task(info: VideoInfo, found: Segmented, settings: Settings) -> dict[str, Any]:
    """Return the task with its prediction, as Label Studio imports it; its frames have no address yet."""
    canvas, options = Canvas(info.width, info.height), RegionOptions.of(settings)
    results = tracks_to_results(found.tracks, found.config.mask_control(), canvas, options)
    validate_results(results, found.config, frame_count=info.frame_count)
    return {
        "data": build_task_data(found.name, [], info.fps, found.prompts, config=found.config),
        "predictions": [to_prediction(results, found.version)],
    }


def tell(tracks: Sequence[Track], frame_count: int, hint: str) -> None:
    """Print a line per object, and a hint below one that has no mask."""
    for track in tracks:
        console.print(
            f"{track.object_id} [bold]{escape(track.expression)}[/]: a mask on {len(track.masks)} of "
            f"{frame_count} frames, mean score {track.score:.2f}"
        )
        if not track.masks:
            console.print(f"  {hint}")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SvacError(
            f"The results cannot be written to {out}: {error.strerror or error}.",
            "Give a folder that this user may write to, on a disk with space: --out DIR.",
        ) from error
