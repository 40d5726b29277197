"""`svac-backend prelabel`: a video file in, tracks, Label Studio results and pictures out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape

from svac_backend.commands.configs import check_prompts, prompt_labels, read_config, shipped_config
from svac_backend.commands.progress import bar, console
from svac_backend.commands.sources import open_video
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.results import to_prediction, tracks_to_results, validate_results
from svac_backend.labelstudio.tasks import build_task_data
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.svac.weights import model_version
from svac_backend.video.reader import VideoInfo


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
    version = model_version(settings.model)
    with open_video(path, settings) as video:
        info = video.info
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
        # Here, since it imports torch: a mistake in the command is told without waiting for that.
        from svac_backend.pipeline import load_model, prelabel, write_contact_sheet, write_overlay

        model = load_model(settings)
        started = time.monotonic()
        with bar("segmenting") as progress:
            tracks = prelabel(model, video, wishes, progress=lambda done, _: progress(done))
        seconds = time.monotonic() - started
        with _writing(out):
            with bar("drawing") as progress:
                write_overlay(video, tracks, out / "overlay.mp4", progress=lambda done, _: progress(done))
            drawn = time.monotonic() - started
            write_contact_sheet(video, tracks, out / "contact_sheet.png")
            _write_tracks(out / "tracks.json", path.name, info, version, tracks)
            _write_task(
                out / "label_studio.json", path.name, info, version, tracks, prompts, config, settings
            )
    for track in tracks:
        console.print(
            f"{track.object_id} [bold]{escape(track.expression)}[/]: a mask on {len(track.masks)} of "
            f"{info.frame_count} frames, mean score {track.score:.2f}"
        )
        if not track.masks:
            console.print("  The model found nothing of that kind; try other words, for example a colour.")
    console.print(
        f"{info.frame_count} frames of {info.width}x{info.height} in {seconds:.1f} s "
        f"({info.frame_count / seconds:.1f} frames/s; {info.frame_count / drawn:.1f} with the overlay). "
        f"Model {version}. Results in {escape(str(out))}"
    )


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SvacError(
            f"The results cannot be written to {out}: {error.strerror or error}.",
            "Give a folder that this user may write to, on a disk with space: --out DIR.",
        ) from error


def _write_tracks(file: Path, name: str, info: VideoInfo, version: str, tracks: Sequence[Track]) -> None:
    content = {
        "video": name,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frame_count": info.frame_count,
        "model_version": version,
        "tracks": [track.to_json() for track in tracks],
    }
    file.write_text(json.dumps(content))


def _write_task(
    file: Path,
    name: str,
    info: VideoInfo,
    version: str,
    tracks: Sequence[Track],
    prompts: Sequence[str],
    config: LabelConfig,
    settings: Settings,
) -> None:
    """Write what Label Studio imports: a list of one task with its prediction; its frames have no address yet."""
    results = tracks_to_results(
        tracks,
        config.mask_control(),
        width=info.width,
        height=info.height,
        tolerance_px=settings.polygon_tolerance_px,
        iou_floor=settings.polygon_iou_floor,
        min_area_px=settings.min_area_px,
    )
    validate_results(results, config, frame_count=info.frame_count)
    task = {
        "data": build_task_data(name, [], info.fps, prompts, config=config),
        "predictions": [to_prediction(results, version)],
    }
    file.write_text(json.dumps([task]))
