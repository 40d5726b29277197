"""A Chromium, a Label Studio, and an editor that is logged in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.synthetic.scene import DEMO_SEEDS, SceneConfig
from tests.browser.annotating import Annotator
from tests.browser.backend import FPS, Clip, make_clip, running_backend
from tests.browser.pictures import OUTPUT
from tests.integration.label_studio import label_studio

__all__ = ["label_studio"]

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


@pytest.fixture(scope="session")
def backend(label_studio: LabelStudioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running backend with a worker, one for the whole session."""
    with running_backend(label_studio, tmp_path_factory.mktemp("backend"), OUTPUT) as url:
        yield url


@pytest.fixture(scope="session")
def clip(label_studio: LabelStudioServer) -> Clip:
    """60 frames with three objects of different colours."""
    config = SceneConfig(480, 270, 60, min_objects=3, max_objects=3, fps=FPS, noise=3.0, blur=0.0)
    return make_clip(label_studio, "correcting", DEMO_SEEDS.start + 102, config)


@pytest.fixture
def editor(
    browser: Browser,
    label_studio: LabelStudioServer,
) -> Iterator[Annotator]:
    """An editor that is logged in; the test fails at its end if the page threw or wrote an error."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    editor = Annotator(context.new_page(), label_studio.url, OUTPUT)
    editor.log_in(label_studio.username, label_studio.password)
    yield editor
    context.close()
    assert editor.page_errors == []
    assert editor.console_errors == []
