"""Which import is meant: of videos, or of a data set's masks.

`svac-backend import`: videos and prompts into a Label Studio project, with frames and predictions.

Everything is checked before anything is changed in Label Studio. A long video is split into tasks of windows, which
overlap; one prediction of the whole video serves them all.

`svac-backend import --masks`: a data set's videos with their masks into a Label Studio project.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from svac_backend.cli.import_drawings import MaskFiller, check_masks, encode_pictures, prompt_lines
from svac_backend.cli.import_videos import Importer, Prelabeller, Windowing
from svac_backend.cli.inputs import (
    SourceVideo,
    check_prompts,
    check_video,
    prompt_labels,
    read_config,
    shipped_config,
)
from svac_backend.cli.projects import existing_project, files_root, project_of_title
from svac_backend.cli.terminal import bar, console
from svac_backend.datasets.dataset import FORMATS, VideoTracks
from svac_backend.datasets.layouts import read_dataset
from svac_backend.datasets.windows import plan_windows
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import Prompt
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.versions import served_version
from svac_backend.video.images import ImageFolderVideo

# Label Studio's own limits.
SHORTEST_TITLE, LONGEST_TITLE = 3, 50


def import_videos(
    settings: Settings,
    videos: list[Path],
    prompts: list[str],
    *,
    project: int | None,
    create: str | None,
    config: Path | None,
    predict: bool,
    windowing: Windowing | None = None,
) -> None:
    """Import videos; print what was done and the project's address.

    Args:
        settings: Label Studio, its files root, the model.
        videos: the files.
        prompts: what to segment in each of them; empty for what the config's labels say.
        project: id of an existing project.
        create: or title of a project to make; one that an earlier import made is gone on with.
        config: labelling config of a project to make; the shipped one, with the prompts' labels, if None: brush,
            or polygons where a task shows more than 100 frames.
        predict: segment the videos; else only frames and tasks are made.
        windowing: how a long video is split.

    Raises:
        SvacError: something is not as it should be. Either nothing was changed in Label Studio, or the message and
            what was printed say which videos are in.
    """
    check_target(project, create, config)
    windowing = windowing or Windowing()
    plan_windows(1, windowing.size, windowing.overlap, windowing.stride)
    if create is not None and config is None and predict and not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')

    def check(found: LabelConfig) -> None:
        check_prompts(prompts, found, settings)

    xml = ""
    if create is not None:
        xml = read_config(config) if config else shipped_config(prompt_labels(prompts))
        check(parse_config(xml))
    version = served_version(settings) if predict else None
    root = files_root(settings)
    with console.status("looking at the videos"):
        sources = [check_video(path, settings) for path in videos]
    if create is not None and config is None:
        xml = shipped_config(prompt_labels(prompts), kind=windowing.config_kind(sources))
    # People who read the task need no list of one.
    prompt = prompts[0] if len(prompts) == 1 else list(prompts) or None
    database = Database(settings.data_dir)
    client = LabelStudioClient.from_settings(settings)
    try:
        with console.status("asking Label Studio"):
            if create is not None:
                target = project_of_title(client, root, create, xml, check, xml_is_default=config is None)
            else:
                target = existing_project(client, root, project or 0, check)
        prelabeller = Prelabeller(settings, client, database, target, version) if version else None
        Importer(settings, client, target, lambda _: prompt, root, windowing, prelabeller).run(sources)
    finally:
        client.close()
        database.close()


def check_target(project: int | None, create: str | None, config: Path | None) -> None:
    """Check where things shall go: one project, an existing or a new one.

    Raises:
        SvacError: none or both are named, the title is none that Label Studio takes, or a project that exists would
            get a config.
    """
    if (project is None) == (create is None):
        raise SvacError(
            "Videos go either into an existing project or into a new one.",
            'Give --project ID or --create "TITLE", one of the two.',
        )
    if create is not None and not SHORTEST_TITLE <= len(create.strip()) <= LONGEST_TITLE:
        raise SvacError(
            f"A project's title has {SHORTEST_TITLE} to {LONGEST_TITLE} characters, "
            f"that of --create has {len(create.strip())}.",
            'Give another one, for example --create "Dogs".',
        )
    if config is not None and create is None:
        raise SvacError(
            "--config belongs to --create: a project that exists has its labelling config.",
            "Leave --config out, or change the config in the project's settings.",
        )


# Of a data set that does not say.
DEFAULT_FPS = 24.0


def import_masks(
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
        project, create, config: as for videos, see `import_videos`.
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
                check_masks(video, known, settings)

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
        source = check_video(path, settings)
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
        source = replace(check_video(path, settings), pictures=pictures)
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
    """Import videos (`import_videos`), or masks (`import_masks`).

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
        import_videos(
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
    import_masks(
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
