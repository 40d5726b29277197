"""What people annotated, or the model predicted, in the tasks of a project: one set of tracks for each video."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from svac_backend.errors import SvacError
from svac_backend.exporting.choice import Choice, Chosen
from svac_backend.exporting.dataset import VideoTracks
from svac_backend.exporting.join import Part, join
from svac_backend.exporting.linking import link
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.corrections import corrected_prompts
from svac_backend.labelstudio.regions import results_to_tracks
from svac_backend.labelstudio.tasks import PROMPT_KEY, local_files_path, task_prompts
from svac_backend.labelstudio.windows import Window, window_of
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.store.predictions import video_identity

Task = Mapping[str, Any]
_LONGEST_PROMPT = 10_000


@dataclass(frozen=True)
class FoundVideo:
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
class Found:
    """What is in a project.

    Attributes:
        videos: in the order of their first tasks.
        notes: what was left out, and why, in sentences.
        drafts: number of tasks whose annotation was saved and not submitted.
    """

    videos: list[FoundVideo] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    drafts: int = 0


@dataclass(frozen=True)
class _Shown:
    """A task, and what it shows of its video."""

    task: Task
    window: Window


def read_tasks(
    tasks: Sequence[Task],
    load: Callable[[Task], Task],
    config: LabelConfig,
    choice: Choice,
    *,
    hostname: str = "",
    known: Callable[[str], Sequence[ObjectPrompt]] = lambda _: (),
    progress: Callable[[float], None] | None = None,
) -> Found:
    """Read the tasks of a project; tasks of one video and one prompt are joined (see `join`).

    Args:
        tasks: with `id` and `data`.
        load: returns a task's `annotations`, `drafts` and `predictions`, as Label Studio exports them. It is asked for
            one video after the other, so that few results are held.
        config: the project's labelling config.
        choice: which of them.
        hostname: of the Label Studio that the tasks' addresses belong to.
        known: a video's address -> objects that have been asked for in the editor, with their sentences.
        progress: called with 0..1.

    Raises:
        SvacError: a task or a region is malformed.
    """
    found = Found()
    taken: set[str] = set()
    done = 0
    for shown in _by_video(tasks, config, hostname, found):
        url = _address(shown[0].task, config)
        chosen = [(one, choice.of(load(one.task))) for one in shown]
        done += len(shown)
        if progress:
            progress(done / max(len(tasks), 1))
        there = [(one, results) for one, results in chosen if results is not None]
        name = _free_name(url, taken)
        if len(there) < len(shown):
            found.notes.append(
                _missing(name, [one for one, results in chosen if results is None], len(shown), choice)
            )
        size = next((size for _, results in there if (size := results.size())), None)
        if size is None:
            if there:
                found.notes.append(f"{name}: nothing is drawn on it, so it is left out.")
            continue
        found.drafts += sum(results.is_draft for _, results in there)
        taken.add(name)
        video = _read_video(name, there, config, size, known(url))
        task = shown[0].task.get("id")
        found.videos.append(FoundVideo(video, url, task if isinstance(task, int) else None))
    return found


def _by_video(
    tasks: Sequence[Task], config: LabelConfig, hostname: str, found: Found
) -> Iterator[list[_Shown]]:
    groups: dict[str, list[_Shown]] = {}
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
        # Another prompt is other objects, whatever their ids.
        key = [video_identity(hostname, _address(task, config)), data.get(PROMPT_KEY)]
        groups.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(_Shown(task, window))
    yield from groups.values()


def _address(task: Task, config: LabelConfig) -> str:
    url = task["data"].get(config.video.key if config.video else "video")
    if isinstance(url, str) and url:
        return url
    frames = task["data"].get(config.frames.key if config.frames else "frames")
    first = frames[0] if isinstance(frames, list) and frames else None
    # A task without a video is known by its first frame; its folder names it.
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
    known = _known(data, config, asked)
    shown = Counter(frame for one, _ in there for frame in _frames(one.window))
    shared = max(shown.values()) > 1
    parts = []
    for one, chosen in there:
        where: dict[str, Any] = {"width": width, "height": height, "window": one.window, "tracks": known}
        tracks = results_to_tracks(chosen.results, config, **where)
        changed: dict[str, frozenset[int]] = {}
        if shared:
            corrected = corrected_prompts(chosen.sent, chosen.results, config, **where)
            changed = {object_id: frozenset(frames) for object_id, frames in corrected.items()}
        parts.append(Part(one.window, tracks, changed, chosen.saved))
    tracks = join(link(parts, {track.object_id for track in known}))
    if data.get(PROMPT_KEY) is None:
        # Nobody asked for them: the labels of the config only might have been meant.
        tracks = [track for track in tracks if track.masks]
    fps = data.get((config.video.fps_key if config.video else None) or "fps")
    rate = float(fps) if isinstance(fps, int | float) and fps > 0 else None
    return VideoTracks(name, width, height, tuple(sorted(shown)), tuple(tracks), fps=rate)


def _frames(window: Window) -> range:
    return range(window.start, window.start + window.count * window.stride, window.stride)


def _known(data: Mapping[str, Any], config: LabelConfig, asked: Sequence[ObjectPrompt]) -> list[Track]:
    """The objects that were asked for, by the task and in the editor, without masks."""
    try:
        wanted = task_prompts(data, config, max_chars=_LONGEST_PROMPT)
    except SvacError:
        # The prompt was changed, or the config was: what is drawn counts all the same.
        wanted = []
    prompts = {prompt.object_id: prompt for prompt in (*wanted, *asked)}
    return [Track(**vars(prompt)) for prompt in prompts.values()]


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


def _free_name(url: str, taken: set[str]) -> str:
    relative = local_files_path(url)
    path = PurePosixPath(unquote(urlsplit(url).path) if relative is None else relative)
    stem = re.sub(r"[^\w.-]+", "_", path.stem).strip("._-")[:80] or "video"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name
