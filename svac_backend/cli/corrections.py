"""`svac-backend corrections list | show | export | collect`: what there is to learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from svac_backend.cli.inputs import open_video
from svac_backend.cli.terminal import bar, counted, show_table
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import free_name, video_stem
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import SvacError
from svac_backend.learning.collect import Collector
from svac_backend.learning.freeze import Videos
from svac_backend.masks.render import Picture, contact_sheet, overlay
from svac_backend.masks.rle import from_coco
from svac_backend.settings import Settings
from svac_backend.store.corrections import Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.video.reader import VideoReader

PICTURE_PX, COLUMNS = 420, 4

console = Console(highlight=False, soft_wrap=True)


def run_list(settings: Settings, project: int | None = None) -> None:
    """Print the corrections, the oldest first, and what could not be collected."""
    with closing(Database(settings.data_dir)) as database:
        found = CorrectionStore(database).all(project_id="" if project is None else str(project))
        used = {(one.project_id, one.annotation_id) for one in CorrectionStore(database).for_training()}
        names = "annotation task video expression drawn accepted who saved model"
        table = Table(*names.split(), box=None)
        for one in found:
            table.add_row(
                one.annotation_id,
                f"{one.project_id}/{one.task_id}",
                escape(video_stem(one.video_url)),
                escape(one.expression),
                str(len(one.drawn)),
                str(len(one.accepted)),
                escape(one.who),
                datetime.fromtimestamp(one.when).astimezone().strftime("%Y-%m-%d %H:%M"),
                escape(one.model_version),
            )
        if found:
            show_table(table)
        videos = len({one.annotation.video for one in found})
        console.print(
            f"{counted(len(found), 'correction')} on {counted(videos, 'video')}; "
            f"a fine-tuning needs {settings.finetune_min_videos} videos."
        )
        left = sum((one.project_id, one.annotation_id) not in used for one in found)
        if left:
            console.print(
                f"{left} are not learned from: their task has a later annotation, or one that is ground truth."
            )
        collector = Collector(settings, database)
        for waiting in collector.inbox.uncollected():
            when = "given up" if waiting.due is None else "it is tried again"
            console.print(f"[yellow]Webhook {waiting.event} ({when}): {escape(waiting.error)}[/]")
        if collector.pending():
            console.print(
                "There are new webhooks: the worker collects them, or `svac-backend corrections collect`."
            )


def run_collect(settings: Settings) -> None:
    """Make corrections of the webhooks that came, and of all that failed before, without a worker.

    Raises:
        SvacError: a worker has been at it for minutes, or the data folder cannot be used.
    """
    with closing(Database(settings.data_dir)) as database, bar("collecting") as progress:
        collector = Collector(settings, database)
        collector.inbox.hurry()
        done = collector.collect(lambda fraction, _: progress(fraction))
    console.print(f"{done}.")


def run_show(settings: Settings, annotation: str, out: Path, *, pictures: int = 12) -> None:
    """Write a PNG of an annotation's frames with its masks, those that a person drew first.

    Args:
        settings: where the video is found.
        annotation: its id, or `project/id` where two projects have one.
        out: the picture.
        pictures: most frames shown.

    Raises:
        SvacError: there is none of that id, its video cannot be read, or the picture cannot be written.
    """
    project, _, number = annotation.rpartition("/")
    with closing(Database(settings.data_dir)) as database:
        found = [
            one for one in CorrectionStore(database).all(project_id=project) if one.annotation_id == number
        ]
        if not found:
            raise SvacError(
                f"There is no correction of annotation {annotation[:60]!r}.",
                "See `svac-backend corrections list`.",
            )
        if len({one.project_id for one in found}) > 1:
            raise SvacError(
                f"Several projects have an annotation {number}.",
                f"Name the project: {found[0].project_id}/{number}.",
            )
        path = Videos(settings, database).find(found[0])
    with open_video(path, settings) as video:
        sheet = _sheet(video, found, pictures)
    if not cv2.imwrite(str(out), sheet[..., ::-1]):
        raise SvacError(f"{out} can't be written.", "Check that the folder exists and has space.")
    console.print(f"{counted(len(found), 'object')} of annotation {number} in {escape(str(out))}")


def run_export(
    settings: Settings, target: DataSet, *, project: int | None = None, frames: bool = True
) -> None:
    """Write the corrections that are learned from as a data set: of each video the frames that are known.

    Args:
        settings: where the videos are found, and the frames' quality.
        target: where to, a folder that is not there, or empty.
        project: of one project only.
        frames: write the frames as JPEG, too.

    Raises:
        SvacError: there are none, a video cannot be read, or the folder can't be written.
    """
    target.check_new()
    with closing(Database(settings.data_dir)) as database:
        found = [
            one
            for one in CorrectionStore(database).for_training()
            if project is None or one.project_id == str(project)
        ]
        if not found:
            raise SvacError(
                "There are no corrections to export.",
                "Submit a corrected task, and let the worker collect it.",
            )
        videos, sources = _videos(found)
        find = Videos(settings, database).find

        def opener(video: VideoTracks) -> AbstractContextManager[VideoReader]:
            return open_video(find(sources[video.name]), settings)

        with bar("writing") as progress:
            notes = target.write(
                videos,
                opener=opener if frames else None,
                quality=settings.frame_quality,
                progress=progress,
            )
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]")
    console.print(
        f"{counted(len(found), 'correction')} of {counted(len(videos), 'annotation')} as {target.layout} in "
        f"{escape(str(target.folder))}"
    )


def _videos(found: Sequence[Correction]) -> tuple[list[VideoTracks], dict[str, Correction]]:
    """One video for each annotation: its objects, on the frames that are known of any of them."""
    groups: dict[tuple[str, str], list[Correction]] = {}
    for one in found:
        groups.setdefault((one.project_id, one.annotation_id), []).append(one)
    videos: list[VideoTracks] = []
    sources: dict[str, Correction] = {}
    for group in groups.values():
        first = group[0]
        name = free_name(first.video_url, sources)
        frames = sorted({frame for one in group for frame in one.drawn | one.accepted})
        about = first.annotation
        tracks = tuple(one.track for one in group)
        videos.append(VideoTracks(name, about.width, about.height, tuple(frames), tracks))
        sources[name] = first
    return videos, sources


def _sheet(video: VideoReader, found: Sequence[Correction], pictures: int) -> Picture:
    drawn = sorted({frame for one in found for frame in one.drawn})
    accepted = sorted({frame for one in found for frame in one.accepted} - set(drawn))
    frames = sorted([*_spread(drawn, pictures), *_spread(accepted, max(0, pictures - len(drawn)))])
    labels = [one.expression for one in found]
    images, titles = [], []
    for i, frame in video.frames(frames):
        height, width = frame.shape[:2]
        masks = np.stack([_mask(one, i, height, width) for one in found])
        picture = overlay(frame, masks, labels=labels)
        scale = min(1.0, PICTURE_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        images.append(np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8))
        titles.append(f"frame {i}, {'drawn' if i in drawn else 'accepted'}")
    return contact_sheet(images, columns=min(COLUMNS, len(images)), titles=titles)


def _mask(one: Correction, frame: int, height: int, width: int) -> NDArray[np.bool_]:
    rle = one.track.masks.get(frame)
    return np.zeros((height, width), np.bool_) if rle is None else from_coco(rle)


def _spread(frames: Sequence[int], count: int) -> Iterator[int]:
    """At most `count` frames, spread evenly."""
    places = {round(k) for k in np.linspace(0, len(frames) - 1, min(count, len(frames)))} if frames else set()
    return (frames[place] for place in sorted(places))
