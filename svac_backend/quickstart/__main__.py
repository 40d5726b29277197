"""`python -m svac_backend.quickstart`: start everything, fill a project, connect the backend, and stop it all again.

`scripts/quickstart.sh` first installs what it needs.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from svac_backend.cli.inputs import prompt_labels, shipped_config
from svac_backend.cli.projects import arrange
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.quickstart.check import CheckReport, check_live, check_predictions
from svac_backend.quickstart.content import (
    DEMO_TITLE,
    PromptedVideo,
    State,
    demo_clips,
    own_clip,
)
from svac_backend.quickstart.processes import LOCAL, Process, choose_port, locked, tail, wait_until_up
from svac_backend.video.reader import VideoReader

# Beyond this many masks the editor gets slow with brush strokes; polygons are light.
MOST_BRUSH_MASKS = 100
# These settings apply here too; all other SVAC_* variables belong to another installation.
KEPT = ("SVAC_MODEL", "SVAC_DEVICE", "SVAC_DTYPE", "SVAC_THREADS", "SVAC_LABEL_STUDIO_BIN")
# The exit status that shells report when Ctrl-C ends a program.
INTERRUPTED = 130
COMMAND = Path(sys.executable).with_name("svac-backend")


@dataclass(frozen=True)
class Options:
    """What the user asked for; see `main`."""

    data: Path
    port: int
    backend_port: int
    check: bool = False
    video: Path | None = None
    prompts: tuple[str, ...] = ()


class Quickstart:
    """One run of the quickstart."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.data = options.data.resolve()
        self.steps = StepTimer()
        self.state = State.load(self.data / "state.json")
        self.children: list[Process] = []
        # A project belongs to its title and its labelling config: another prompt may need other labels.
        self.key = ""

    def run(self) -> int:
        """Do it all, and return the exit status. Whatever was started is stopped in the end, also after an error.

        Raises:
            SvacError: a step failed.
        """
        # SIGINT too: a shell starts background jobs with it ignored, and Ctrl-C must stop this.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        started = time.monotonic()
        with ExitStack() as stack:
            stack.enter_context(locked(self.data))
            try:
                title, clips = self._clips()
                server = self._label_studio(stack)
                env = self._environment(server)
                backend_url = self._backend(stack, env)
                client = server.client()
                config = self._config(clips)
                project = self._project(client, title, config)
                backend = self._connect(client, project, backend_url)
                self._import(client, project, clips, env)
                self.steps.say(f"ready after {time.monotonic() - started:.0f} s")
                if self.options.check:
                    return self._check(client, clips, backend, config)
                self._tell(server, project, backend_url)
            except KeyboardInterrupt:
                self.steps.say("interrupted; stopping what was started ...")
                return INTERRUPTED
            try:
                self._watch(server)
            except KeyboardInterrupt:
                self.steps.say("stopping ...")
            return 0

    def _clips(self) -> tuple[str, list[PromptedVideo]]:
        if self.options.video is not None:
            clip = own_clip(self.options.video, self.options.prompts)
            return f"SVAC: {clip.video.name}"[:50], [clip]
        with self.steps.step("demo videos"):
            return DEMO_TITLE, demo_clips(self.data / "videos")

    def _label_studio(self, stack: ExitStack) -> LabelStudioServer:
        folder = self.data / "label-studio"
        first = (
            "" if (folder / "label_studio.sqlite3").exists() else " (its first start takes about a minute)"
        )
        with self.steps.step(f"start Label Studio{first}"):
            port = self._port("Label Studio", self.options.port)
            server = LabelStudioServer(folder, files_root=self.data / "files", port=port)
            stack.callback(server.stop)
            server.start()
        return server

    def _port(self, what: str, wanted: int, taken: Sequence[int] = ()) -> int:
        port = choose_port(wanted, taken)
        if port != wanted:
            self.steps.say(f"port {wanted} is in use: {what} takes {port}")
        return port

    def _environment(self, server: LabelStudioServer) -> dict[str, str]:
        port = self._port("the backend", self.options.backend_port, taken=[server.port])
        foreign = {name for name in os.environ if name.startswith("SVAC_") and name not in KEPT}
        return {
            **{name: value for name, value in os.environ.items() if name not in foreign},
            "SVAC_DATA_DIR": str(self.data / "backend"),
            "SVAC_HOST": LOCAL,
            "SVAC_PORT": str(port),
            "SVAC_LABEL_STUDIO_URL": server.url,
            "SVAC_LABEL_STUDIO_API_KEY": server.token,
            "SVAC_LABEL_STUDIO_FILES_ROOT": str(server.files_root),
            # A slow machine may take longer than an annotator should wait; the demo waits.
            "SVAC_PREDICT_WAIT_S": "80",
        }

    def _backend(self, stack: ExitStack, env: dict[str, str]) -> str:
        url = f"http://{LOCAL}:{env['SVAC_PORT']}"
        with self.steps.step("start the backend"):
            for name, command in (("the backend's web process", "serve"), ("the worker", "worker")):
                log = self.data / "logs" / f"{command}.log"
                child = Process(name, [str(COMMAND), command], log, env, self.data)
                stack.callback(child.stop)
                self.children.append(child)
            wait_until_up(f"{url}/health", self.children[0], timeout=60)
        return url

    def _config(self, clips: Sequence[PromptedVideo]) -> str:
        """Return the brush config, or the polygon one where there are too many masks for brush strokes."""
        kind = "brush"
        for clip in clips:
            with VideoReader(clip.video) as video:
                if video.info.frame_count * len(clip.prompts) > MOST_BRUSH_MASKS:
                    kind = "polygon"
        return shipped_config(prompt_labels([prompt for clip in clips for prompt in clip.prompts]), kind=kind)

    def _project(self, client: LabelStudioClient, title: str, config: str) -> int:
        self.key = hashlib.sha256(f"{title}\n{config}".encode()).hexdigest()[:12]
        known = self.state.projects.get(self.key)
        if known is not None and any(int(project["id"]) == known for project in client.list_projects()):
            return known
        project = client.create_project(title, config)
        arrange(client, project, parse_config(config))
        self.state.projects[self.key] = project
        self.state.tasks[self.key] = {}
        self.state.save()
        return project

    def _connect(self, client: LabelStudioClient, project: int, url: str) -> int:
        with self.steps.step("connect the backend"):
            for backend in client.list_ml_backends(project):
                # Left by an earlier run on another port.
                if str(backend["url"]).rstrip("/") != url:
                    client.delete_ml_backend(int(backend["id"]))
            return client.connect_ml_backend(project, url, title="SVAC", interactive=True)

    def _import(
        self, client: LabelStudioClient, project: int, clips: Sequence[PromptedVideo], env: dict[str, str]
    ) -> None:
        tasks = self.state.tasks[self.key]
        before = {int(task["id"]) for task in client.list_tasks(project)}
        for clip in clips:
            if tasks.get(clip.key) in before:
                continue
            with self.steps.step(f"pre-label {clip.video.name}: {', '.join(clip.prompts)}"):
                prompts = [part for prompt in clip.prompts for part in ("--prompt", prompt)]
                self._command("import", ["--project", str(project), *prompts, "--", str(clip.video)], env)
            after = {int(task["id"]) for task in client.list_tasks(project)}
            new = after - before
            if len(new) != 1:
                raise SvacError(
                    f"The import of {clip.video.name} made {len(new)} tasks instead of one.",
                    f"Look into {self.data / 'logs' / 'import.log'}.",
                )
            tasks[clip.key], before = new.pop(), after
            self.state.save()

    def _command(self, name: str, arguments: Sequence[str], env: dict[str, str]) -> None:
        log = self.data / "logs" / f"{name}.log"
        with log.open("wb") as stream:
            done = subprocess.run(
                [str(COMMAND), name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.data,
                check=False,
            )
        if done.returncode != 0:
            raise SvacError(f"svac-backend {name} failed:\n{tail(log)}\n", f"All of its output is in {log}.")

    def _check(
        self, client: LabelStudioClient, clips: Sequence[PromptedVideo], backend: int, config: str
    ) -> int:
        report = CheckReport()
        tasks = [(clip, self.state.tasks[self.key][clip.key]) for clip in clips]
        with self.steps.step("check the predictions"):
            check_predictions(client, tasks, report)
        with self.steps.step("check a live prediction"):
            check_live(client, backend, *tasks[0], parse_config(config), report)
        for child in self.children:
            child.check()
        for line in report.lines():
            self.steps.say(line)
        self.steps.say("the check FAILED" if report.problems else "the check passed")
        return 1 if report.problems else 0

    def _tell(self, server: LabelStudioServer, project: int, backend_url: str) -> None:
        self.steps.say("")
        self.steps.say(f"Label Studio:  {server.url}/projects/{project}/data")
        self.steps.say(f"login:         {server.username}   password: {server.password}")
        self.steps.say(f"backend:       {backend_url} (connected to the project)")
        self.steps.say(f"its pages:     {backend_url}/ui/")
        self.steps.say(f"logs:          {self.data / 'logs'}, {server.log}")
        self.steps.say("Open a task and turn the frames below the picture. Ctrl-C here stops everything;")
        self.steps.say("start it again and your annotations are still there.")

    def _watch(self, server: LabelStudioServer) -> None:
        while True:
            for child in self.children:
                child.check()
            if not server.running:
                raise SvacError("Label Studio has ended.", f"Look into {server.log}, and start this again.")
            time.sleep(1)


class StepTimer:
    """Prints each step of the quickstart, and the seconds that it took."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line; square brackets in it are plain text."""
        self.console.print(f"[quickstart] {text}", markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step, and print its seconds when it succeeded."""
        self.say(f"{name} ...")
        started = time.monotonic()
        yield
        self.say(f"{name}: {time.monotonic() - started:.1f} s")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(
    check: Annotated[
        bool, typer.Option("--check", help="Verify what was made, stop everything, exit.")
    ] = False,
    video: Annotated[Path | None, typer.Option(help="Your own video instead of the demo's.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to segment in it; repeat it for more objects.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Label Studio.")] = 8080,
    backend_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the backend.")] = 9090,
    data: Annotated[Path, typer.Option(help="Folder that keeps everything.")] = Path(".quickstart"),
) -> None:
    """Start Label Studio and the backend with a pre-labelled project."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if prompt and video is None:
            raise SvacError(
                "--prompt belongs to --video.", "Name the video too, or leave both out for the demo."
            )
        status = Quickstart(Options(data, port, backend_port, check, video, tuple(prompt or ()))).run()
    except SvacError as error:
        console.print(f"[quickstart] {error.message}\n[quickstart] {error.hint}", markup=False)
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    typer.run(main)
