"""`svac-backend import`: videos and prompts into a Label Studio project, with frames and predictions.

Everything is checked before anything is changed in Label Studio. A long video is split into tasks with overlapping
windows; one prediction of the whole video serves them all. What an earlier run put into the project is recognized by
the tasks' data, so a failed run can simply be repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape

from svac_backend.cli.filling import Filler, Prelabeller
from svac_backend.cli.imported import FailedVideo, Imported, ImportedVideo, Row
from svac_backend.cli.inputs import (
    SourceVideo,
    check_prompts,
    check_video,
    copy_video,
    open_video,
    prompt_labels,
)
from svac_backend.cli.projects import Destination, Project, files_root
from svac_backend.cli.terminal import Progress, bar, console
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.jobs.rendering import brush_masks
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.tasks import (
    NAME_KEY,
    PROMPT_KEY,
    WINDOW_KEY,
    Prompt,
    Window,
    build_task_data,
    local_files_url,
)
from svac_backend.masks.tracks import frames_with_masks
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.predictions import Prediction
from svac_backend.versions import served_version
from svac_backend.video.frames import write_frames

# A video's progress, 0..1, once its copy, its frames and its masks are made; its tasks come last.
COPIED, CUT, SEGMENTED = 0.03, 0.3, 0.9


def config_kind(sources: Sequence[SourceVideo], windowing: Windowing, objects: int) -> str:
    """Return which shipped config a new project gets: `polygon` if a task's brush masks would freeze its page.

    Args:
        sources: the videos.
        windowing: how they are split.
        objects: number of objects asked for in each.
    """
    for source in sources:
        longest = max(window.count for window in windowing.of(source.info.frame_count))
        if longest * max(1, objects) > brush_masks(source.info.width, source.info.height):
            return "polygon"
    return "brush"


def import_videos(
    settings: Settings,
    videos: Sequence[Path],
    prompts: Sequence[str],
    destination: Destination,
    windowing: Windowing,
    *,
    predict: bool = True,
) -> Imported:
    """Import videos; print what was done and the project's address.

    Args:
        settings: Label Studio, its files root, the model.
        videos: the files.
        prompts: what to segment in each of them; empty for what the config's labels say.
        destination: the project. A shipped config gets the prompts' labels: for brush masks, or for polygons if a
            task's brush masks would freeze its page.
        windowing: how a long video is split.
        predict: whether to segment the videos; otherwise only frames and tasks are made.

    Raises:
        SvacError: something cannot be imported. Either nothing was changed in Label Studio, or the message and the
            output say which videos were imported.
    """
    if not videos:
        raise SvacError("There is no video.", "Name video files, or a data set with --masks.")
    windowing.check()
    windowing = windowing.for_objects(len(prompts))
    if destination.create is not None and destination.config is None and predict and not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')

    def check(found: LabelConfig) -> None:
        check_prompts(prompts, found, settings)

    labels = prompt_labels(prompts)
    destination.new_config(labels, check)
    version = served_version(settings) if predict else None
    root = files_root(settings)
    with console.status("looking at the videos"):
        sources = [check_video(path, settings) for path in videos]
    xml = destination.new_config(labels, check, kind=config_kind(sources, windowing, len(prompts)))
    # A list of a single prompt would be harder to read in the task.
    prompt = prompts[0] if len(prompts) == 1 else list(prompts) or None
    with (
        closing(Database.from_settings(settings)) as database,
        closing(LabelStudioClient.from_settings(settings)) as client,
    ):
        with console.status("asking Label Studio"):
            project = destination.open(settings, client, root, xml, check)
        filler = Prelabeller(settings, client, database, project, version) if version else None
        importer = Importer(settings, client, project, root, windowing, filler)
        return importer.run([(source, prompt) for source in sources])


def import_rows(
    settings: Settings,
    rows: Sequence[Row],
    destination: Destination,
    windowing: Windowing,
    *,
    predict: bool = True,
) -> Imported:
    """Import the videos of some rows of a list, each with its own prompts; a failed video does not stop the others.

    Args: as `import_videos`.

    Raises:
        SvacError: something stops all of them: the project, Label Studio, the model.
    """
    version = served_version(settings) if predict else None
    root = files_root(settings)
    known = destination.read_config()
    good: list[tuple[Row, SourceVideo]] = []
    failed: list[FailedVideo] = []
    with console.status("looking at the videos"):
        for row in rows:
            try:
                if known is not None:
                    check_prompts(row.prompts, known, settings)
                elif not row.prompts and predict:
                    raise SvacError("There is no prompt.", "Say in the column prompts what to segment.")
                good.append((row, check_video(row.video, settings)))
            except SvacError as error:
                failed.append(FailedVideo(str(row.video), error.message, error.hint, row.line))
    if not good:
        return Imported(destination.project or 0, "", failed=failed)
    labels = prompt_labels([prompt for row, _ in good for prompt in row.prompts])
    objects = max(len(row.prompts) for row, _ in good)
    windowing = windowing.for_objects(objects)
    kind = config_kind([one for _, one in good], windowing, objects)
    xml = destination.new_config(labels, lambda _: None, kind=kind)
    with (
        closing(Database.from_settings(settings)) as database,
        closing(LabelStudioClient.from_settings(settings)) as client,
    ):
        project = destination.open(settings, client, root, xml, LabelConfig.mask_control)
        filler = Prelabeller(settings, client, database, project, version) if version else None
        wishes: list[tuple[SourceVideo, Prompt | None]] = []
        lines: list[int] = []
        for row, source in good:
            try:
                check_prompts(row.prompts, project.config, settings)
            except SvacError as error:
                failed.append(FailedVideo(str(row.video), error.message, error.hint, row.line))
                continue
            wishes.append((source, row.prompts[0] if len(row.prompts) == 1 else list(row.prompts) or None))
            lines.append(row.line)
        importer = Importer(settings, client, project, root, windowing, filler)
        found = importer.run(wishes, keep_going=True)
    found.failed = [*failed, *(replace(one, place=lines[one.place]) for one in found.failed)]
    return found


@dataclass(frozen=True)
class Importer:
    """Brings checked videos into a project: a copy, frames, tasks, and what is drawn in them.

    Attributes:
        settings: limits and the frames' quality.
        client: a client whose user may change the project.
        project: the project.
        root: Label Studio's files root.
        windowing: how many frames a task shows.
        filler: draws in the tasks; None leaves them empty.
    """

    settings: Settings
    client: LabelStudioClient
    project: Project
    root: Path
    windowing: Windowing
    filler: Filler | None

    def run(
        self, wishes: Sequence[tuple[SourceVideo, Prompt | None]], *, keep_going: bool = False
    ) -> Imported:
        """Import one video after the other.

        Args:
            wishes: videos with the prompt for their tasks; None: no prompt.
            keep_going: if a video fails, go on with the next one; the result names it.

        Raises:
            SvacError: a video failed: its name, what went wrong, and how to continue.
        """
        tasks = self._tasks_in_project()
        found = Imported(self.project.id, f"{self.client.url}/projects/{self.project.id}/data")
        found.model_version = self.filler.version if self.filler else None
        found.connected = self.project.connected
        for place, (source, prompt) in enumerate(wishes):
            name = source.path.name
            try:
                with bar(name) as progress:
                    video = self._import(source, prompt, tasks, progress)
            except SvacError as error:
                if keep_going:
                    found.failed.append(FailedVideo(str(source.path), error.message, error.hint, place))
                    continue
                self._tell_stopped(found, [one.path.name for one, _ in wishes[place:]])
                again = (
                    f"Then run it again with --project {self.project.id}: it skips what is already imported."
                )
                raise SvacError(
                    f"{name} was not imported. {error.message}", f"{error.hint} {again}"
                ) from error
            console.print(f"[bold]{escape(name)}[/]: {video.words}")
            found.videos.append(video)
        self._tell_end(len(found.videos))
        return found

    def _tell_stopped(self, found: Imported, missing: Sequence[str]) -> None:
        done = [Path(video.file).name for video in found.videos]
        for what, names in (("in", done), ("not in", missing)):
            listed = escape(", ".join(names)) or "none"
            console.print(f"[bold]{what} project {self.project.id}:[/] {listed}")

    def _import(
        self,
        source: SourceVideo,
        prompt: Prompt | None,
        tasks: dict[str, dict[str, int]],
        progress: Progress,
    ) -> ImportedVideo:
        """Import one video."""
        folder = self.project.folder / source.folder_name
        below = self.client.url
        url = local_files_url(folder / source.file_name, self.root, below)
        planned = self.windowing.of(source.info.frame_count)
        # A task that shows every frame needs no window in its data.
        shows_whole = planned == [Window(0, source.info.frame_count)]
        windows: list[Window | None] = [None] if shows_whole else list(planned)
        there = tasks.setdefault(_video_key(url, prompt), {})
        self._check_same(there, windows)
        missing = [window for window in windows if not self._is_done(there.get(_window_key(window)))]
        if not missing:
            ids = list(there.values())
            return ImportedVideo(str(source.path), ids, f"already in the project ({_listed(ids)})")
        copy = copy_video(source, folder, lambda done: progress(COPIED * done))
        with open_video(copy, self.settings) as video:
            shown = sorted({frame for window in planned for frame in window.frames})
            files = write_frames(
                source.pictures or video,
                folder,
                quality=self.settings.frame_quality,
                indices=shown,
                progress=lambda done, _: progress(COPIED + (CUT - COPIED) * done),
            )
            urls = {i: local_files_url(file, self.root, below) for i, file in zip(shown, files, strict=True)}
            data = [self._data(source, url, urls, window, prompt) for window in missing]
            # Before a task is made, so that a video that cannot be segmented leaves nothing behind.
            prediction = None
            if self.filler is not None:
                prediction = self.filler.predict(
                    source, video, data[0], lambda done: progress(CUT + (SEGMENTED - CUT) * done)
                )
        for number, (window, content) in enumerate(zip(missing, data, strict=True), start=1):
            self._fill(there, window, content, prediction)
            progress(SEGMENTED + (1 - SEGMENTED) * number / len(missing))
        made = [there[_window_key(window)] for window in missing]
        return ImportedVideo(
            str(source.path), made, self._words(made, windows, shown, prediction), is_new=True
        )

    def _data(
        self,
        source: SourceVideo,
        url: str,
        urls: Mapping[int, str],
        window: Window | None,
        prompt: Prompt | None,
    ) -> dict[str, Any]:
        name, frames = source.path.name, list(urls.values())
        extra: dict[str, Any] = {NAME_KEY: name}
        if window is not None:
            frames = [urls[frame] for frame in window.frames]
            # Counted from 1, as in the editor.
            extra = {NAME_KEY: f"{name}, frames {window.start + 1} to {window.frames[-1] + 1}"}
            extra[WINDOW_KEY] = window.to_json()
        return build_task_data(url, frames, source.info.fps, prompt, config=self.project.config, extra=extra)

    def _fill(
        self,
        there: dict[str, int],
        window: Window | None,
        data: dict[str, Any],
        prediction: Prediction | None,
    ) -> None:
        """Find or make the task of a window, and draw in it."""
        # Rendered before the task is made, so that a config that cannot show the masks leaves no empty task.
        results = self.filler.results(prediction, window) if self.filler and prediction else []
        task = there.get(_window_key(window))
        if task is None:
            task = there[_window_key(window)] = self.client.create_task(self.project.id, data)
        if self.filler and prediction:
            self.filler.attach(task, prediction, results, window)

    def _is_done(self, task: int | None) -> bool:
        return task is not None and (self.filler is None or self.filler.has_filled(task))

    def _check_same(self, there: Mapping[str, int], windows: Sequence[Window | None]) -> None:
        """Raise `SvacError` if the video is in the project with other windows: its frames would be there twice."""
        others = set(there) - {_window_key(window) for window in windows}
        if others:
            tasks = _listed(sorted(there[key] for key in others))
            raise SvacError(
                f"It is already in the project with other windows ({tasks}).",
                "Give the same --window, --overlap and --stride as then (--whole for one task), or import it into "
                "another project.",
            )

    def _words(
        self,
        made: Sequence[int],
        windows: Sequence[Window | None],
        shown: Sequence[int],
        prediction: Prediction | None,
    ) -> str:
        words = f"{_listed(made)}, {len(shown)} frames"
        if len(windows) > 1:
            words += f" in {len(windows)} windows"
        if prediction is not None:
            masked = len(frames_with_masks(prediction.tracks).intersection(shown))
            words += (
                f", a mask on {masked} of them" if masked else "; [yellow]nothing was found on any of them[/]"
            )
        if prediction is not None and self.project.config.mask_control().kind == "brush":
            longest = max(window.count if window else len(shown) for window in windows)
            masks = longest * len(prediction.tracks)
            if masks > brush_masks(prediction.width, prediction.height):
                words += (
                    f"; [yellow]{masks} brush masks in a task make the editor slow[/]: "
                    "take a smaller --window or polygon labels"
                )
        return words

    def _tasks_in_project(self) -> dict[str, dict[str, int]]:
        """Return the project's tasks: video and prompt -> window -> task."""
        video = self.project.config.video
        name = video.key if video else "video"
        found: dict[str, dict[str, int]] = {}
        for task in self.client.list_tasks(self.project.id):
            data = task["data"]
            windows = found.setdefault(_video_key(data.get(name), data.get(PROMPT_KEY)), {})
            windows[json.dumps(data.get(WINDOW_KEY), sort_keys=True)] = int(task["id"])
        return found

    def _tell_end(self, count: int) -> None:
        version = self.filler.version if self.filler else None
        other = self.filler.shown_instead() if self.filler else None
        if other is not None:
            console.print(
                f"[yellow]The editor shows the predictions of {escape(other)} first.[/] "
                f"Choose {version} in the project's Settings > Annotation."
            )
        videos = "1 video is" if count == 1 else f"{count} videos are"
        console.print(
            f"{videos} in project {self.project.id}{f', model {version}' if version else ''}. "
            f"Open {self.client.url}/projects/{self.project.id}/data"
        )


def _video_key(url: Any, prompt: Any) -> str:
    """Return the key of a video's tasks: video and prompt; a sentence is the same as a list of one."""
    return json.dumps([url, [prompt] if isinstance(prompt, str) else prompt], sort_keys=True)


def _window_key(window: Window | None) -> str:
    return json.dumps(window.to_json() if window else None, sort_keys=True)


def _listed(tasks: Sequence[int]) -> str:
    """Return e.g. `task 3` or `tasks 3, 4`."""
    return f"task{'s' if len(tasks) > 1 else ''} {', '.join(map(str, tasks))}"
