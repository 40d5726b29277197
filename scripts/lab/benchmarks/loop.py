"""The whole learning loop through a real Label Studio: predict, correct, Start Training, predict anew.

The experiment of `learn.py`, by the way that users take: clips of a concept that the model has never seen are imported,
the backend predicts, corrections are sent by Label Studio's API as its editor sends them, Start Training is pressed.
What is measured on unseen clips are the masks that Label Studio then holds.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import numpy as np
import torch
from pydantic import SecretStr
from rich.table import Table

from lab.benchmarks import learn
from lab.benchmarks.concepts import ZORBO, make_concept_clip
from lab.benchmarks.loop_clips import as_submitted, score
from lab.label_studio import retrieve_predictions
from svac_backend.cli.import_videos import import_videos
from svac_backend.cli.projects import Destination
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.learning.adapters import load_adapter, unload_adapter
from svac_backend.settings import Settings
from svac_backend.store.corrections import CorrectionStore
from svac_backend.store.database import Database
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import Scene
from svac_backend.synthetic.video import write_mp4

# The helper that runs web process and worker is that of the browser tests.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.browser.backend import running_backend

ROOT = Path(__file__).parents[3]
PREDICTED_S, COLLECTED_S, TRAINED_S = 600.0, 180.0, 2400.0
Say = Callable[[str], None]


@dataclass
class LoopResult:
    """What came out.

    Attributes:
        steps: what was done, and its seconds.
        shown: J&F of the masks in Label Studio on unseen clips, before and after, 0..100.
        measured: what `learn.figures` says, before and after.
        regions: how many regions of corrections were changed, drawn anew, removed.
        corrections: what the backend collected.
        old, new: model versions as Label Studio knows them.
        promoted, message, report: of the fine-tuning.
    """

    steps: list[tuple[str, float]] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    measured: list[dict[str, float]] = field(default_factory=list)
    regions: dict[str, int] = field(default_factory=dict)
    corrections: int = 0
    old: str = ""
    new: str = ""
    promoted: bool = False
    message: str = ""
    report: str = ""


class Loop:
    """One run. Whatever it starts is stopped when `run` returns or raises.

    Args:
        out: folder of its own; that of Label Studio in it may be left from an earlier run, which saves a minute.
        clips, unseen: corrected clips of the concept, and others to measure on.
        scenes: of the embedded model's own held-out set.
        kind: `brush` or `polygon`.
        say: gets what happens, in words.
    """

    def __init__(self, out: Path, *, clips: int, unseen: int, scenes: int, kind: str, say: Say) -> None:
        self.out, self.scenes, self.kind, self.say = out.resolve(), scenes, kind, say
        self.corrected = range(learn.CORRECTED_SEED, learn.CORRECTED_SEED + clips)
        self.unseen = range(learn.UNSEEN_SEED, learn.UNSEEN_SEED + unseen)
        self.found = LoopResult()
        self.xml = (ROOT / "labelstudio_config" / f"{kind}_frames.xml").read_text()
        self.config: LabelConfig = parse_config(self.xml)
        self.clips: dict[int, Scene] = {}
        self.tasks: dict[int, int] = {}

    def run(self) -> LoopResult:
        """Run the loop.

        Raises:
            SvacError: the folder was used before, there is no Label Studio, or a step failed or took too long.
        """
        backend_folder = self.out / "backend"
        if backend_folder.exists():
            raise SvacError(f"{backend_folder} was made by an earlier run.", "Use another folder: --out DIR.")
        signal.signal(signal.SIGTERM, _end)
        with ExitStack() as stack:
            with self._step("start Label Studio"):
                server = stack.enter_context(LabelStudioServer(self.out / "label-studio"))
            with self._step("start the backend"):
                url = stack.enter_context(running_backend(server, backend_folder, self.out / "logs"))
            client = server.client(timeout=60)
            stack.callback(client.close)
            self._loop(server, client, url, backend_folder / "data")
        (self.out / "loop.json").write_text(json.dumps(asdict(self.found), indent=2) + "\n")
        return self.found

    def _loop(self, server: LabelStudioServer, client: LabelStudioClient, url: str, data: Path) -> None:
        found = self.found
        project = client.create_project(f"{ZORBO.name} {secrets.token_hex(3)}", self.xml)
        backend = client.connect_ml_backend(project, url)
        with self._step(f"make and import {len(self.corrected)} + {len(self.unseen)} clips"):
            self._import(server, client, project, data)
        found.old = self._version(client, project, url)
        everything = [*self.corrected, *self.unseen]
        with self._step(f"predict {len(everything)} clips"):
            before = self._predict(client, project, everything, found.old)
        found.shown.append(self._score(before))
        self.say(f"J&F of unseen clips in Label Studio: {found.shown[-1]:.1f} ({found.old})")
        with self._step(f"submit {len(self.corrected)} corrected tasks"):
            for seed in self.corrected:
                self._correct(client, seed, before[seed])
        with self._step("until the corrections were collected"):
            found.corrections = self._collected(data)
        self.say(f"regions: {found.regions}; collected: {found.corrections} corrections")
        with ThreadPoolExecutor(1) as pool:
            model = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
            tests = learn.corrected(self.unseen)
            with self._step("Start Training, until the job has ended"):
                _post(client, f"/api/ml/{backend}/train", {})
                # On the other core: it takes as long as it takes, and the job is what people wait for.
                first = pool.submit(learn.figures, model, tests, self.scenes)
                result = self._trained(url)
            found.measured.append(first.result())
        found.promoted, found.message = bool(result["promoted"]), str(result["message"])
        found.report = str(result.get("report") or "")
        self.say(found.message)
        found.new = self._version(client, project, url)
        if found.promoted and found.new != result["version"]:
            raise SvacError(
                f"Label Studio is told {found.new}, and {result['version']} was promoted.", "A bug."
            )
        if found.promoted:
            with self._step(f"predict {len(self.unseen)} unseen clips anew"):
                after = self._predict(client, project, self.unseen, found.new)
            found.shown.append(self._score(after))
            self.say(f"J&F of unseen clips in Label Studio: {found.shown[-1]:.1f} ({found.new})")
        (adapter,) = (path.parent for path in (data / "versions").glob("*/adapter.json"))
        load_adapter(model, adapter)
        found.measured.append(learn.figures(model, tests, self.scenes))
        unload_adapter(model)

    def _import(self, server: LabelStudioServer, client: LabelStudioClient, project: int, data: Path) -> None:
        folder = self.out / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        videos = []
        for seed in (*self.corrected, *self.unseen):
            self.clips[seed] = make_concept_clip(seed)
            videos.append(folder / f"{ZORBO.name}-{seed}.mp4")
            write_mp4(self.clips[seed].frames, videos[-1], 12.0)
        settings = Settings(
            _env_file=None,
            data_dir=data,
            label_studio_url=server.url,
            label_studio_api_key=SecretStr(server.token),
            label_studio_files_root=server.files_root,
        )
        import_videos(settings, videos, [ZORBO.expression], Destination(project), Windowing(), predict=False)
        for task in client.list_tasks(project):
            named = re.search(rf"{ZORBO.name}-(\d+)", str(task["data"]["video"]))
            if named is None:
                raise SvacError(f"Task {task['id']} names no clip.", str(task["data"]["video"]))
            self.tasks[int(named[1])] = int(task["id"])

    def _predict(
        self, client: LabelStudioClient, project: int, seeds: Sequence[int], version: str
    ) -> dict[int, Mapping[str, Any]]:
        """Have Label Studio ask for predictions, and return them by clip once all are there."""
        retrieve_predictions(client, project, [self.tasks[seed] for seed in seeds])
        found: dict[int, Mapping[str, Any]] = {}

        def all_there() -> bool:
            for seed in seeds:
                if seed not in found:
                    made = client.list_predictions(self.tasks[seed])
                    for one in made:
                        if one["model_version"] == version:
                            found[seed] = one
            return len(found) == len(seeds)

        self._until(all_there, PREDICTED_S, lambda: f"{len(found)} of {len(seeds)} predictions are there")
        return found

    def _score(self, predictions: Mapping[int, Mapping[str, Any]]) -> float:
        """Return the mean J&F of unseen clips, 0..100."""
        results = [(self.clips[seed], predictions[seed]["result"]) for seed in self.unseen]
        return float(np.mean([score(clip, regions, self.config) for clip, regions in results]))

    def _correct(self, client: LabelStudioClient, seed: int, prediction: Mapping[str, Any]) -> None:
        results, counts = as_submitted(self.clips[seed], prediction["result"], self.config)
        for what, number in counts.items():
            self.found.regions[what] = self.found.regions.get(what, 0) + number
        body = {"result": results, "parent_prediction": prediction["id"], "lead_time": 60.0}
        _post(client, f"/api/tasks/{self.tasks[seed]}/annotations/", body)

    def _collected(self, data: Path) -> int:
        database = Database(data)
        try:
            store = CorrectionStore(database)
            self._until(
                lambda: store.corrected_tasks() >= len(self.corrected),
                COLLECTED_S,
                lambda: f"{store.corrected_tasks()} tasks collected",
            )
            return len(store.for_training())
        finally:
            database.close()

    def _trained(self, url: str) -> dict[str, Any]:
        job: dict[str, Any] = {}

        def ended() -> bool:
            job.update((httpx.get(f"{url}/jobs?kind=finetune").json()["jobs"] or [{}])[0])
            return job.get("state") not in (None, "queued", "running")

        self._until(ended, TRAINED_S, lambda: f"{100 * job.get('progress', 0):.0f} %, {job.get('message')}")
        if job["state"] != "done":
            raise SvacError(f"The fine-tuning ended as {job['state']}: {job['error']}", str(job["hint"]))
        return {**job["result"], "message": job["message"]}

    def _version(self, client: LabelStudioClient, project: int, url: str) -> str:
        """Return the version that Label Studio is told by /setup, which must be that of /versions."""
        (state,) = client.list_ml_backends(project)
        told = httpx.get(f"{url}/versions").json()["versions"]
        if told != [state["model_version"]]:
            raise SvacError(f"/versions says {told}, Label Studio {state['model_version']}.", "A bug.")
        return str(told[0])

    def _until(self, condition: Callable[[], bool], seconds: float, where: Callable[[], str]) -> None:
        began = last = time.monotonic()
        while not condition():
            now = time.monotonic()
            if now - began > seconds:
                raise SvacError(f"It took more than {seconds:.0f} s: {where()}.", f"See {self.out / 'logs'}.")
            if now - last > 20:
                last = now
                self.say(f"  {now - began:.0f} s: {where()}")
            time.sleep(1.0)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self.say(f"{name} ...")
        began = time.monotonic()
        yield
        self.found.steps.append((name, time.monotonic() - began))
        self.say(f"{name}: {self.found.steps[-1][1]:.1f} s")


def _post(client: LabelStudioClient, path: str, body: Mapping[str, Any]) -> None:
    answer = httpx.post(f"{client.url}{path}", json=body, headers=client.authorization(), timeout=120)
    if not answer.is_success:
        raise SvacError(f"{path} was answered with {answer.status_code}.", answer.text[:500])


def _end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def table(found: LoopResult) -> Table:
    """Return steps and figures."""
    shown = Table(title=f"The learning loop in Label Studio, {torch.get_num_threads()} torch thread(s)")
    shown.add_column("")
    shown.add_column("", justify="right")
    for name, seconds in found.steps:
        shown.add_row(name, f"{seconds:.1f} s")
    shown.add_section()
    shown.add_row("J&F of unseen clips in Label Studio", " -> ".join(f"{value:.1f}" for value in found.shown))
    for name in found.measured[0]:
        shown.add_row(f"{name}, measured directly", " -> ".join(f"{row[name]:.1f}" for row in found.measured))
    shown.add_row("version", f"{found.old} -> {found.new}")
    shown.add_row("promoted", "yes" if found.promoted else "no")
    return shown
