"""An editor whose annotator asks the model: by a sentence, a click, a box, and to carry corrections on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.browser.editor import ANNOTATION, READY_MS, SUBMIT_MS, Editor

ACCEPTED = f"() => !window.Htx.awaitingSuggestions && {ANNOTATION}.suggestions.size === 0"


@dataclass(frozen=True)
class Asked:
    """One question to the model.

    Attributes:
        context: what the editor sent.
        answer: the regions that came back.
        answered_s: seconds until then.
        accepted_s: seconds from then on until the editor shows them.
    """

    context: list[dict[str, Any]]
    answer: list[dict[str, Any]]
    answered_s: float
    accepted_s: float


class Annotator(Editor):
    """An editor in which Auto-Annotation is used."""

    def auto_annotate(self) -> None:
        """Turn on Auto-Annotation and Auto-Accept Suggestions; the browser remembers both."""
        for name, state in (
            ("Auto-Annotation", "autoAnnotation"),
            ("Auto-Accept Suggestions", "autoAcceptSuggestions"),
        ):
            if not self.page.evaluate(f"() => window.Htx.{state}"):
                self.page.get_by_text(name, exact=True).first.click()
                self.page.wait_for_function(f"() => window.Htx.{state}", timeout=READY_MS)

    def ask(self, action: Callable[[], None]) -> Asked:
        """Do what makes the editor ask the model, and wait until its answer is accepted."""
        start = time.monotonic()
        with self.page.expect_response(
            lambda r: "interactive-annotating" in r.url, timeout=SUBMIT_MS
        ) as waiting:
            action()
        response = waiting.value
        answered = time.monotonic()
        assert response.ok, (
            f"the interactive call was answered with {response.status}: {response.text()[:500]}"
        )
        self.page.wait_for_function(ACCEPTED, timeout=SUBMIT_MS)
        data = response.json().get("data") or {}
        regions = data.get("result", []) if isinstance(data, dict) else []
        return Asked(
            json.loads(response.request.post_data or "{}")["context"]["result"],
            regions,
            answered - start,
            time.monotonic() - answered,
        )

    def type_prompt(self, text: str) -> Asked:
        """Type a sentence into the prompt's field."""
        self.press("Escape")  # an accepted mask takes the label of a selected region
        field = self.page.locator('[data-testid="textarea-input"]').first
        field.fill(text)
        return self.ask(lambda: field.press("Enter"))

    @contextmanager
    def held(self, *keys: str) -> Iterator[None]:
        """Hold keys down."""
        for key in keys:
            self.page.keyboard.down(key)
        try:
            yield
        finally:
            for key in keys:
                self.page.keyboard.up(key)

    def ask_by_click(self, label: str, x: float, y: float, *keys: str) -> Asked:
        """Click on the frame with a label by the documented keys; Ctrl makes it pass through a mask."""
        self.press("Escape", "v", "k", label)
        with self.held("Control", *keys):
            return self.ask(lambda: self.click_frame(x, y))

    def propagate(self, x: float, y: float) -> Asked:
        """Ask for propagation by a click anywhere on the frame."""
        return self.ask_by_click("g", x, y)

    def point(self, x: float, y: float, *, positive: bool = True) -> Asked:
        """Click on the object, or with Alt on what it is not."""
        return self.ask_by_click("y", x, y, *([] if positive else ["Alt"]))

    def draw_box(self, left: float, top: float, right: float, bottom: float) -> Asked:
        """Draw a box around an object by the documented keys."""
        self.press("Escape", "v", "r", "t")
        with self.held("Control"):
            return self.ask(lambda: self.drag([(left, top), (right, bottom)]))

    def remove(self, x: float, y: float) -> Asked:
        """Take the object under a pixel off all frames."""
        return self.ask_by_click("x", x, y)

    def notes(self) -> list[str]:
        """Return what the editor tells the annotator, below the prompt."""
        shown = [one["value"]["text"] for one in self.results() if one.get("from_name") == "notes"]
        return [text for texts in shown for text in texts]
