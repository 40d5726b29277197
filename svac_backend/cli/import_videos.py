"""`svac-backend import`: videos and prompts into a Label Studio project, with frames and predictions.

Everything is checked before anything is changed in Label Studio. A long video is split into tasks of windows, which
overlap; one prediction of the whole video serves them all. What an earlier run put into the project is found by the
tasks' data: a run that failed can be run again.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

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
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.jobs.rendering import brush_masks, config_key, render, task_score
from svac_backend.labelstudio.api.access import label_studio_name
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.regions.region import Region
from svac_backend.labelstudio.regions.written import to_prediction
from svac_backend.labelstudio.tasks import (
    PROMPT_KEY,
    WINDOW_KEY,
    Prompt,
    Window,
    build_task_data,
    local_files_url,
    task_prompts,
    video_url,
)
from svac_backend.masks.tracks import frames_with_masks
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.predictions import Prediction, PredictionStore
from svac_backend.store.tasks import PredictedTask, TaskStore
from svac_backend.versions import served_version
from svac_backend.video.frames import write_frames
from svac_backend.video.source import VideoSource

if TYPE_CHECKING:
    from svac_backend.svac.model import Svac


# Where a video's bar stands when its copy, its frames, its masks are made; then come its tasks.
COPIED, CUT, SEGMENTED = 0.03, 0.3, 0.9


def config_kind(sources: Sequence[SourceVideo], windowing: Windowing, objects: int) -> str:
    """Return which shipped config a new project gets: `polygon` where a task's brush masks would freeze its page.

    Args:
        sources: the videos.
        windowing: how they are split.
        objects: how many are asked for in each of them.
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
) -> None:
    """Import videos; print what was done and the project's address.

    Args:
        settings: Label Studio, its files root, the model.
        videos: the files.
        prompts: what to segment in each of them; empty for what the config's labels say.
        destination: where to. A shipped config gets the prompts' labels: for brush masks, or for polygons where a
            task's brush masks would freeze its page.
        windowing: how a long video is split.
        predict: segment the videos; else only frames and tasks are made.

    Raises:
        SvacError: something is not as it should be. Either nothing was changed in Label Studio, or the message and
            what was printed say which videos are in.
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
    # People who read the task need no list of one.
    prompt = prompts[0] if len(prompts) == 1 else list(prompts) or None
    with (
        closing(Database.from_settings(settings)) as database,
        closing(LabelStudioClient.from_settings(settings)) as client,
    ):
        with console.status("asking Label Studio"):
            project = destination.open(client, root, xml, check)
        filler = Prelabeller(settings, client, database, project, version) if version else None
        Importer(settings, client, project, lambda _: prompt, root, windowing, filler).run(sources)


@dataclass(frozen=True)
class Importer:
    """Brings checked videos into a project: a copy, frames, tasks, and what is drawn in them.

    Attributes:
        settings: limits and the frames' quality.
        client: of a user who may change the project.
        project: where to.
        prompt: what to segment in a video, as it stands in its tasks; None leaves it out.
        root: Label Studio's files root.
        windowing: how many frames a task shows.
        filler: draws in the tasks; None for empty ones.
    """

    settings: Settings
    client: LabelStudioClient
    project: Project
    prompt: Callable[[SourceVideo], Prompt | None]
    root: Path
    windowing: Windowing
    filler: Filler | None

    def run(self, sources: Sequence[SourceVideo]) -> None:
        """Import one video after the other; stop at the first that fails.

        Raises:
            SvacError: names the video, what went wrong, and how to continue.
        """
        tasks = self._tasks_in_project()
        done: list[str] = []
        try:
            for source in sources:
                name = source.path.name
                try:
                    with bar(name) as progress:
                        outcome = self._import(source, tasks, progress)
                except SvacError as error:
                    again = f"Then run it again with --project {self.project.id}: what is in is skipped."
                    raise SvacError(f"{name} is not in. {error.message}", f"{error.hint} {again}") from error
                console.print(f"[bold]{escape(name)}[/]: {outcome}")
                done.append(name)
        finally:
            if len(done) < len(sources):
                missing = [source.path.name for source in sources[len(done) :]]
                for what, names in (("in", done), ("not in", missing)):
                    listed = escape(", ".join(names)) or "none"
                    console.print(f"[bold]{what} project {self.project.id}:[/] {listed}")
        self._tell_end(len(sources))

    def _import(self, source: SourceVideo, tasks: dict[str, dict[str, int]], progress: Progress) -> str:
        """Import one video, and return what was done, in words."""
        folder = self.project.folder / source.folder_name
        url = local_files_url(folder / source.file_name, self.root)
        prompt = self.prompt(source)
        planned = self.windowing.of(source.info.frame_count)
        # A task that shows every frame needs no window in its data.
        shows_whole = planned == [Window(0, source.info.frame_count)]
        windows: list[Window | None] = [None] if shows_whole else list(planned)
        there = tasks.setdefault(_video_key(url, prompt), {})
        self._check_same(there, windows)
        missing = [window for window in windows if not self._is_done(there.get(_window_key(window)))]
        if not missing:
            return f"already in the project ({_listed(list(there.values()))})"
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
            urls = {i: local_files_url(file, self.root) for i, file in zip(shown, files, strict=True)}
            data = [self._data(url, urls, window, video.info.fps, prompt) for window in missing]
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
        return self._words(made, windows, shown, prediction)

    def _data(
        self, url: str, urls: Mapping[int, str], window: Window | None, fps: float, prompt: Prompt | None
    ) -> dict[str, Any]:
        if window is None:
            frames, extra = list(urls.values()), None
        else:
            frames = [urls[frame] for frame in window.frames]
            extra = {WINDOW_KEY: window.to_json()}
        return build_task_data(url, frames, fps, prompt, config=self.project.config, extra=extra)

    def _fill(
        self,
        there: dict[str, int],
        window: Window | None,
        data: dict[str, Any],
        prediction: Prediction | None,
    ) -> None:
        """Have a task for a window, with what is to be drawn in it."""
        # Before the task is made: a config that cannot show the masks leaves no empty task.
        results = self.filler.results(prediction, window) if self.filler and prediction else []
        task = there.get(_window_key(window))
        if task is None:
            task = there[_window_key(window)] = self.client.create_task(self.project.id, data)
        if self.filler and prediction:
            self.filler.attach(task, prediction, results, window)

    def _is_done(self, task: int | None) -> bool:
        return task is not None and (self.filler is None or self.filler.has_filled(task))

    def _check_same(self, there: Mapping[str, int], windows: Sequence[Window | None]) -> None:
        """Raise `SvacError` where the video is in the project in other windows: its frames would be in twice."""
        others = set(there) - {_window_key(window) for window in windows}
        if others:
            tasks = _listed(sorted(there[key] for key in others))
            raise SvacError(
                f"It is in the project with other windows already ({tasks}).",
                "Give --window, --overlap and --stride as they were then (--whole for one task), or import into "
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
    """What a video's tasks are known by: video and prompt, a sentence being the same as a list of one."""
    return json.dumps([url, [prompt] if isinstance(prompt, str) else prompt], sort_keys=True)


def _window_key(window: Window | None) -> str:
    return json.dumps(window.to_json() if window else None, sort_keys=True)


def _listed(tasks: Sequence[int]) -> str:
    """Return e.g. `task 3` or `tasks 3, 4`."""
    return f"task{'s' if len(tasks) > 1 else ''} {', '.join(map(str, tasks))}"


class Filler(ABC):
    """Draws in the tasks of a project.

    Args:
        settings: how masks are drawn.
        client: of a user who may change the project.
        project: whose tasks.
        version: the model version of what it draws.
    """

    def __init__(self, settings: Settings, client: LabelStudioClient, project: Project, version: str) -> None:
        self.settings = settings
        self.client = client
        self.project = project
        self.version = version
        self._shown = project.model_version

    def has_filled(self, task: int) -> bool:
        """Tell whether a task has what this draws already."""
        return any(p.get("model_version") == self.version for p in self.client.list_predictions(task))

    @abstractmethod
    def predict(
        self, source: SourceVideo, video: VideoSource, data: dict[str, Any], progress: Progress
    ) -> Prediction:
        """Return what there is to draw on a whole video.

        Args:
            source: the user's file.
            video: its copy.
            data: that of one of its tasks.
            progress: called with 0..1.

        Raises:
            SvacError: the model, the video or the prompt is not as it should be.
        """

    def results(self, prediction: Prediction, window: Window | None) -> list[Region]:
        """Return the regions of one task; None shows all frames.

        Raises:
            SvacError: the project's config can't show them.
        """
        return render(prediction, self.project.xml, self.settings, window=window)

    @abstractmethod
    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Put the regions into a task."""

    def shown_instead(self) -> str | None:
        """Return the other version whose predictions the editor shows first, or None where it shows these."""
        return None if self._shown in ("", self.version) else self._shown

    def _show(self) -> None:
        """Have the editor show the version's predictions unless it shows others: without a version it shows none."""
        if not self._shown:
            # Label Studio takes only a version that it has seen.
            self.client.set_model_version(self.project.id, self.version)
            self._shown = self.version


class Prelabeller(Filler):
    """Segments videos for one project; `version` is that of the model, `database` that of the web process."""

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        database: Database,
        project: Project,
        version: str,
    ) -> None:
        super().__init__(settings, client, project, version)
        self._predictions = PredictionStore(database)
        self._tasks = TaskStore(database)
        self._connections = ConnectionStore(database)

    @cached_property
    def model(self) -> Svac:
        """The model as it serves; loaded when the first video needs it.

        Raises:
            SvacError: it cannot be loaded, or another version was promoted since the command began.
        """
        # Here, since it imports torch: a mistake in the command is told without waiting for that.
        from svac_backend.jobs.worker import load_served

        model, version = load_served(self.settings)
        if version != self.version:
            raise SvacError(
                f"The model was {self.version} when this command began, and is {version} now.",
                "Run the same command again.",
            )
        return model

    def predict(
        self, source: SourceVideo, video: VideoSource, data: dict[str, Any], progress: Progress
    ) -> Prediction:
        """Segment what a task asks for, or take it from the cache; see `Filler.predict`."""
        payload = self._payload(data)
        key = payload.cache_key(self.version)
        prediction = self._predictions.get(key)
        if prediction is None:
            from svac_backend.pipeline import prelabel

            tracks = prelabel(
                self.model,
                video,
                payload.prompts,
                labels=self.project.config.mask_control().labels,
                specks=self.settings.speck_share,
                progress=lambda done, _: progress(done),
            )
            prediction = payload.prediction(key, self.version, tracks, video.info)
            # At once: if Label Studio fails now, the next run need not segment again.
            self._predictions.put(prediction)
        return prediction

    def attach(self, task: int, prediction: Prediction, results: list[Region], window: Window | None) -> None:
        """Send a prediction to its task, have the editor show it, and have `/predict` answer with it at once."""
        score = task_score(prediction.tracks, prediction.frame_count, window)
        self.client.create_prediction(task, to_prediction(results, self.version, score))
        shown_as = config_key(self.project.xml, self.settings, window)
        self._predictions.put_rendering(prediction.key, shown_as, results)
        given = PredictedTask(str(self.project.id), str(task), prediction.key, self.version, score)
        self._tasks.put([given])
        self._show()

    def shown_instead(self) -> str | None:
        """See `Filler.shown_instead`; the title of a connected model stands for whatever that model answers."""
        live = {str(backend.get("title")) for backend in self.client.list_ml_backends(self.project.id)}
        return None if self._shown in live else super().shown_instead()

    def _payload(self, data: dict[str, Any]) -> PrelabelPayload:
        """What the web process makes of the task, so that it looks under the same key in the cache."""
        connection = self._connections.get(str(self.project.id))
        limit = self.settings.max_prompt_chars
        return PrelabelPayload(
            project_id=str(self.project.id),
            task_id="",
            task_data=data,
            prompts=tuple(task_prompts(data, self.project.config, max_chars=limit)),
            label_config=self.project.xml,
            hostname=label_studio_name(self.settings, connection),
            video_url=video_url(data, self.project.config),
            push=True,
        )
