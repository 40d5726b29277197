"""Drives Label Studio's editor as an annotator does: log in, open a task, turn the frames, look, submit."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from tests.browser.pictures import for_docs

READY_MS = 60_000
# A brush mask costs 0.1 s and more to serialise, all of them in one go.
SUBMIT_MS = 120_000

# What is already known not to be ours: Label Studio's own pages ask for these in vain.
HARMLESS_CONSOLE = ("favicon", "Failed to load resource", "net::ERR_", "Download the React DevTools")

ANNOTATION = "window.Htx.annotationStore.selected"
IMAGE = f"{ANNOTATION}.objects.find(o => o.type === 'image')"
SHOWS = f"i => {{ const image = {IMAGE}; return image && image.currentImage === i && image.imageIsLoaded; }}"
# The picture below the canvases, with what its ancestors clip. They are made anew while a task loads, so all is
# looked up and measured in one go.
STAGE = f"""() => {{
    const image = {IMAGE}, picture = document.querySelector('.lsf-image img');
    if (!image || !picture) return null;
    picture.scrollIntoView({{block: 'nearest'}});
    const box = picture.getBoundingClientRect();
    let right = box.right, bottom = box.bottom;
    for (let outer = picture.parentElement; outer; outer = outer.parentElement) {{
        if (getComputedStyle(outer).overflow === 'visible') continue;
        const edge = outer.getBoundingClientRect();
        right = Math.min(right, edge.right);
        bottom = Math.min(bottom, edge.bottom);
    }}
    return {{x: box.x, y: box.y, width: box.width, height: box.height, zoom: image.zoomScale,
             cut: Math.max(box.right - right, box.bottom - bottom)}};
}}"""


class Editor:
    """One browser page with Label Studio's editor in it.

    Attributes:
        page: Playwright's page.
        page_errors: exceptions that no script caught, in order.
        console_errors: what the page wrote as an error, without what is known to be harmless.
    """

    def __init__(self, page: Page, url: str, output: Path) -> None:
        """
        Args:
            page: a fresh page.
            url: Label Studio's address.
            output: folder that screenshots are written to.
        """
        self.page = page
        self.url = url.rstrip("/")
        self.output = output
        self.page_errors: list[str] = []
        self.console_errors: list[str] = []
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        page.on("console", self._on_console)

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and not any(part in message.text for part in HARMLESS_CONSOLE):
            self.console_errors.append(message.text)

    def log_in(self, email: str, password: str) -> None:
        """Log in on Label Studio's own page."""
        self.page.goto(f"{self.url}/user/login/")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/login" not in url, timeout=READY_MS)

    def open_task(self, project: int, task: int) -> None:
        """Open a task in the Data Manager and wait until its first frame is drawn."""
        self.page.goto(f"{self.url}/projects/{project}/data?task={task}")
        self.page.wait_for_function(
            "() => window.Htx && window.Htx.annotationStore && window.Htx.annotationStore.selected",
            timeout=READY_MS,
        )
        self.wait_for_frame(0)

    def wait_for_frame(self, index: int) -> None:
        """Wait until the frame with this 0-based index is loaded and drawn."""
        self.page.wait_for_function(SHOWS, arg=index, timeout=READY_MS)
        self.stage()
        # Two animation frames: the canvas is painted after the state has changed.
        self.page.evaluate("() => new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")

    @property
    def frame(self) -> int:
        """The 0-based index of the frame that is shown."""
        return cast(int, self.page.evaluate(f"() => {IMAGE}.currentImage"))

    def go_to_frame(self, index: int) -> None:
        """Turn frame by frame with the arrows below the picture, as an annotator does."""
        while (shown := self.frame) != index:
            # The outer two of the four arrows go to the first and the last frame.
            if index > shown:
                to, arrow = shown + 1, self.page.locator(".lsf-pagination__btn_arrow-right").first
            else:
                to, arrow = shown - 1, self.page.locator(".lsf-pagination__btn_arrow-left").last
            arrow.click()
            self.page.wait_for_function(SHOWS, arg=to, timeout=READY_MS)
        self.wait_for_frame(index)

    def regions(self) -> list[dict[str, Any]]:
        """Return id, type and `item_index` of every region of the open annotation."""
        script = (
            "() => window.Htx.annotationStore.selected.regions.map("
            "r => ({id: r.cleanId, type: r.type, item_index: r.item_index}))"
        )
        return cast(list[dict[str, Any]], self.page.evaluate(script))

    def screenshot(self, name: str) -> Path:
        """Save what is seen as `<name>.png`, and for the manual, see `pictures`."""
        path = self.output / f"{name}.png"
        for_docs(name, self.page.screenshot(path=path))
        return path

    def stage(self) -> dict[str, float]:
        """Return where the frame lies on the page, once it is at rest.

        Returns:
            x, y, width, height in CSS pixels; `zoom`, 1 when the frame fits; `cut`, how many pixels of it the page
            cuts off at its right or bottom edge.
        """
        last: dict[str, float] | None = None
        for _ in range(60):
            now = cast(dict[str, float] | None, self.page.evaluate(STAGE))
            if now is not None and now == last:
                return now
            last = now
            self.page.wait_for_timeout(250)
        raise AssertionError("the editor's layout does not come to rest")

    def frame_picture(self, width: int, height: int) -> NDArray[np.uint8]:
        """Return the frame as it is seen, masks and all: u8 [height, width, 3], scaled to this size."""
        stage = self.stage()
        clip = {name: stage[name] for name in ("x", "y", "width", "height")}
        shot = Image.open(io.BytesIO(self.page.screenshot(clip=cast(Any, clip)))).convert("RGB")
        return np.asarray(shot.resize((width, height), Image.Resampling.BILINEAR))

    # What an annotator does to regions

    def to_page(self, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """Return where pixels of the frame lie on the page."""
        stage, size = self.stage(), self.page.evaluate(f"() => [{IMAGE}.naturalWidth, {IMAGE}.naturalHeight]")
        scale = stage["width"] / size[0], stage["height"] / size[1]
        return [(stage["x"] + (x + 0.5) * scale[0], stage["y"] + (y + 0.5) * scale[1]) for x, y in points]

    def press(self, *keys: str) -> None:
        """Press hotkeys one by one; the editor ignores them while a text field or a switch has the focus."""
        self.page.bring_to_front()  # of several pages only the one in front hears keys
        self.page.evaluate("() => document.activeElement && document.activeElement.blur()")
        for key in keys:
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(150)

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Press the mouse on the first of these pixels of the frame, move over the others, and let go."""
        first, *others = self.to_page(points)
        mouse = self.page.mouse
        mouse.move(*first)
        mouse.down()
        for point in others:
            mouse.move(*point, steps=4)
        mouse.up()
        self.page.wait_for_timeout(100)

    def click_frame(self, x: float, y: float) -> None:
        """Click on a pixel of the frame."""
        ((page_x, page_y),) = self.to_page([(x, y)])
        self.page.mouse.click(page_x, page_y)

    def select(self, x: float, y: float, *, keys: Sequence[str] = ("Escape", "v")) -> str:
        """Select the region at a pixel of the frame, and return its id."""
        self.press(*keys)
        self.click_frame(x, y)
        self.page.wait_for_function(f"() => {ANNOTATION}.selectedRegions.length === 1", timeout=READY_MS)
        return cast(str, self.page.evaluate(f"() => {ANNOTATION}.selectedRegions[0].cleanId"))

    def results(self) -> list[dict[str, Any]]:
        """Return the annotation as it would be submitted now."""
        return cast(list[dict[str, Any]], self.page.evaluate(f"() => {ANNOTATION}.serializeAnnotation()"))

    def submit(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Press Submit.

        Returns:
            What the browser sent, and the annotation that Label Studio answered with.
        """
        is_annotation = lambda r: r.request.method == "POST" and "/annotations" in r.url  # noqa: E731
        with self.page.expect_response(is_annotation, timeout=SUBMIT_MS) as waiting:
            self.page.locator('button:has-text("Submit")').first.click()
        response = waiting.value
        assert response.ok, f"Submit was answered with {response.status}: {response.text()[:500]}"
        return json.loads(response.request.post_data or "{}"), response.json()
