"""What people annotated, or the model predicted, in the tasks of a project: one set of tracks for each video.

A `Choice` decides which of a task's annotations, drafts and predictions counts. Tasks wait on disk until their video's
turn comes, so that memory does not grow with their number.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from svac_backend.datasets.video_tracks import VideoTracks, rate
from svac_backend.datasets.windows import Part, join, link, numbered
from svac_backend.errors import SvacError, split_address
from svac_backend.labelstudio.api.access import moment
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.corrections import known_objects
from svac_backend.labelstudio.regions.merge import corrected_hints
from svac_backend.labelstudio.regions.read import is_drawn_on, results_to_tracks
from svac_backend.labelstudio.regions.region import Canvas, frame_size, regions_of
from svac_backend.labelstudio.tasks import PROMPT_KEY, Window, local_files_path, window_of
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.store.predictions import video_identity

Task = Mapping[str, Any]
Result = Mapping[str, Any]


@dataclass(frozen=True)
class ProjectVideo:
    """A video of a project.

    Attributes:
        video: its tracks.
        url: its address in the tasks.
        task: one of its tasks, through which Label Studio resolves the address.
    """

    video: VideoTracks
    url: str
    task: int | None


@dataclass
class ProjectVideos:
    """The content of a project.

    Attributes:
        videos: in the order of their first tasks; each is read on demand. The other attributes are complete only after
            the last video.
        notes: what was left out, and why, in sentences.
        drafts: number of tasks whose annotation was saved but not submitted.
        refused: one error for each video whose annotations cannot be read.
    """

    videos: Iterator[ProjectVideo] = field(default_factory=lambda: iter(()))
    notes: list[str] = field(default_factory=list)
    drafts: int = 0
    refused: list[SvacError] = field(default_factory=list)


@dataclass(frozen=True)
class _Shown:
    """A task, and the part of its video that it shows."""

    task: Task
    window: Window


def read_tasks(
    tasks: Iterable[Task],
    load: Callable[[Task], Task],
    config: LabelConfig,
    choice: Choice,
    *,
    hostname: str = "",
    known: Callable[[str], Sequence[ObjectPrompt]] = lambda _: (),
    measure: Callable[[str, Any], tuple[tuple[int, int] | None, str]] = lambda *_: (None, ""),
    progress: Callable[[float], None] | None = None,
) -> ProjectVideos:
    """Read the tasks of a project; tasks of one video and one prompt are joined (see `join`).

    Args:
        tasks: tasks with `id` and `data`.
        load: returns a task's `annotations`, `drafts` and `predictions`, as Label Studio exports them. It is called for
            one video after the other, so that few results are in memory.
        config: the project's labelling config.
        choice: which of the annotations, drafts and predictions count.
        hostname: the Label Studio that the tasks' addresses belong to.
        known: a video's address -> objects that have been asked for in the editor, with their sentences.
        measure: a video's address and task -> (width, height) of the video if no region says it, or None and why.
        progress: called with 0..1.

    A video with a region that cannot be read is left out, and a note names its task. The iterator of the videos raises
    `SvacError` if a task is malformed, or the disk of temporary files is full.
    """
    found = ProjectVideos()
    found.videos = _read(tasks, load, config, choice, found, hostname, known, measure, progress)
    return found


def _read(
    tasks: Iterable[Task],
    load: Callable[[Task], Task],
    config: LabelConfig,
    choice: Choice,
    found: ProjectVideos,
    hostname: str,
    known: Callable[[str], Sequence[ObjectPrompt]],
    measure: Callable[[str, Any], tuple[tuple[int, int] | None, str]],
    progress: Callable[[float], None] | None,
) -> Iterator[ProjectVideo]:
    taken: set[str] = set()
    done = 0
    with closing(_Waiting()) as waiting:
        groups = _by_video(tasks, config, hostname, found, waiting)
        total = max(sum(len(group) for group in groups), 1)
        for group in groups:
            shown = [_Shown(waiting.get(place), window) for place, window in group]
            url, task = _address(shown[0].task, config), shown[0].task.get("id")
            chosen = [(one, choice.of(load(one.task))) for one in shown]
            there = [(one, results) for one, results in chosen if results is not None]
            name = free_name(url, taken)
            if len(there) < len(shown):
                missing = [one for one, results in chosen if results is None]
                found.notes.append(_missing(name, missing, len(shown), choice))
            video = _one_video(name, url, there, config, found, known, measure)
            done += len(shown)
            if progress:
                progress(done / total)
            if video is not None:
                found.drafts += sum(results.is_draft for _, results in there)
                taken.add(name)
                yield ProjectVideo(video, url, task if isinstance(task, int) else None)


def _one_video(
    name: str,
    url: str,
    there: Sequence[tuple[_Shown, Chosen]],
    config: LabelConfig,
    found: ProjectVideos,
    known: Callable[[str], Sequence[ObjectPrompt]],
    measure: Callable[[str, Any], tuple[tuple[int, int] | None, str]],
) -> VideoTracks | None:
    """Return a video's tracks; None, and add a note, if nothing is drawn on it or a region cannot be read."""
    try:
        on = config.frames.name if config.frames else None
        size = frame_size(*(regions for _, one in there for regions in (one.results, one.sent)), on=on)
        if size is None and there:
            drawn = any(is_drawn_on(one.results, config) for _, one in there)
            size, why = measure(url, there[0][0].task.get("id"))
            if size is None and drawn:
                raise SvacError(
                    f"Its regions do not say how large it is (original_width). {why}".strip(),
                    "Export it with its frames, or send the regions as Label Studio's editor does.",
                )
            if size is None:
                found.notes.append(f"{name}: nothing is drawn on it, so it is left out. {why}".strip())
        return None if size is None else _read_video(name, there, config, size, known(url))
    except SvacError as error:
        # Other videos are exported; this one is not, since a part of it would look like the whole.
        found.refused.append(error)
        found.notes.append(f"{name} is left out. {error.message} {error.hint}")
        return None


class _Waiting:
    """Tasks on disk, in a file private to this process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)

    def add(self, task: Task) -> int:
        """Store a task; return its place."""
        try:
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(task, default=str).encode() + b"\n")
        except OSError as error:
            raise SvacError(
                f"The tasks cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}.",
                "Make room there, or name another folder with TMPDIR.",
            ) from error
        return place

    def get(self, place: int) -> Task:
        """Return the task at a place."""
        self._file.seek(place)
        task: Task = json.loads(self._file.readline())
        return task

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


def _by_video(
    tasks: Iterable[Task], config: LabelConfig, hostname: str, found: ProjectVideos, waiting: _Waiting
) -> list[list[tuple[int, Window]]]:
    """Return for each video the places of its tasks, and what they show."""
    groups: dict[bytes, list[tuple[int, Window]]] = {}
    frames_key = config.frames.key if config.frames else "frames"
    for task in tasks:
        data = task.get("data")
        if not isinstance(data, Mapping):
            raise SvacError(
                "A task has no data.", "Give a project's tasks as Label Studio exports them (JSON)."
            )
        frames = data.get(frames_key)
        window = window_of(data)
        if window is None and isinstance(frames, list) and frames:
            window = Window(0, len(frames))
        if window is None:
            found.notes.append(f"Task {task.get('id')} has no frames, so nothing can be drawn in it.")
            continue
        # Another prompt means other objects, whatever their ids.
        key = [video_identity(hostname, _address(task, config)), data.get(PROMPT_KEY)]
        digest = blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=16).digest()
        groups.setdefault(digest, []).append((waiting.add(task), window))
    return list(groups.values())


def _address(task: Task, config: LabelConfig) -> str:
    url = task["data"].get(config.video.key if config.video else "video")
    if isinstance(url, str) and url:
        return url
    frames = task["data"].get(config.frames.key if config.frames else "frames")
    first = frames[0] if isinstance(frames, list) and frames else None
    # A task without a video is identified by its first frame, and named after the frame's folder.
    return first if isinstance(first, str) else f"task-{task.get('id')}"


def _read_video(
    name: str,
    there: Sequence[tuple[_Shown, Chosen]],
    config: LabelConfig,
    size: tuple[int, int],
    asked: Sequence[ObjectPrompt],
) -> VideoTracks:
    width, height = size
    data = there[0][0].task["data"]
    known = [Track(**vars(one)) for one in known_objects(data, config, asked) if one.each is None]
    shown = Counter(frame for one, _ in there for frame in one.window.frames)
    shared = max(shown.values()) > 1
    parts = []
    for one, chosen in there:
        canvas = Canvas(width, height, one.window)
        changed: dict[str, frozenset[int]] = {}
        try:
            tracks = results_to_tracks(chosen.results, config, canvas, tracks=known)
            if shared:
                corrected = corrected_hints(chosen.sent, chosen.results, config, canvas, tracks=known)
                changed = {object_id: frozenset(frames) for object_id, frames in corrected.items()}
        except SvacError as error:
            raise SvacError(f"Task {one.task.get('id')}: {error.message}", error.hint) from error
        parts.append(Part(one.window, tracks, changed, chosen.saved))
    tracks = join(link(parts, {track.object_id for track in known}))
    for track in tracks:
        track.label = config.category(track.label)
    if data.get(PROMPT_KEY) is None:
        # Nobody asked for these objects: they only stand for the config's labels.
        tracks = [track for track in tracks if track.masks]
    fps = rate({"fps": data.get((config.video.fps_key if config.video else None) or "fps")})
    return VideoTracks(name, width, height, tuple(sorted(shown)), tuple(tracks), fps=fps)


def _missing(name: str, missing: Sequence[_Shown], of: int, choice: Choice) -> str:
    tasks = ", ".join(str(one.task.get("id")) for one in missing[:10]) + (
        ", ..." if len(missing) > 10 else ""
    )
    what = "prediction" if choice.source == "predictions" else "annotation"
    if len(missing) == of:
        return f"{name}: no {what} (task {tasks}), so it is left out."
    return (
        f"{name}: {len(missing)} of its {of} tasks have no {what} (task {tasks}); their frames are left out."
    )


def video_stem(url: str) -> str:
    """Return the name of a video's file, without its suffix, in a form that is safe in paths."""
    parts = split_address(url)
    if parts is None:
        return "video"
    path = local_files_path(url) or PurePosixPath(unquote(parts.path))
    return re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:80] or "video"


def free_name(url: str, taken: Collection[str]) -> str:
    """Return a name for a video in a data set: its file's, with a number if another video has that name."""
    stem = video_stem(url)
    return numbered(stem, taken) if stem in taken else stem


@dataclass(frozen=True)
class Choice:
    """Which annotation, draft or prediction of a task counts.

    Attributes:
        source: `annotations` or `predictions`.
        only_submitted: take no drafts.
        model_version: take the prediction of this version, the one that the project shows; if it has none, the newest.
    """

    source: str = "annotations"
    only_submitted: bool = False
    model_version: str = ""

    def __post_init__(self) -> None:
        if self.source not in ("annotations", "predictions"):
            raise SvacError(
                f"There is no source '{self.source}'.", "Give --source annotations or --source predictions."
            )

    def of(self, task: Mapping[str, Any]) -> Chosen | None:
        """Return what counts of a task; None if there is nothing.

        Of several annotations, the one marked as ground truth counts, else the one saved last; skipped ones never do. A
        draft counts if nothing was submitted.

        Args:
            task: a task with `annotations`, `drafts` and `predictions`, as Label Studio exports them.

        Raises:
            SvacError: they are malformed.
        """
        predictions = _listed(task, "predictions")
        shown = [one for one in predictions if self.model_version == one.get("model_version")] or predictions
        newest = max(shown, key=_saved, default=None)
        if self.source == "predictions":
            return None if newest is None else Chosen(_results(newest), (), _saved(newest))
        submitted = [one for one in _listed(task, "annotations") if not one.get("was_cancelled")]
        if submitted:
            best = max(submitted, key=lambda one: (bool(one.get("ground_truth")), _saved(one)))
            parent = next((p for p in predictions if p.get("id") == best.get("parent_prediction")), None)
            return Chosen(_results(best), _results(parent), _saved(best))
        drafts = [] if self.only_submitted else _listed(task, "drafts")
        if drafts:
            draft = max(drafts, key=_saved)
            return Chosen(_results(draft), _results(newest), _saved(draft), is_draft=True)
        return None


@dataclass(frozen=True)
class Chosen:
    """What counts of a task.

    Attributes:
        results: the regions.
        sent: the regions of the prediction that a person started from; empty if there was none.
        saved: when it was saved, in seconds since 1970.
        is_draft: whether it was saved but not submitted.
    """

    results: Sequence[Result]
    sent: Sequence[Result] = ()
    saved: float = 0.0
    is_draft: bool = False


def _listed(task: Mapping[str, Any], name: str) -> list[Result]:
    """Return the entries that have results; an export may hold only ids."""
    entries = task.get(name) or []
    if not isinstance(entries, list):
        raise SvacError(
            f"The {name} of task {task.get('id')} are malformed.",
            "Export the project from Label Studio as JSON (not JSON-MIN).",
        )
    return [
        entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("result"), list)
    ]


def _results(entry: Result | None) -> Sequence[Result]:
    return () if entry is None else regions_of(entry["result"])


def _saved(entry: Result) -> float:
    return moment(entry.get("updated_at") or entry.get("created_at"))
