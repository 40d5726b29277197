"""`svac-backend corrections list | show | export | collect`: the corrections that the model can learn from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from svac_backend.cli.inputs import open_video
from svac_backend.cli.prelabel import spread, write_contact_sheet
from svac_backend.cli.terminal import answer, bar, console, counted, rows_of
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import free_name, video_stem
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import NotEnoughData, SvacError
from svac_backend.learning.collect import Collector
from svac_backend.learning.freeze import Videos
from svac_backend.settings import Settings
from svac_backend.store.corrections import Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.video.reader import VideoReader


def run_list(settings: Settings, project: int | None = None, *, as_json: bool = False) -> None:
    """Print the corrections, the oldest first, and what could not be collected."""
    with closing(Database.from_settings(settings)) as database:
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
        if found or as_json:
            answer(rows_of(table), table, as_json=as_json)
        videos = len({one.annotation.video for one in found})
        console.print(
            f"{counted(len(found), 'correction')} on {counted(videos, 'video')}; "
            f"a fine-tuning needs {settings.finetune_min_videos} videos."
        )
        left = sum((one.project_id, one.annotation_id) not in used for one in found if one.expression.strip())
        if left:
            console.print(
                f"{left} are not used for learning: their task has a later annotation, or one marked as ground truth."
            )
        if nameless := sum(not one.expression.strip() for one in found):
            console.print(
                f"{nameless} are not used for learning: nobody said in words what the object is. Name it in the task's "
                "prompt, or give its label a `prompt` in the labelling config."
            )
        collector = Collector(settings, database)
        for waiting in collector.inbox.uncollected():
            when = "given up" if waiting.due is None else "to be tried again"
            console.print(f"[yellow]Webhook {waiting.event} ({when}): {escape(waiting.error)}[/]")
        if collector.pending():
            console.print(
                "There are new webhooks: the worker collects them, or run `svac-backend corrections collect`."
            )


def run_collect(settings: Settings) -> None:
    """Collect corrections from the new webhooks, and from all that failed before, without a worker.

    Raises:
        SvacError: a worker has been collecting for minutes, or the data folder cannot be used.
    """
    with closing(Database.from_settings(settings)) as database, bar("collecting") as progress:
        collector = Collector(settings, database)
        collector.inbox.hurry()
        done = collector.collect(lambda fraction, _: progress(fraction))
    console.print(f"{done}.")


def run_show(settings: Settings, annotation: str, out: Path, *, pictures: int = 12) -> None:
    """Write a PNG of an annotation's frames with its masks, drawn ones first.

    Raises:
        SvacError: there is no such annotation, its video cannot be read, or the picture cannot be written.
    """
    project, _, number = annotation.rpartition("/")
    with closing(Database.from_settings(settings)) as database:
        found = [
            one for one in CorrectionStore(database).all(project_id=project) if one.annotation_id == number
        ]
        if not found:
            raise SvacError(
                f"There is no correction in an annotation {annotation[:60]!r}.",
                "See `svac-backend corrections list`.",
            )
        if len({one.project_id for one in found}) > 1:
            raise SvacError(
                f"Several projects have an annotation {number}.",
                f"Name the project: {found[0].project_id}/{number}.",
            )
        path = Videos(settings, database).find(found[0])
    drawn = sorted({frame for one in found for frame in one.drawn})
    accepted = sorted({frame for one in found for frame in one.accepted} - set(drawn))
    titles = {i: f"frame {i}, drawn" for i in spread(drawn, pictures)}
    titles |= {i: f"frame {i}, accepted" for i in spread(accepted, max(0, pictures - len(drawn)))}
    with open_video(path, settings) as video:
        write_contact_sheet(video, [one.track for one in found], dict(sorted(titles.items())), out)
    console.print(f"{counted(len(found), 'object')} of annotation {number} in {escape(str(out))}")


def run_export(
    settings: Settings, target: DataSet, *, project: int | None = None, frames: bool = True
) -> None:
    """Write the corrections that the model learns from as a data set: the known frames of each video.

    Raises:
        SvacError: there are none, a video cannot be read, or the folder can't be written.
    """
    target.check_new()
    with closing(Database.from_settings(settings)) as database:
        found = [
            one
            for one in CorrectionStore(database).for_training()
            if project is None or one.project_id == str(project)
        ]
        if not found:
            raise NotEnoughData(
                "There are no corrections to export.",
                "Submit a corrected task and let the worker collect it.",
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
    """Return one video for each annotation: its objects, on all frames known for any of them."""
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
