"""A page of another origin, in a real Chromium, posts to the backend of the person who visits it: nothing changes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from svac_backend.quickstart.processes import LOCAL, Process, choose_port, wait_until_up
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore, EventStore
from svac_backend.store.jobs import JobStore
from tests.browser.backend import COMMAND

FORGED = {
    "/setup": {"project": "38", "hostname": "http://evil.example", "access_token": "t", "schema": "<View/>"},
    "/webhook": {"action": "START_TRAINING", "project": {"id": 38}},
    "/webhook?": {
        "action": "ANNOTATION_CREATED",
        "project": {"id": 38},
        "task": {"id": 7},
        "annotation": {"id": 1},
    },
    "/predict": {
        "project": "38",
        "label_config": '<View><Video name="v" value="$video"/></View>',
        "tasks": [{"id": 7, "data": {"video": "/data/upload/v.mp4", "prompt": "the dog"}}],
    },
}

# All the ways in which a page can send a body without being asked, and the ways that ask first.
PAGE = """<!doctype html><title>a page</title><iframe name="hidden"></iframe><script>
const target = new URLSearchParams(location.search).get("target"), forged = FORGED;
async function attack() {
  const said = [];
  for (const [path, body] of Object.entries(forged)) {
    const text = JSON.stringify(body);
    const tries = [
      () => fetch(target + path, {method: "POST", mode: "no-cors", body: text}),
      () => fetch(target + path, {method: "POST", mode: "no-cors", body: new Blob([text])}),
      () => fetch(target + path, {method: "POST", body: text, headers: {"Content-Type": "application/json"}}),
      () => navigator.sendBeacon(target + path, new Blob([text], {type: "application/json"})),
      () => navigator.sendBeacon(target + path, text),
    ];
    for (const one of tries) { try { said.push(String((await one()).type)); } catch (error) { said.push(error.name); } }
    const form = document.createElement("form");
    form.method = "POST"; form.action = target + path; form.enctype = "text/plain"; form.target = "hidden";
    const field = document.createElement("input");
    field.name = text.slice(0, -1) + ', "x": "'; field.value = '"}';
    form.append(field); document.body.append(form); form.submit();
    await new Promise(resolve => setTimeout(resolve, 300));
  }
  try { said.push((await (await fetch(target + "/jobs")).text()).slice(0, 10)); }
  catch (error) { said.push(error.name); }
  return said;
}
</script>"""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """A web process without a password, as it is started by default."""
    port = choose_port(19_390)
    url = f"http://{LOCAL}:{port}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("SVAC_")}
    env |= {"SVAC_DATA_DIR": str(tmp_path / "data"), "SVAC_PORT": str(port)}
    process = Process("serve", [str(COMMAND), "serve"], tmp_path / "serve.log", env, tmp_path)
    wait_until_up(f"{url}/health", process, timeout=60)
    yield url
    process.stop()


@pytest.fixture
def page_url(tmp_path: Path) -> Iterator[str]:
    """A site of somebody else: another port is another origin."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text(PAGE.replace("FORGED", json.dumps(FORGED)))
    server = ThreadingHTTPServer((LOCAL, 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}/index.html"
    server.shutdown()
    server.server_close()


def state(folder: Path) -> tuple[int, int, bool]:
    """Return how many jobs and webhooks there are, and whether the project is known."""
    database = Database(folder)
    try:
        jobs, events = JobStore(database).find(), EventStore(database).find()
        return len(jobs), len(events), ConnectionStore(database).get("38") is not None
    finally:
        database.close()


def test_a_page_of_another_origin_changes_nothing(
    browser: Browser, target: str, page_url: str, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{page_url}?target={target}")
    said = page.evaluate("attack()")
    assert len(said) == 5 * len(FORGED) + 1
    assert said[-1] == "TypeError", "a page of another origin cannot read the jobs"
    page.wait_for_timeout(500)
    context.close()
    assert state(tmp_path / "data") == (0, 0, False)
    # The same bodies do their work when they come from elsewhere than a page.
    for path, body in FORGED.items():
        assert httpx.post(target + path, json=body, timeout=30).status_code < 300
    jobs, events, known = state(tmp_path / "data")
    assert (jobs > 0, events, known) == (True, 2, True)
