"""The annotator's loop on a long clip: how long each step takes and blocks the editor, and what a hand has to do.

A real Label Studio, the backend with the embedded model, and Chromium. What blocks is measured in the page itself: the
longest time between two animation frames, in which no click and no key would have been answered. Keys and clicks are
counted there, too; a sentence counts as the two keys before and after it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from rich.table import Table

from lab.label_studio import retrieve_predictions
from svac_backend.errors import SvacError
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.synthetic.scene import DEMO_SEEDS, SceneConfig

# The helpers that drive the editor are those of the browser tests.
sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.browser.annotating import Annotator, Asked
from tests.browser.backend import FPS, connected_project, make_clip, running_backend
from tests.browser.conftest import ARGUMENTS, chromium
from tests.browser.correcting import inside, on_frame, region_mask

WATCH = """() => {
    window.longestGap = window.keysPressed = window.clicksMade = 0;
    addEventListener('keydown', () => { window.keysPressed += 1; }, true);
    addEventListener('mousedown', () => { window.clicksMade += 1; }, true);
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
    """One step of the loop: what, its seconds, the longest time in which the editor did not answer, what a hand did."""

    name: str
    seconds: float
    blocked: float
    note: str = ""
    keys: int = 0
    clicks: int = 0


def run(
    *, kind: str, frames: int, objects: int, width: int, height: int, screenshots: Path | None = None
) -> list[Step]:
    """Run the loop once.

    Args:
        kind: `polygon` or `brush`.
        frames: length of the clip.
        objects: 1 to 3; the last of several is asked for in the editor, and taken away again at the end.
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
        before = clip.prompts[: max(1, objects - 1)]
        task = project.add_task(clip, "\n".join(before))
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
        steps += _loop(editor, project.project, task, kind, clip.prompts[len(before) : objects])
    return steps


def _loop(editor: Annotator, project: int, task: int, kind: str, asked_for: list[str]) -> list[Step]:
    page = editor.page
    steps: list[Step] = []

    @contextmanager
    def step(name: str) -> Iterator[Step]:
        page.evaluate("() => { window.longestGap = window.keysPressed = window.clicksMade = 0; }")
        entry = Step(name, time.monotonic(), 0.0)
        yield entry
        entry.seconds = time.monotonic() - entry.seconds
        gap, entry.keys, entry.clicks = page.evaluate("() => [longestGap, keysPressed, clicksMade]")
        entry.blocked = gap / 1000
        steps.append(entry)
        editor.screenshot(f"long_{kind}_{len(steps)}")

    with step("open the task") as opened:
        editor.open_task(project, task)
    regions = editor.regions()
    opened.note = f"{len(regions)} regions"
    editor.auto_annotate()
    found: list[dict[str, Any]] = []
    for sentence in asked_for:
        with step("a sentence") as typed:
            asked = editor.type_prompt(sentence)
        found = [region for region in asked.answer if region.get("item_index") == CORRECTED]
        typed.note = f"{len(asked.answer)} suggestions, {_waited(asked)}"
    with step(f"turn {CORRECTED} frames"):
        editor.go_to_frame(CORRECTED)
    with step("one correction"):
        _correct(editor, kind)
    with step("propagate") as propagated:
        asked = editor.propagate(5, 5)
    propagated.note = f"{len(asked.answer)} suggestions, {_waited(asked)}"
    if found:
        with step("remove an object") as removed:
            asked = editor.remove(*inside(region_mask(found[0])))
        removed.note = f"{len(asked.answer)} regions, {_waited(asked)}"
    with step("submit") as submitted:
        sent, _ = editor.submit()
    submitted.note = f"{len(sent['result'])} regions"
    return steps


def _waited(asked: Asked) -> str:
    return f"answered after {asked.answered_s:.1f} s, shown {asked.accepted_s:.1f} s later"


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
    for column in ("step", "seconds", "editor blocked, seconds", "keys", "clicks", ""):
        shown.add_column(column, justify="left" if column in ("step", "") else "right")
    for step in steps:
        hand = str(step.keys), str(step.clicks)
        shown.add_row(step.name, f"{step.seconds:.1f}", f"{step.blocked:.2f}", *hand, step.note)
    return shown
