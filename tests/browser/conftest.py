"""A Chromium, a Label Studio, and an editor that is logged in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from svac_backend.labelstudio.local import LabelStudioServer
from tests.browser.editor import Editor
from tests.integration.label_studio import label_studio

__all__ = ["label_studio"]

OUTPUT = Path(__file__).resolve().parents[2] / "test-output" / "browser"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def chromium() -> str | None:
    """Return the path of a Chromium: that of the environment variable CHROMIUM, or one that is installed."""
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    return None


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.fail("no Chromium is installed: apt-get install chromium, or set CHROMIUM to one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, headless=True, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def editor(
    browser: Browser,
    label_studio: LabelStudioServer,
) -> Iterator[Editor]:
    """An editor that is logged in; the test fails at its end if the page threw or wrote an error."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    editor = Editor(context.new_page(), label_studio.url, OUTPUT)
    editor.log_in(label_studio.username, label_studio.password)
    yield editor
    context.close()
    assert editor.page_errors == []
    assert editor.console_errors == []
