"""Which import is meant: of videos, or of a data set's masks."""

from __future__ import annotations

from pathlib import Path

from svac_backend.commands import import_masks, import_videos
from svac_backend.commands.windowing import Windowing
from svac_backend.errors import SvacError
from svac_backend.exporting.dataset import FORMATS
from svac_backend.settings import Settings


def run(
    settings: Settings,
    videos: list[Path],
    prompts: list[str],
    *,
    project: int | None,
    create: str | None,
    config: Path | None,
    predict: bool,
    window: int,
    overlap: int | None,
    stride: int,
    masks: Path | None,
    layout: str | None,
    split: str,
    drawn: str,
) -> None:
    """Import videos (`import_videos.run`), or masks (`import_masks.run`).

    Args:
        window, overlap, stride: see `plan_windows`.
        masks, layout, split: a data set's folder, or None for videos alone.
        drawn: what masks become, `predictions` or `annotations`.
        settings, videos, prompts, project, create, config, predict: as there.

    Raises:
        SvacError: options that do not belong together, and as there.
    """
    windowing = Windowing(window, overlap, stride)
    if masks is None:
        if not videos:
            raise SvacError("There is no video.", "Name video files, or a data set with --masks.")
        if layout is not None:
            raise SvacError("--format belongs to --masks.", "Give --masks DIR, or leave --format out.")
        import_videos.run(
            settings,
            videos,
            prompts,
            project=project,
            create=create,
            config=config,
            predict=predict,
            windowing=windowing,
        )
        return
    if prompts:
        raise SvacError(
            "--prompt does not go with --masks: the data set says what its masks are.",
            "Leave --prompt out, or import the videos without --masks.",
        )
    if layout is None:
        raise SvacError("The data set's format is not given.", f"Give --format, one of {', '.join(FORMATS)}.")
    if drawn not in ("predictions", "annotations"):
        raise SvacError(f"Masks do not become '{drawn}'.", "Give --as predictions or --as annotations.")
    import_masks.run(
        settings,
        masks,
        layout,
        videos,
        split=split,
        project=project,
        create=create,
        config=config,
        annotations=drawn == "annotations",
        windowing=windowing,
    )
