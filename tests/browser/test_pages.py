"""The pages in a real Chromium, on a desk and on a phone: while jobs run, and with all that a folder can hold.

axe-core looks for what keeps people out; the screenshots of test-output/browser/ are for people to look at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from svac_backend.jobs.services import Services, open_services
from svac_backend.labelstudio.local import LabelStudioServer
from svac_backend.quickstart.processes import LOCAL, Process, choose_port, wait_until_up
from svac_backend.settings import Settings
from svac_backend.synthetic.scene import DEMO_SEEDS, SceneConfig
from tests.browser.backend import COMMAND, FPS, ConnectedProject, connected_project, make_clip
from tests.browser.pictures import OUTPUT, for_docs
from tests.server.ui.filled import KEY, add_task, add_training, add_version

SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
}
JOBS = 50
USER, PASSWORD = "manager", "a password"


@pytest.fixture(params=SIZES)
def opened(request: pytest.FixtureRequest, browser: Browser) -> Iterator[tuple[str, Page]]:
    """A page of one size; what it wrote into the console fails the test."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    credentials = {"username": USER, "password": PASSWORD}
    context = browser.new_context(**SIZES[request.param], http_credentials=credentials)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield request.param, page
    context.close()
    assert said == []


def look(page: Page, name: str) -> None:
    """Check a page for what keeps people out, and keep a picture of it."""
    page.screenshot(path=OUTPUT / f"pages-{name}.png", full_page=True)
    page.evaluate("scrollTo(0, 0)")
    for_docs(f"pages-{name}", page.screenshot())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    found = Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["html"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def until(page: Page, true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait. Playwright's own way evaluates text within the page, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not true within {seconds:g} s"
        page.wait_for_timeout(100)


def figure(page: Page, name: str) -> int:
    return int(page.locator("#live .figures div", has_text=name).first.locator("dd").inner_text().split()[0])


@pytest.fixture(scope="module")
def busy(label_studio: LabelStudioServer, backend: str) -> tuple[ConnectedProject, list[int]]:
    """A project with 50 tasks, which the backend is asked to predict; they run while the tests look."""
    clip = make_clip(label_studio, "pages", DEMO_SEEDS.start + 102, SceneConfig(240, 136, 8, fps=FPS))
    project = connected_project(label_studio, backend, "brush")
    prompts = ["the star", "the cross", "the circle", "the square", "the ring"]
    tasks = [project.add_task(clip, prompts[number % len(prompts)]) for number in range(JOBS)]
    client = label_studio.client()
    body = {
        "project": f"{project.project}.1",
        "label_config": client.get_project(project.project)["label_config"],
        "tasks": [{"id": task, "data": client.get_task(task)["data"]} for task in tasks],
    }
    httpx.post(f"{backend}/predict", json=body, timeout=60).raise_for_status()
    return project, tasks


@pytest.mark.timeout(600)
def test_the_pages_while_jobs_run(
    opened: tuple[str, Page], backend: str, busy: tuple[ConnectedProject, list[int]]
) -> None:
    name, page = opened
    project, _ = busy
    page.goto(f"{backend}/ui/jobs")
    look(page, f"jobs-{name}")
    before = figure(page, "done")
    # Without a reload: the live part shows what has come.
    until(page, lambda: figure(page, "done") > before, 240)
    if figure(page, "waiting") > 0:
        waiting = page.get_by_role("link", name="waiting", exact=True)
        waiting.click()
        page.get_by_role("button", name="Cancel").last.click()
        assert page.get_by_role("status").first.inner_text() == "The job stops."
    page.goto(f"{backend}/ui/")
    page.get_by_role("link", name="correcting brush").or_(
        page.get_by_role("link", name=f"Project {project.project}")
    ).last.wait_for()
    look(page, f"projects-{name}")
    page.goto(f"{backend}/ui/projects/{project.project}")
    look(page, f"project-{name}")
    # What was done may have been of another project: its list fills when its own first job is.
    for _ in range(24):
        if page.locator(".rows a").count():
            break
        page.wait_for_timeout(5000)
        page.reload()
    page.locator(".rows a").first.click()
    page.locator(".player canvas").wait_for()
    look(page, f"task-{name}")
    assert page.locator("text=Open in Label Studio").get_attribute("href")


def test_what_is_left_can_be_cancelled(backend: str, busy: tuple[ConnectedProject, list[int]]) -> None:
    """Also leaves the worker free for the tests after these."""
    with httpx.Client(base_url=backend, timeout=30) as http:
        for job in http.get("/jobs?state=queued&kind=prelabel&limit=1000").json()["jobs"]:
            assert http.post(f"/jobs/{job['id']}/cancel").json()["state"] in ("cancelled", "running", "done")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Services]]:
    """The web process, with a password, over a folder that holds a bit of everything."""
    folder, port = tmp_path_factory.mktemp("pages"), choose_port(19_490)
    url = f"http://{LOCAL}:{port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("SVAC_")}
    env |= {"SVAC_DATA_DIR": str(folder / "data"), "SVAC_PORT": str(port), "SVAC_MEDIA_URL": url}
    env |= {"SVAC_BASIC_AUTH_USER": USER, "SVAC_BASIC_AUTH_PASSWORD": PASSWORD}
    services = open_services(Settings(_env_file=None, data_dir=folder / "data", media_url=url))
    add_task(services)
    add_training(services)
    add_version(services, folder, "good", good=True)
    add_version(services, folder, "bad", good=False)
    process = Process("serve", [str(COMMAND), "serve"], folder / "serve.log", env, folder)
    # What /ready asks for, which needs no password.
    services.workers.beat("here", device="cpu", model_version=services.model_version)
    wait_until_up(f"{url}/ready", process, timeout=90)
    yield url, services
    process.stop()
    services.database.close()


def test_the_pages_of_a_folder_with_everything(
    opened: tuple[str, Page], filled: tuple[str, Services]
) -> None:
    name, page = opened
    url, services = filled
    a, b = (one.id for one in services.registry.store.all())
    for path in ("training", f"versions?a={a}&b={b}", "health", "projects/38/tasks/7"):
        page.goto(f"{url}/ui/{path}")
        if "tasks" in path:
            page.locator(".player canvas").wait_for()
            for picture in page.locator(".triple img").all():
                picture.scroll_into_view_if_needed()
            loaded = "[...document.images].every(one => one.complete && one.naturalWidth > 0)"
            until(page, partial(page.evaluate, loaded))
        look(page, f"filled-{path.split('?')[0].split('/')[0]}-{name}")


def test_masks_play_by_keyboard_and_few_pictures_are_held(
    opened: tuple[str, Page], filled: tuple[str, Services]
) -> None:
    _, page = opened
    url, _ = filled
    page.goto(f"{url}/ui/projects/38/tasks/7?frame=0")
    page.locator(".player canvas").wait_for()
    said = page.locator(".player output")
    assert said.inner_text() == "frame 0, 1 of 24"
    still = page.locator(".player canvas").screenshot()
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press("Enter")
    until(page, lambda: said.inner_text().endswith("24 of 24"), 60)
    assert page.locator(".player canvas").screenshot() != still
    page.get_by_role("slider", name="frame").focus()
    page.keyboard.press("Home")
    until(page, lambda: said.inner_text().startswith("frame 0,"))
    page.get_by_role("button", name="Hide masks").click()
    page.wait_for_timeout(300)
    assert page.locator(".player canvas").screenshot() != still
    page.locator("[data-go]").first.click()
    until(page, lambda: not said.inner_text().startswith("frame 0,"))


def test_a_failed_gate_warns_and_needs_a_second_yes(browser: Browser, filled: tuple[str, Services]) -> None:
    """Without scripts, too: all that changes something is a form."""
    url, services = filled
    bad = services.registry.store.all()[0]
    before = services.registry.name()
    context = browser.new_context(
        java_script_enabled=False, http_credentials={"username": USER, "password": PASSWORD}
    )
    page = context.new_page()
    page.goto(f"{url}/ui/versions")
    page.get_by_role("button", name=f"Promote ... {bad.id}").click()
    page.get_by_text("did not pass the gate").wait_for()
    assert services.registry.name() == before
    page.get_by_role("button", name="Promote it all the same").click()
    page.get_by_text("serves from now on").wait_for()
    assert services.registry.name() == bad.name
    page.get_by_role("button", name="Roll back ...").click()
    page.get_by_role("button", name="Roll back", exact=True).click()
    page.get_by_text("serves again").wait_for()
    assert services.registry.name() == before
    context.close()


def test_without_the_password_nothing_is_seen(browser: Browser, filled: tuple[str, Services]) -> None:
    url, _ = filled
    context = browser.new_context()
    page = context.new_page()
    for path in ("", "jobs", "projects/38/tasks/7", "projects/38/tasks/7/frames/0.jpg", f"masks/{KEY}/0.png"):
        answer: Any = page.request.get(f"{url}/ui/{path}")
        assert answer.status == 401
        assert "object" not in answer.text()
    context.close()
