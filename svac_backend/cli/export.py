"""`svac-backend export`: annotations or predictions as a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from svac_backend.cli.inputs import open_video, read_config
from svac_backend.cli.terminal import bar, console, counted
from svac_backend.datasets.export_file import ExportFile, checked, infer_config
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import Choice, ProjectVideo, ProjectVideos, read_tasks
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import NotEnoughData, SvacError
from svac_backend.labelstudio.api.access import label_studio_name
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.objects import ObjectStore, video_name
from svac_backend.store.predictions import video_identity
from svac_backend.video.reader import VideoReader


@dataclass(frozen=True)
class ExportSource:
    """What to export: a project, or a file that Label Studio exported.

    Attributes:
        choice: which of a task's annotations, drafts and predictions count.
        project: id of a project.
        file: instead, its export from Label Studio as JSON.
        config: with `file`, the project's labelling config; None: inferred from the regions.

    Raises:
        SvacError: none or both are given, or a config is given for a project.
    """

    choice: Choice
    project: int | None = None
    file: Path | None = None
    config: Path | None = None

    def __post_init__(self) -> None:
        if (self.project is None) == (self.file is None):
            raise SvacError(
                "An export takes either a project or a file that Label Studio exported.",
                "Give --project ID or --from FILE, one of the two.",
            )
        if self.config is not None and self.file is None:
            raise SvacError("--config goes with --from: a project has its own config.", "Leave --config out.")


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        folder: folder of the data set.
        layout: its format.
        videos, frames, objects, masks: how many.
        drafts: number of tasks whose annotation was saved but not submitted.
        notes: what was left out, and why, in sentences.
    """

    folder: Path
    layout: str
    videos: int = 0
    frames: int = 0
    objects: int = 0
    masks: int = 0
    drafts: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, video: VideoTracks) -> None:
        """Count a video."""
        self.videos += 1
        self.frames += len(video.frames)
        self.objects += len(video.tracks)
        self.masks += sum(len(track.masks) for track in video.tracks)

    def tell(self) -> None:
        """Print it for people."""
        tell_notes(self.notes)
        counts = (
            (self.videos, "video"),
            (self.frames, "frame"),
            (self.objects, "object"),
            (self.masks, "mask"),
        )
        words = ", ".join(counted(number, what) for number, what in counts)
        drafts = f" ({self.drafts} of the tasks saved but not submitted)" if self.drafts else ""
        console.print(f"{words}{drafts} as {self.layout} in {escape(str(self.folder))}")


def run(settings: Settings, source: ExportSource, target: DataSet, *, frames: bool = True) -> Exported:
    """Export a project, or a file that Label Studio exported, video by video; print what was exported and what was not.

    Raises:
        NotEnoughData: nothing is annotated.
        SvacError: something is missing or malformed, or the folder can't be written. Then nothing is left behind.
    """
    target.check_new()
    what = source.choice.source
    with ExitStack() as stack:
        client = None
        if source.project is not None or settings.label_studio_api_key is not None:
            client = stack.enter_context(closing(LabelStudioClient.from_settings(settings)))
        hosts: list[str] = []

        def measure(url: str, task: Any) -> tuple[tuple[int, int] | None, str]:
            """Return the size of a video, if its frames are exported: its regions may not say it."""
            if not frames:
                return None, "Without --no-frames, the video itself would tell its size."
            fetcher = MediaFetcher.from_settings(settings, client, hosts)
            try:
                with _opened(fetcher, url, task if isinstance(task, int) else None, settings) as video:
                    return (video.info.width, video.info.height), ""
            except SvacError as error:
                return None, error.message

        progress = stack.enter_context(bar("exporting"))
        if source.project is not None and client is not None:
            database = stack.enter_context(closing(Database.from_settings(settings)))
            found, labels = _from_project(
                settings, client, database, source.project, source.choice, hosts, measure, progress
            )
        else:
            found, labels = _from_file(settings, source, measure, progress)
        fetcher = MediaFetcher.from_settings(settings, client, hosts)
        current: list[ProjectVideo] = []
        done = Exported(target.folder, str(target.layout))

        def opener(video: VideoTracks) -> AbstractContextManager[VideoReader]:
            (one,) = current
            return _opened(fetcher, one.url, one.task, settings)

        def videos() -> Iterator[VideoTracks]:
            for one in found.videos:
                current[:] = [one]
                done.add(one.video)
                yield one.video
            if not done.videos:
                if found.refused:
                    raise found.refused[0]
                tell_notes(found.notes)
                raise NotEnoughData(
                    f"There are no {what} to export.",
                    "Submit a task first." if what == "annotations" else "Let the model predict first.",
                )

        notes = target.write(
            videos(),
            labels=labels,
            opener=opener if frames else None,
            quality=settings.frame_quality,
        )
    if what == "annotations" and (settings.send_every > 1 or settings.send_below_score is not None):
        notes.append(
            "SVAC_SEND_EVERY or SVAC_SEND_BELOW_SCORE is set: frames of which no mask was sent count as empty."
        )
    done.drafts, done.notes = found.drafts, [*found.notes, *notes]
    done.tell()
    return done


def _from_project(
    settings: Settings,
    client: LabelStudioClient,
    database: Database,
    project: int,
    choice: Choice,
    hosts: list[str],
    measure: Any,
    progress: Any,
) -> tuple[ProjectVideos, list[str]]:
    """Return a project's videos and the labels of its config; add the name of its Label Studio to `hosts`."""
    about = client.get_project(project)
    config = parse_config(about.get("label_config") or "")
    connection = ConnectionStore(database).get(str(project))
    if connection is not None and connection.hostname:
        hosts.append(connection.hostname)
    hostname = label_studio_name(settings, connection)
    objects = ObjectStore(database)

    def known(url: str) -> list[ObjectPrompt]:
        return objects.find(str(project), video_name(video_identity(hostname, url)))

    found = read_tasks(
        ({"id": task["id"], "data": task["data"]} for task in client.list_tasks(project)),
        lambda task: client.read_results(int(task["id"])),
        config,
        Choice(choice.source, choice.only_submitted, about.get("model_version") or ""),
        hostname=hostname,
        known=known,
        measure=measure,
        progress=progress,
    )
    return found, _labels(config)


def _from_file(
    settings: Settings, source: ExportSource, measure: Any, progress: Any
) -> tuple[ProjectVideos, list[str]]:
    tasks = ExportFile(source.file or Path())
    if source.config:
        config = parse_config(read_config(source.config))
    else:
        config = infer_config(checked(tasks, source.choice.source))
    found = read_tasks(
        checked(tasks, source.choice.source),
        lambda task: task,
        config,
        source.choice,
        hostname=settings.label_studio_url,
        measure=measure,
        progress=progress,
    )
    return found, _labels(config)


def _labels(config: LabelConfig) -> list[str]:
    """Return the labels of a config, sorted by name, so that every export of a project numbers them alike."""
    return sorted({label for control in config.drawing_controls() for label in control.labels})


@contextmanager
def _opened(fetcher: MediaFetcher, url: str, task: int | None, settings: Settings) -> Iterator[VideoReader]:
    try:
        path = fetcher.fetch(url, task=task)
    except SvacError as error:
        raise SvacError(error.message, f"{error.hint} --no-frames exports the masks alone.") from error
    with open_video(path, settings) as video:
        yield video


def tell_notes(notes: Sequence[str]) -> None:
    """Print notes on what was left out or changed."""
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]")
