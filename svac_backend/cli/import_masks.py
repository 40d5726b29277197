"""`svac-backend import --masks`: a data set's masks into a Label Studio project, as predictions or as annotations.

The videos are those that the data set was made from, or are encoded from its pictures: Label Studio's player and the
model need a video. Memory holds the masks of one video at a time, however many the data set has.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream

from svac_backend.cli.filling import Filler
from svac_backend.cli.import_videos import Importer, config_kind
from svac_backend.cli.imported import Imported
from svac_backend.cli.inputs import SourceVideo, check_video
from svac_backend.cli.projects import Destination, Project, files_root
from svac_backend.cli.terminal import Progress, bar, console
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.region import Region
from svac_backend.labelstudio.regions.written import to_prediction
from svac_backend.labelstudio.tasks import Window, task_prompts
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.predictions import Prediction
from svac_backend.video.images import ImageFolderVideo
from svac_backend.video.source import VideoSource, playable_rate

# Frames per second of a data set that does not say its own.
DEFAULT_FPS = 24.0


def import_masks(
    settings: Settings,
    data_set: DataSet,
    videos: Sequence[Path],
    destination: Destination,
    windowing: Windowing,
    *,
    become: str = "predictions",
) -> Imported:
    """Import a data set; print what was done and the project's address.

    Args:
        settings: Label Studio and its files root.
        data_set: a data set with masks.
        videos: the videos that the data set was made from, named as in the data set; the numbers that name the data
            set's pictures are their frames. Without any, videos are encoded from the data set's pictures.
        destination: the project. A shipped config gets the data set's labels.
        windowing: how a long video is split.
        become: what masks become: `predictions`, or `annotations` as if a person had submitted them.

    Raises:
        SvacError: something cannot be imported. Either nothing was changed in Label Studio, or the message and the
            output say which videos were imported.
    """
    if become not in ("predictions", "annotations"):
        raise SvacError(f"Masks do not become '{become}'.", "Give --as predictions or --as annotations.")
    windowing.check()
    root = files_root(settings)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="svac-import-"))
        kept = KeptMasks(Path(folder))
        if videos:
            with console.status("reading the masks"):
                found = _matched(data_set.read(), videos, settings, kept)
        else:
            found = _made(data_set.read(), Path(folder), settings, kept)

        def check(known: LabelConfig) -> None:
            for video in found.values():
                check_masks(video, known, settings)

        labels = [track.label for video in found.values() for track in video.tracks if track.label]
        objects = max((len(video.tracks) for video in found.values()), default=0)
        windowing = windowing.for_objects(objects)
        xml = destination.new_config(labels, check, kind=config_kind(list(found), windowing, objects))
        client = stack.enter_context(closing(LabelStudioClient.from_settings(settings)))
        with console.status("asking Label Studio"):
            project = destination.open(settings, client, root, xml, check)

        version, drawn = f"masks-{data_set.layout}", become == "annotations"
        filler = MaskFiller(settings, client, project, kept, version, annotations=drawn)
        importer = Importer(settings, client, project, root, windowing, filler)
        return importer.run(
            [(source, prompt_lines(video, project.config) or None) for source, video in found.items()]
        )


class KeptMasks:
    """The masks of the imported videos, kept in files.

    Args:
        folder: folder of the files; the caller deletes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[Path, tuple[Path, VideoTracks]] = {}

    def put(self, source: SourceVideo, video: VideoTracks) -> VideoTracks:
        """Keep a source's masks; return the video with its objects but without masks."""
        file = self._folder / f"masks-{len(self._kept)}.json"
        try:
            file.write_text(json.dumps([track.to_json() for track in video.tracks]))
        except OSError as error:
            raise SvacError(
                f"The masks of {video.name} cannot be kept in {self._folder}: {error.strerror}.",
                "Make room on the disk for temporary files (TMPDIR).",
            ) from error
        bare = replace(video, tracks=tuple(replace(track, masks={}, scores={}) for track in video.tracks))
        self._kept[source.path] = file, bare
        return bare

    def get(self, path: Path) -> VideoTracks:
        """Return the video with masks of a source's path."""
        file, bare = self._kept[path]
        return replace(bare, tracks=tuple(Track.from_json(one) for one in json.loads(file.read_text())))


def _matched(
    data_set: Iterable[VideoTracks], videos: Sequence[Path], settings: Settings, kept: KeptMasks
) -> dict[SourceVideo, VideoTracks]:
    """Return the videos that a user named, each with the objects of the data set's namesake; keep the masks."""
    sources = [check_video(path, settings) for path in videos]
    found: dict[SourceVideo, VideoTracks] = {}
    names: list[str] = []
    for video in data_set:
        names.append(video.name)
        for source in sources:
            # A file's own name goes before its form that is safe in addresses.
            if video.name == source.path.stem or (video.name == source.stem and source not in found):
                _check(source, video)
                found[source] = kept.put(source, video)
    for source in sources:
        if source not in found:
            known = ", ".join(sorted(names)[:10])
            raise SvacError(
                f"The data set has no masks for {source.path.name}.",
                f"Name the file as the data set names the video: one of {known}.",
            )
    return {source: found[source] for source in sources}


def _made(
    data_set: Iterable[VideoTracks], folder: Path, settings: Settings, kept: KeptMasks
) -> dict[SourceVideo, VideoTracks]:
    """Return videos encoded from a data set's pictures; keep the masks, on frames numbered by the pictures' places."""
    found = {}
    for video in data_set:
        if video.pictures is None or not video.pictures.is_dir():
            raise SvacError(
                f"The data set has no pictures of {video.name} (there is no {video.pictures}).",
                "Name the videos that it was made from: svac-backend import --masks DIR VIDEO...",
            )
        pictures = ImageFolderVideo(
            video.pictures,
            video.picture_names,
            fps=playable_rate(video.fps) or DEFAULT_FPS,
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
        found[source] = kept.put(source, placed)
    return found


def _check(source: SourceVideo, video: VideoTracks) -> None:
    info = source.info
    if (info.width, info.height) != (video.width, video.height):
        raise SvacError(
            f"{source.path.name} has {info.width}x{info.height} pixels, but its masks {video.width}x{video.height}.",
            "Give the video that the masks were made on.",
        )
    if video.frames and video.frames[-1] >= info.frame_count:
        raise SvacError(
            f"{source.path.name} has {info.frame_count} frames, but its masks go up to frame {video.frames[-1]}.",
            "Give the video that the masks were made on.",
        )


class MaskFiller(Filler):
    """Draws a data set's masks in tasks: as predictions, or as annotations.

    Args:
        videos: the masks of each source, by the source's frames.
        settings, client, project, version: see `Filler`.
    """

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        project: Project,
        videos: KeptMasks,
        version: str,
        *,
        annotations: bool,
    ) -> None:
        # What people drew is kept, however small, and on every frame.
        drawn = settings.model_copy(update={"min_area_px": 1, "send_every": 1, "send_below_score": None})
        super().__init__(drawn, client, project, version)
        self.videos = videos
        self.annotations = annotations

    def has_filled(self, task: int) -> bool:
        """Return whether a task already has masks of this data set, as an annotation or a prediction."""
        return bool(self.client.list_annotations(task)) if self.annotations else super().has_filled(task)

    def predict(
        self, source: SourceVideo, video: VideoSource, data: dict[str, Any], progress: Progress
    ) -> Prediction:
        """Return a video's masks in the form of a prediction; see `Filler.predict`."""
        info = video.info
        return Prediction(
            key="",
            model_version=self.version,
            project_id=str(self.project.id),
            task_id="",
            tracks=numbered(self.videos.get(source.path), self.project.config),
            width=info.width,
            height=info.height,
            fps=info.fps,
            frame_count=info.frame_count,
            score=1.0,
        )

    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Put the regions into a task."""
        if self.annotations:
            self.client.create_annotation(task, [drawn(region) for region in results])
            return
        self.client.create_prediction(task, to_prediction(results, self.version))
        # In a new project, people want to see these, not what a connected model would predict.
        self._show(others=not self.project.is_new)

    def shown_instead(self) -> str | None:
        """See `Filler.shown_instead`; annotations are always shown."""
        return None if self.annotations else super().shown_instead()


def drawn(region: Region) -> Region:
    """Return a region as the editor makes it for a person's drawing, without a score."""
    return {key: value for key, value in region.items() if key != "score"} | {"origin": "manual"}


def numbered(video: VideoTracks, config: LabelConfig) -> list[Track]:
    """Return a video's tracks with the ids that the backend gives to what `prompt_lines` asks for.

    Objects with the same label and sentence cannot be told apart that way: all but the first get the next free ids.

    Raises:
        SvacError: a label is not in the config.
    """
    wishes = [_wish(track, config) for track in video.tracks]
    ids = {wish: f"obj{number}" for number, wish in enumerate(dict.fromkeys(wishes), start=1)}
    found, further = [], len(ids)
    for track, wish in zip(video.tracks, wishes, strict=True):
        object_id = ids.pop(wish, None)
        if object_id is None:
            further += 1
            object_id = f"obj{further}"
        found.append(replace(track, object_id=object_id, label=wish[0], expression=wish[1]))
    return found


def prompt_lines(video: VideoTracks, config: LabelConfig) -> list[str]:
    """Return the prompt of a video's tasks: `label: sentence` for each object, without duplicates.

    Raises:
        SvacError: a label is not in the config.
    """
    wishes = dict.fromkeys(_wish(track, config) for track in video.tracks)
    return [f"{label}: {expression}" for label, expression in wishes]


def check_masks(video: VideoTracks, config: LabelConfig, settings: Settings) -> None:
    """Check that a project can show a video's objects.

    Raises:
        SvacError: it has no mask control, a label is missing, a sentence is too long, or there are too many.
    """
    lines = prompt_lines(video, config)
    if lines:
        task_prompts({"prompt": lines}, config, max_chars=settings.max_prompt_chars)


def _wish(track: Track, config: LabelConfig) -> tuple[str, str]:
    """Return an object's label in the config and its sentence; the first label if the data set has none."""
    control = config.mask_control()
    label = control.find_label(track.label) if track.label else next(iter(control.labels))
    if label is None:
        raise SvacError(
            f"The labelling config has no label '{track.label}', but the data set has.",
            f"Add it to '{control.name}' in the project's settings, or import with --create.",
        )
    return label, " ".join(track.expression.split()) or label


def encode_pictures(
    pictures: VideoSource, folder: Path, name: str, progress: Progress = lambda _: None
) -> Path:
    """Write `<name>.mp4` (H.264), or `<name>.webm` (VP9) if a side has an odd length, which H.264 does not allow.

    The same pictures always make the same file.

    Args:
        pictures: the frames.
        folder: where to write the file.
        name: name of the file, without suffix.
        progress: called with 0..1.

    Returns:
        The file.

    Raises:
        SvacError: a picture is damaged, or the disk is full.
    """
    info = pictures.info
    odd = info.width % 2 or info.height % 2
    path = folder / f"{name}.{'webm' if odd else 'mp4'}"
    codec = "libvpx-vp9" if odd else "libx264"
    # Quality close to visually lossless; one thread, so that the file does not depend on the machine.
    options = {"crf": "20", "b": "0", "cpu-used": "5", "deadline": "good"} if odd else {"crf": "18"}
    rate = Fraction(info.fps).limit_denominator(1001)
    try:
        with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as container:
            stream = cast(
                VideoStream, container.add_stream(codec, rate=rate, options={**options, "threads": "1"})
            )
            stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
            for i, picture in pictures.frames(range(len(pictures))):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = i, 1 / rate
                container.mux(stream.encode(frame))
                progress((i + 1) / len(pictures))
            container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise SvacError(
            f"No video can be made of the pictures of {name}: {error}.",
            "Make room on the disk for temporary files (TMPDIR).",
        ) from error
    return path
