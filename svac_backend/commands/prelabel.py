"""`svac-backend prelabel`: a video file in, tracks, Label Studio results and pictures out."""

from __future__ import annotations

import time
from pathlib import Path

from rich.markup import escape

from svac_backend.commands.configs import check_prompts, prompt_labels, read_config, shipped_config
from svac_backend.commands.outputs import prepare, tell, write_results
from svac_backend.commands.progress import bar, console
from svac_backend.commands.sources import open_video
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.settings import Settings
from svac_backend.training.registry import served_version


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
        from svac_backend.jobs.model_owner import load_served
        from svac_backend.pipeline import prelabel

        model, version = load_served(settings)
        started = time.monotonic()
        with bar("segmenting") as progress:
            tracks = prelabel(model, video, wishes, progress=lambda done, _: progress(done))
        seconds = time.monotonic() - started
        write_results(out, video, path.name, version, tracks, prompts, config, settings)
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
