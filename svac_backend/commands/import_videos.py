"""`svac-backend import`: videos and prompts into a Label Studio project, with frames and predictions.

Everything is checked before anything is changed in Label Studio. A video is segmented before its task is made, and
what an earlier run put into the project is found by the task's data: a run that failed can be run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from svac_backend.commands.configs import check_prompts, prompt_labels, read_config, shipped_config
from svac_backend.commands.local_files import files_root
from svac_backend.commands.prelabelling import Prelabeller
from svac_backend.commands.progress import bar, console
from svac_backend.commands.projects import Project, existing_project, project_of_title
from svac_backend.commands.sources import SourceVideo, check_video, copy_video, open_video
from svac_backend.errors import SvacError
from svac_backend.labelstudio.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.tasks import PROMPT_KEY, build_task_data, local_files_url
from svac_backend.masks.tracks import frames_with_masks
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.svac.weights import model_version
from svac_backend.video.frames import write_frames

# Label Studio's own limits.
SHORTEST_TITLE, LONGEST_TITLE = 3, 50
# Where a video's bar stands when its copy, its frames and its masks are made.
COPIED, CUT, SEGMENTED = 0.03, 0.3, 0.97


def run(
    settings: Settings,
    videos: list[Path],
    prompts: list[str],
    *,
    project: int | None,
    create: str | None,
    config: Path | None,
    predict: bool,
) -> None:
    """Import videos; print what was done and the project's address.

    Args:
        settings: Label Studio, its files root, the model.
        videos: the files.
        prompts: what to segment in each of them; empty for what the config's labels say.
        project: id of an existing project.
        create: or title of a project to make; one that an earlier import made is gone on with.
        config: labelling config of a project to make; the shipped brush config, with the prompts' labels, if None.
        predict: segment the videos; else only frames and tasks are made.

    Raises:
        SvacError: something is not as it should be. Either nothing was changed in Label Studio, or the message and
            what was printed say which videos are in.
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
    if create is not None and config is None and predict and not prompts:
        raise SvacError("There is no prompt.", 'Say what to segment, for example --prompt "the white dog".')

    def check(found: LabelConfig) -> None:
        check_prompts(prompts, found, settings)

    xml = ""
    if create is not None:
        xml = read_config(config) if config else shipped_config(prompt_labels(prompts))
        check(parse_config(xml))
    version = model_version(settings.model) if predict else None
    root = files_root(settings)
    with console.status("looking at the videos"):
        sources = [check_video(path, settings) for path in videos]
    database = Database(settings.data_dir)
    client = LabelStudioClient.from_settings(settings)
    try:
        with console.status("asking Label Studio"):
            if create is not None:
                target = project_of_title(client, root, create, xml, check, xml_is_default=config is None)
            else:
                target = existing_project(client, root, project or 0, check)
        prelabeller = Prelabeller(settings, client, database, target, version) if version else None
        Importer(settings, client, target, prompts, root, prelabeller).run(sources)
    finally:
        client.close()
        database.close()


class Importer:
    """Brings checked videos into a project.

    Args:
        settings: limits and the frames' quality.
        client: of a user who may change the project.
        project: where to.
        prompts: what to segment, as it stands in the tasks.
        root: Label Studio's files root.
        prelabeller: makes the predictions; None for tasks without.
    """

    def __init__(
        self,
        settings: Settings,
        client: LabelStudioClient,
        project: Project,
        prompts: Sequence[str],
        root: Path,
        prelabeller: Prelabeller | None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.project = project
        # People who read the task need no list of one.
        self.prompt = prompts[0] if len(prompts) == 1 else list(prompts) or None
        self.root = root
        self.prelabeller = prelabeller

    def run(self, sources: Sequence[SourceVideo]) -> None:
        """Import one video after the other; stop at the first that fails.

        Raises:
            SvacError: names the video, what went wrong, and how to go on.
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

    def _import(self, source: SourceVideo, tasks: dict[str, int], progress: Callable[[float], None]) -> str:
        """Import one video, and return what was done, in words."""
        folder = self.project.folder / source.folder_name
        url = local_files_url(folder / source.file_name, self.root)
        key = _task_key(url, self.prompt)
        task = tasks.get(key)
        if task is not None and (self.prelabeller is None or self.prelabeller.has_predicted(task)):
            return f"already in the project (task {task})"
        copy = copy_video(source, folder, lambda done: progress(COPIED * done))
        with open_video(copy, self.settings) as video:
            frames = write_frames(
                video,
                folder,
                quality=self.settings.frame_quality,
                progress=lambda done, _: progress(COPIED + (CUT - COPIED) * done),
            )
            urls = [local_files_url(frame, self.root) for frame in frames]
            data = build_task_data(url, urls, video.info.fps, self.prompt, config=self.project.config)
            made = None
            if self.prelabeller is not None:
                # Before the task is made, so that a video that cannot be segmented leaves nothing behind.
                made = self.prelabeller.predict(
                    video, data, url, lambda done: progress(CUT + (SEGMENTED - CUT) * done)
                )
        if task is None:
            task = tasks[key] = self.client.create_task(self.project.id, data)
        words = f"task {task}, {len(frames)} frames"
        if self.prelabeller is not None and made is not None:
            self.prelabeller.attach(task, made)
            masked = len(frames_with_masks(made.prediction.tracks))
            words += (
                f", a mask on {masked} of them" if masked else "; [yellow]nothing was found on any of them[/]"
            )
        progress(1.0)
        return words

    def _tasks_in_project(self) -> dict[str, int]:
        video = self.project.config.video
        name = video.key if video else "video"
        return {
            _task_key(task["data"].get(name), task["data"].get(PROMPT_KEY)): int(task["id"])
            for task in self.client.list_tasks(self.project.id)
        }

    def _tell_end(self, count: int) -> None:
        version = self.prelabeller.version if self.prelabeller else None
        other = self.prelabeller.shown_instead() if self.prelabeller else None
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


def _task_key(url: Any, prompt: Any) -> str:
    """What a task is known by: its video and its prompt, a sentence being the same as a list of one."""
    return json.dumps([url, [prompt] if isinstance(prompt, str) else prompt], sort_keys=True)
