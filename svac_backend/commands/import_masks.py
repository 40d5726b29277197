"""`svac-backend import --masks`: a data set's videos with their masks into a Label Studio project."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from svac_backend.commands.configs import read_config, shipped_config
from svac_backend.commands.import_videos import check_target
from svac_backend.commands.importer import Importer
from svac_backend.commands.local_files import files_root
from svac_backend.commands.mask_filler import MaskFiller, check_video, prompt_lines
from svac_backend.commands.pictures import encode_pictures
from svac_backend.commands.progress import bar, console
from svac_backend.commands.projects import existing_project, project_of_title
from svac_backend.commands.sources import SourceVideo
from svac_backend.commands.sources import check_video as look_at
from svac_backend.commands.windowing import Windowing
from svac_backend.errors import SvacError
from svac_backend.exporting.dataset import VideoTracks
from svac_backend.exporting.layouts import read_dataset
from svac_backend.exporting.split import plan_windows
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import Prompt
from svac_backend.settings import Settings
from svac_backend.video.images import ImageFolderVideo

# Of a data set that does not say.
DEFAULT_FPS = 24.0


def run(
    settings: Settings,
    masks: Path,
    layout: str,
    videos: Sequence[Path] = (),
    *,
    split: str = "train",
    project: int | None,
    create: str | None,
    config: Path | None,
    annotations: bool = False,
    windowing: Windowing | None = None,
) -> None:
    """Import a data set; print what was done and the project's address.

    Args:
        settings: Label Studio and its files root.
        masks: the data set's folder.
        layout: one of `exporting.dataset.FORMATS`.
        videos: the videos that the data set was made from, named as in the data set; the numbers that name the data
            set's pictures are their frames. Without any, videos are made of the data set's pictures.
        split: of the data set.
        project, create, config: as for videos, see `import_videos.run`.
        annotations: make annotations, as if a person had submitted them; else predictions.
        windowing: how a long video is split.

    Raises:
        SvacError: something is not as it should be. Either nothing was changed in Label Studio, or the message and
            what was printed say which videos are in.
    """
    check_target(project, create, config)
    windowing = windowing or Windowing()
    plan_windows(1, windowing.size, windowing.overlap, windowing.stride)
    root = files_root(settings)
    with console.status("reading the masks"):
        data_set = read_dataset(masks, layout, split)
    with ExitStack() as stack:
        if videos:
            found = _matched(data_set, videos, settings)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="svac-import-"))
            found = _made(data_set, Path(folder), settings)

        def check(known: LabelConfig) -> None:
            for video in found.values():
                check_video(video, known, settings)

        xml = ""
        if create is not None:
            labels = [track.label for video in found.values() for track in video.tracks if track.label]
            kind = windowing.config_kind(list(found))
            xml = read_config(config) if config else shipped_config(labels, kind=kind)
            check(parse_config(xml))
        client = stack.enter_context(closing(LabelStudioClient.from_settings(settings)))
        with console.status("asking Label Studio"):
            if create is not None:
                target = project_of_title(client, root, create, xml, check, xml_is_default=config is None)
            else:
                target = existing_project(client, root, project or 0, check)

        def prompt(source: SourceVideo) -> Prompt | None:
            return prompt_lines(found[source], target.config) or None

        by_path = {source.path: video for source, video in found.items()}
        filler = MaskFiller(settings, client, target, by_path, f"masks-{layout}", annotations=annotations)
        Importer(settings, client, target, prompt, root, windowing, filler).run(list(found))


def _matched(
    data_set: Sequence[VideoTracks], videos: Sequence[Path], settings: Settings
) -> dict[SourceVideo, VideoTracks]:
    """Return the videos that a user named, each with the masks of the same name."""
    by_name = {video.name: video for video in data_set}
    found = {}
    for path in videos:
        source = look_at(path, settings)
        video = by_name.get(path.stem) or by_name.get(source.stem)
        if video is None:
            known = ", ".join(sorted(by_name)[:10])
            raise SvacError(
                f"The data set has no masks of {path.name}.",
                f"Name the file as the data set names the video, one of: {known}.",
            )
        _check(source, video)
        found[source] = video
    return found


def _made(
    data_set: Sequence[VideoTracks], folder: Path, settings: Settings
) -> dict[SourceVideo, VideoTracks]:
    """Return videos that are made of a data set's pictures; masks lie by the pictures' places."""
    found = {}
    for video in data_set:
        if video.pictures is None or not video.pictures.is_dir():
            raise SvacError(
                f"The data set has no pictures of {video.name} (there is no {video.pictures}).",
                "Give the videos that it was made from: svac-backend import --masks DIR VIDEO...",
            )
        pictures = ImageFolderVideo(
            video.pictures,
            video.picture_names,
            fps=video.fps or DEFAULT_FPS,
            max_side=settings.max_video_side,
        )
        with bar(f"{video.name}: making a video") as progress:
            path = encode_pictures(pictures, folder, video.name, progress)
        source = replace(look_at(path, settings), pictures=pictures)
        places = {frame: place for place, frame in enumerate(video.frames)}
        tracks = tuple(
            replace(
                track,
                masks={places[frame]: rle for frame, rle in track.masks.items()},
                scores={places[frame]: score for frame, score in track.scores.items() if frame in places},
            )
            for track in video.tracks
        )
        placed = replace(video, frames=tuple(range(len(video.frames))), tracks=tracks, names=())
        _check(source, placed)
        found[source] = placed
    return found


def _check(source: SourceVideo, video: VideoTracks) -> None:
    info = source.info
    if (info.width, info.height) != (video.width, video.height):
        raise SvacError(
            f"{source.path.name} has {info.width}x{info.height} pixels, its masks {video.width}x{video.height}.",
            "Give the video that the masks were made on.",
        )
    if video.frames and video.frames[-1] >= info.frame_count:
        raise SvacError(
            f"{source.path.name} has {info.frame_count} frames, its masks speak of frame {video.frames[-1]}.",
            "Give the video that the masks were made on.",
        )
