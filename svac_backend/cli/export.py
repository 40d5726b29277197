"""`svac-backend export`: what was annotated, or predicted, as a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from svac_backend.cli.inputs import open_video, read_config
from svac_backend.cli.terminal import bar, console, counted
from svac_backend.datasets.layouts import DataSet
from svac_backend.datasets.reading import Choice, ProjectVideos, check_entries, infer_config, read_tasks
from svac_backend.datasets.video_tracks import VideoTracks
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.access import label_studio_name
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.api.media import MediaFetcher
from svac_backend.labelstudio.config import parse_config
from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.objects import ObjectStore, video_name
from svac_backend.store.predictions import video_identity
from svac_backend.video.reader import VideoReader


@dataclass(frozen=True)
class ExportSource:
    """What is exported: a project, or a file that Label Studio exported.

    Attributes:
        choice: which of a task's annotations, drafts and predictions.
        project: id of a project.
        file: or its export from Label Studio, as JSON.
        config: with `file`: the project's labelling config; inferred from the regions if None.

    Raises:
        SvacError: none or both are named, or a project would get a config.
    """

    choice: Choice
    project: int | None = None
    file: Path | None = None
    config: Path | None = None

    def __post_init__(self) -> None:
        if (self.project is None) == (self.file is None):
            raise SvacError(
                "Either a project is exported, or a file that Label Studio exported.",
                "Give --project ID or --from FILE, one of the two.",
            )
        if self.config is not None and self.file is None:
            raise SvacError("--config belongs to --from: a project has its config.", "Leave --config out.")


def run(settings: Settings, source: ExportSource, target: DataSet, *, frames: bool = True) -> None:
    """Export a project, or a file that Label Studio exported; print what is in it and what is not.

    Raises:
        SvacError: something is missing or malformed, nothing is annotated, or the folder can't be written. Nothing is
            left behind then.
    """
    target.check_new()
    what = source.choice.source
    with ExitStack() as stack:
        client = None
        if source.project is not None or settings.label_studio_api_key is not None:
            client = stack.enter_context(closing(LabelStudioClient.from_settings(settings)))
        hosts: Sequence[str] = ()

        def measure(url: str, task: Any) -> tuple[tuple[int, int] | None, str]:
            """The size of a video itself, where its frames are exported: its regions may not say it."""
            if not frames:
                return None, "With its frames (no --no-frames), the video itself would tell its size."
            fetcher = MediaFetcher.from_settings(settings, client, hosts)
            try:
                with _opened(fetcher, url, task if isinstance(task, int) else None, settings) as video:
                    return (video.info.width, video.info.height), ""
            except SvacError as error:
                return None, error.message

        with bar("reading") as progress:
            if source.project is not None and client is not None:
                found, hosts = _from_project(
                    settings, client, source.project, source.choice, measure, progress
                )
            else:
                found = _from_file(settings, source, measure, progress)
        fetcher = MediaFetcher.from_settings(settings, client, hosts)
        sources = {one.video.name: one for one in found.videos}

        def opener(video: VideoTracks) -> AbstractContextManager[VideoReader]:
            one = sources[video.name]
            return _opened(fetcher, one.url, one.task, settings)

        if not found.videos:
            if found.refused:
                raise found.refused[0]
            _tell_notes(found.notes)
            raise SvacError(
                f"There are no {what} to export.",
                "Submit a task first." if what == "annotations" else "Have the model predict first.",
            )
        with bar("writing") as progress:
            notes = target.write(
                [one.video for one in found.videos],
                opener=opener if frames else None,
                quality=settings.frame_quality,
                progress=progress,
            )
    if what == "annotations" and (settings.send_every > 1 or settings.send_below_score is not None):
        notes.append(
            "SVAC_SEND_EVERY or SVAC_SEND_BELOW_SCORE is set: frames of which no mask was sent count as empty."
        )
    _tell_notes([*found.notes, *notes])
    _tell(found, target)


def _from_project(
    settings: Settings, client: LabelStudioClient, project: int, choice: Choice, measure: Any, progress: Any
) -> tuple[ProjectVideos, Sequence[str]]:
    about = client.get_project(project)
    config = parse_config(about.get("label_config") or "")
    with closing(Database(settings.data_dir)) as database:
        connection = ConnectionStore(database).get(str(project))
        hostname = label_studio_name(settings, connection)
        objects = ObjectStore(database)

        def known(url: str) -> list[ObjectPrompt]:
            return objects.find(str(project), video_name(video_identity(hostname, url)))

        found = read_tasks(
            list(client.list_tasks(project)),
            lambda task: client.read_results(int(task["id"])),
            config,
            Choice(choice.source, choice.only_submitted, about.get("model_version") or ""),
            hostname=hostname,
            known=known,
            measure=measure,
            progress=progress,
        )
    return found, (connection.hostname,) if connection is not None and connection.hostname else ()


def _from_file(settings: Settings, source: ExportSource, measure: Any, progress: Any) -> ProjectVideos:
    file = source.file or Path()
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise SvacError(f"{file} cannot be read: {error.strerror}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise SvacError(
            f"{file} is not JSON: {error}.", "Export the project from Label Studio as JSON."
        ) from error
    if not isinstance(content, list) or not all(
        isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in content
    ):
        raise SvacError(
            f"{file} is not a list of tasks with data.",
            "Export the project from Label Studio as JSON, not JSON-MIN.",
        )
    check_entries(content, source.choice.source)
    known = parse_config(read_config(source.config)) if source.config else infer_config(content)
    return read_tasks(
        content,
        lambda task: task,
        known,
        source.choice,
        hostname=settings.label_studio_url,
        measure=measure,
        progress=progress,
    )


@contextmanager
def _opened(fetcher: MediaFetcher, url: str, task: int | None, settings: Settings) -> Iterator[VideoReader]:
    try:
        path = fetcher.fetch(url, task=task)
    except SvacError as error:
        raise SvacError(error.message, f"{error.hint} --no-frames exports the masks alone.") from error
    with open_video(path, settings) as video:
        yield video


def _tell_notes(notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]")


def _tell(found: ProjectVideos, target: DataSet) -> None:
    videos = [one.video for one in found.videos]
    counts = (
        (len(videos), "video"),
        (sum(len(video.frames) for video in videos), "frame"),
        (sum(len(video.tracks) for video in videos), "object"),
        (sum(len(track.masks) for video in videos for track in video.tracks), "mask"),
    )
    words = ", ".join(counted(number, what) for number, what in counts)
    drafts = f" ({found.drafts} of the tasks saved, not submitted)" if found.drafts else ""
    console.print(f"{words}{drafts} as {target.layout} in {escape(str(target.folder))}")
