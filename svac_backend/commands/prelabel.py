"""`svac-backend prelabel`: a video file in, tracks, Label Studio results and pictures out."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.results import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data, task_prompts
from svac_backend.pipeline import load_model, prelabel, write_contact_sheet, write_overlay
from svac_backend.settings import Settings
from svac_backend.svac.weights import model_version
from svac_backend.video.reader import VideoReader

# What prompts are labelled with when no labelling config is given: any label is allowed then.
DEFAULT_LABEL = "object"

console = Console(stderr=True)


def default_config(prompts: list[str]) -> str:
    """Return a brush config that knows the labels of prompts such as "car: the red car"."""
    labels = [DEFAULT_LABEL]
    for prompt in prompts:
        head, colon, rest = prompt.partition(":")
        if colon and rest.strip() and head.strip() and head.strip() not in labels:
            labels.append(head.strip())
    tags = "".join(f'<Label value="{_escape(label)}"/>' for label in labels)
    return (
        '<View><TextArea name="prompt" toName="frames"/><Image name="frames" valueList="$frames"/>'
        f'<BrushLabels name="mask" toName="frames">{tags}</BrushLabels>'
        '<Video name="video" value="$video" framerate="$fps"/></View>'
    )


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def run(settings: Settings, path: Path, prompts: list[str], out: Path, config_file: Path | None) -> None:
    """Segment one video and write `tracks.json`, `label_studio.json`, `overlay.mp4` and `contact_sheet.png`.

    Raises:
        SvacError: no prompt, a bad one, or a video that can't be read.
    """
    if not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')
    xml = config_file.read_text() if config_file else default_config(prompts)
    config = parse_config(xml)
    wishes = task_prompts({"prompt": prompts}, config, max_chars=settings.max_prompt_chars)
    with VideoReader(path, max_side=settings.max_video_side, max_frames=settings.max_frames) as video:
        info = video.info
        out.mkdir(parents=True, exist_ok=True)
        model = load_model(settings)
        version = model_version(settings.model)
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=console,
        ) as bar:
            started = time.monotonic()
            segmenting = bar.add_task("segmenting", total=1.0)
            tracks = prelabel(
                model, video, wishes, progress=lambda done, _: bar.update(segmenting, completed=done)
            )
            seconds = time.monotonic() - started
            drawing = bar.add_task("drawing", total=1.0)
            write_overlay(
                video,
                tracks,
                out / "overlay.mp4",
                progress=lambda done, _: bar.update(drawing, completed=done),
            )
            drawn = time.monotonic() - started
        write_contact_sheet(video, tracks, out / "contact_sheet.png")
        control = config.mask_control()
        results = tracks_to_results(
            tracks,
            control,
            width=info.width,
            height=info.height,
            tolerance_px=settings.polygon_tolerance_px,
            iou_floor=settings.polygon_iou_floor,
            min_area_px=settings.min_area_px,
        )
        validate_results(results, config, frame_count=info.frame_count)
    (out / "tracks.json").write_text(
        json.dumps(
            {
                "video": path.name,
                "width": info.width,
                "height": info.height,
                "fps": info.fps,
                "frame_count": info.frame_count,
                "model_version": version,
                "tracks": [track.to_json() for track in tracks],
            }
        )
    )
    task = {
        "data": build_task_data(path.name, [], info.fps, prompts, config=config),
        "predictions": [to_prediction(results, version)],
    }
    (out / "label_studio.json").write_text(json.dumps([task]))
    for track in tracks:
        console.print(
            f"{track.object_id} [bold]{track.expression}[/]: a mask on {len(track.masks)} of {info.frame_count} "
            f"frames, mean score {track.score:.2f}",
            highlight=False,
        )
    console.print(
        f"{info.frame_count} frames of {info.width}x{info.height} in {seconds:.1f} s "
        f"({info.frame_count / seconds:.1f} frames/s; {info.frame_count / drawn:.1f} with the overlay). "
        f"Model {version}. Results in {out}",
        highlight=False,
    )
