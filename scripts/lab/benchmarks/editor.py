"""The annotator's loop on a long clip: how long each step takes, and how long it blocks the editor.

A real Label Studio, the backend with the embedded model, and Chromium. What blocks is measured in the page itself: the
longest time between two animation frames, in which no click and no key would have been answered.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from rich.table import Table

from lab.label_studio import retrieve_predictions
from svac_backend.errors import SvacError
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.synthetic.scene import DEMO_SEEDS, SceneConfig

# The helpers that drive the editor are those of the browser tests.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.browser.annotating import Annotator
from tests.browser.backend import FPS, connected_project, make_clip, running_backend
from tests.browser.conftest import ARGUMENTS, chromium
from tests.browser.correcting import inside, on_frame, region_mask

WATCH = """() => {
    window.longestGap = 0;
    let last = performance.now();
    const tick = now => {
        window.longestGap = Math.max(window.longestGap, now - last);
        last = now;
        requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
}"""
CORRECTED = 5
PREDICTED_S = 600.0


@dataclass
class Step:
    """One step of the loop: what, its seconds, and the longest time in which the editor did not answer."""

    name: str
    seconds: float
    blocked: float
    note: str = ""


def run(*, kind: str, frames: int, width: int, height: int, screenshots: Path | None = None) -> list[Step]:
    """Run the loop once.

    Args:
        kind: `polygon` or `brush`.
        frames: length of the clip.
        width, height: size of its frames in pixels.
        screenshots: folder for pictures of each step.

    Raises:
        SvacError: there is no Chromium or no Label Studio, or the model found nothing.
    """
    executable = chromium()
    if executable is None:
        raise SvacError("No Chromium is installed.", "Install one, or set CHROMIUM to its command.")
    config = SceneConfig(width, height, frames, min_objects=3, max_objects=3, fps=FPS, noise=3.0, blur=0.0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="svac-editor-")))
        label_studio = stack.enter_context(LabelStudioServer(folder / "label-studio"))
        backend = stack.enter_context(running_backend(label_studio, folder / "backend", folder))
        clip = make_clip(label_studio, "long", DEMO_SEEDS.start + 102, config)
        project = connected_project(label_studio, backend, kind, prelabelled=True)
        task = project.add_task(clip, clip.prompts[0])
        client = label_studio.client()
        started = time.monotonic()
        retrieve_predictions(client, project.project)
        while not client.list_predictions(task):
            if time.monotonic() - started > PREDICTED_S:
                raise SvacError("No prediction came.", (folder / "worker.log").read_text()[-2000:])
            time.sleep(0.5)
        steps = [Step("pre-label (in the background)", time.monotonic() - started, 0.0)]

        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS)
        stack.callback(browser.close)
        output = screenshots or folder
        output.mkdir(parents=True, exist_ok=True)
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        page.add_init_script(f"({WATCH})()")
        editor = Annotator(page, label_studio.url, output)
        editor.log_in(label_studio.username, label_studio.password)
        steps += _loop(editor, project.project, task, kind)
    return steps


def _loop(editor: Annotator, project: int, task: int, kind: str) -> list[Step]:
    page = editor.page
    steps: list[Step] = []

    @contextmanager
    def step(name: str) -> Iterator[Step]:
        page.evaluate("() => { window.longestGap = 0; }")
        entry = Step(name, time.monotonic(), 0.0)
        yield entry
        entry.seconds = time.monotonic() - entry.seconds
        entry.blocked = page.evaluate("() => window.longestGap") / 1000
        steps.append(entry)
        editor.screenshot(f"long_{kind}_{len(steps)}")

    with step("open the task") as opened:
        editor.open_task(project, task)
    regions = editor.regions()
    opened.note = f"{len(regions)} regions"
    editor.auto_annotate()
    with step(f"turn {CORRECTED} frames"):
        editor.go_to_frame(CORRECTED)
    with step("one correction"):
        _correct(editor, kind)
    with step("propagate") as propagated:
        asked = editor.propagate(5, 5)
    waited = f"answered after {asked.answered_s:.1f} s, shown {asked.accepted_s:.1f} s later"
    propagated.note = f"{len(asked.answer)} suggestions, {waited}"
    with step("submit") as submitted:
        sent, _ = editor.submit()
    submitted.note = f"{len(sent['result'])} regions"
    return steps


def _correct(editor: Annotator, kind: str) -> None:
    """Drag a vertex, or erase a stroke."""
    regions = on_frame(editor.results(), CORRECTED)
    largest = max(regions, key=lambda region: int(region_mask(region).sum()))
    x, y = inside(region_mask(largest))
    if kind == "brush":
        editor.select(x, y)
        editor.press("e")
        editor.drag([(x, y), (x + 20, y)])
        return
    editor.select(x, y, keys=("Escape",))
    size = np.array([largest["original_width"], largest["original_height"]])
    points = np.array(largest["value"]["points"]) * size / 100
    vertex = points[np.argmax(np.linalg.norm(points - (x, y), axis=1))]
    towards = vertex + (np.array([x, y]) - vertex) / 2
    editor.drag([(vertex[0] - 0.5, vertex[1] - 0.5), (towards[0] - 0.5, towards[1] - 0.5)])


def table(steps: list[Step], title: str) -> Table:
    """Return the steps as a table."""
    shown = Table(title=title)
    for column in ("step", "seconds", "editor blocked, seconds", ""):
        shown.add_column(column, justify="right" if "seconds" in column else "left")
    for step in steps:
        shown.add_row(step.name, f"{step.seconds:.1f}", f"{step.blocked:.2f}", step.note)
    return shown
