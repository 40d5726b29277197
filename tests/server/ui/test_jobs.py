"""The pages of jobs."""

from __future__ import annotations

import re
import time

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event

from svac_backend.jobs.engine import JobState
from svac_backend.jobs.services import Services
from svac_backend.server.ui.frame import ROWS
from svac_backend.store.jobs import Work
from svac_backend.store.lanes import MODEL_LANE
from tests.server.bodies import predict_body, task
from tests.server.ui.forms import press


def test_what_waits_says_how_many_go_first(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task(7), task(8), task(9)))
    html = client.get("/ui/jobs").text
    assert "it is next" in html
    assert "1 job goes first" in html
    assert "2 jobs go first" in html


def test_what_runs_has_progress_and_can_be_stopped(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task()))
    job = backend.jobs.claim(MODEL_LANE, "worker")
    assert job is not None
    backend.jobs.report(job, 0.42, "frame 42 of 100")
    html = client.get("/ui/jobs?state=running").text
    assert 'value="42"' in html
    assert "frame 42 of 100" in html
    press(client, f"/ui/jobs/{job.id}/stop", on="/ui/jobs")
    assert backend.engine.get(job.id).cancel_requested
    assert "stopping" in client.get(f"/ui/jobs/{job.id}").text


def test_what_waits_to_retry_says_when_and_why_and_can_be_tried_now(
    client: FlaskClient, backend: Services
) -> None:
    client.post("/predict", json=predict_body(task()))
    job = backend.jobs.claim(MODEL_LANE, "worker")
    assert job is not None
    backend.jobs.put_off(job, "Label Studio is away.", "Start it.", 3600)
    html = client.get("/ui/jobs").text
    assert "waits to retry" in html
    assert re.search(r"try 2\s+in 59 minutes", html)
    assert "Label Studio is away." in html
    assert "Start it." in html
    press(client, f"/ui/jobs/{job.id}/retry", on="/ui/jobs")
    assert backend.engine.get(job.id).due is None


def test_what_failed_says_why_and_is_tried_again(client: FlaskClient, backend: Services) -> None:
    client.post("/predict", json=predict_body(task()))
    job = backend.jobs.claim(MODEL_LANE, "worker")
    assert job is not None
    backend.jobs.finish(job, JobState.FAILED, error="The video is damaged.", hint="Re-encode it.")
    html = client.get("/ui/jobs?state=failed").text
    assert "The video is damaged." in html
    assert "Re-encode it." in html
    answer = press(client, f"/ui/jobs/{job.id}/retry", on="/ui/jobs")
    again = backend.engine.get(answer.location.split("/")[-1].split("?")[0])
    assert (again.state, again.key) == (JobState.QUEUED, job.key)
    assert again.payload == job.payload


def test_all_jobs_or_those_of_a_project_are_cancelled_after_a_second_yes(
    client: FlaskClient, backend: Services
) -> None:
    client.post("/predict", json=predict_body(task(7), task(8)))
    runs = backend.jobs.claim(MODEL_LANE, "worker")
    assert runs is not None
    backend.engine.submit("prelabel", {"project_id": "39", "task_id": "1"}, "of another project")
    backend.engine.submit("retain", {}, "of no project")
    assert client.post("/ui/jobs/cancel", data={"sure": "yes"}).status_code == 403
    asked = press(client, "/ui/jobs/cancel", on="/ui/jobs")
    assert "Find objects: 1 running" in asked.text
    assert "Find objects: 2 waiting" in asked.text
    assert backend.jobs.counts()[JobState.CANCELLED] == 0, "the first press changes nothing"
    token = asked.text.split('name="token" value="')[1].split('"')[0]

    told = client.post("/ui/jobs/cancel", data={"token": token, "project": "38", "sure": "yes"})
    assert "2 jobs are cancelled" in client.get(told.location).text
    assert backend.engine.get(runs.id).cancel_requested
    left = {job.key for job in backend.engine.find(states=(JobState.QUEUED,))}
    assert left == {"of another project", "of no project"}
    client.post("/ui/jobs/cancel", data={"token": token, "project": "", "sure": "yes"})
    assert backend.engine.find(states=(JobState.QUEUED,)) == []
    assert "None waits or runs." not in press(client, "/ui/jobs/cancel", on="/ui/jobs").text, "one still runs"


def test_what_was_refused_cannot_be_tried_again(client: FlaskClient) -> None:
    client.post("/predict", json=predict_body(task(prompt="")))
    html = client.get("/ui/jobs").text
    assert "prompt is empty" in html
    assert "/retry" not in html


def test_live_parts_are_json_that_changes_only_with_what_it_shows(
    client: FlaskClient, backend: Services
) -> None:
    client.post("/predict", json=predict_body(task()))
    first = client.get("/ui/jobs?live=1").get_json()
    assert first["summary"] == "0 running, 1 waiting, 0 failed"
    assert first["html"].strip() in client.get("/ui/jobs").text
    time.sleep(1.1)
    assert client.get("/ui/jobs?live=1").get_json() == first
    backend.engine.cancel(backend.engine.find()[0].id)
    assert client.get("/ui/jobs?live=1").get_json() != first


def test_pages_follow_each_other_without_a_gap(client: FlaskClient, backend: Services) -> None:
    count = 2 * ROWS + 5
    backend.engine.submit_many([Work("prelabel", {}, f"key {number}") for number in range(count)])
    seen: list[str] = []
    path = "/ui/jobs"
    while path:
        html = client.get(path).text
        seen += re.findall(r'<h3 id="job-([0-9a-f]+)"', html)
        following = re.findall(r'href="(/ui/jobs\?from=[^"]+)" rel="next"', html)
        path = following[0] if following else ""
    assert len(seen) == count
    assert set(seen) == {job.id for job in backend.engine.find(limit=count + 1)}


@pytest.mark.parametrize("given", ["x", "nan_", "1e5_" + "a" * 65, "_"])
def test_an_address_of_a_page_that_is_none(client: FlaskClient, given: str) -> None:
    assert client.get(f"/ui/jobs?from={given}").status_code == 400


def test_many_jobs_cost_no_more_than_their_page(client: FlaskClient, backend: Services) -> None:
    """No statement reads all rows but the count of states, which reads an index."""
    from svac_backend.store.tables import JobRow

    rows = [
        {
            "id": f"{number:032x}",
            "kind": "prelabel",
            "lane": MODEL_LANE,
            "state": "queued" if number < 18_000 else "done",
            "key": f"k{number}",
            "payload": {"task_data": {}, "project_id": "38", "task_id": str(number)},
            "created": float(number),
        }
        for number in range(20_000)
    ]
    with backend.database.write() as session:
        session.execute(JobRow.__table__.insert(), rows)
    fetched = []

    @event.listens_for(backend.database.engine, "after_cursor_execute")
    def note(conn: object, cursor: object, statement: str, parameters: object, *_: object) -> None:
        fetched.append((statement, parameters))

    for path in ("/ui/jobs", "/ui/jobs?state=queued", "/ui/jobs?from=10000.0_x"):
        fetched.clear()
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.text.count("<article") == ROWS
        with backend.database.read() as session:
            connection = session.connection()
            for statement, parameters in fetched:
                if not statement.startswith("SELECT"):
                    continue
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                scans = [row[3] for row in plan if row[3] == "SCAN jobs"]
                assert scans == [], statement
    assert "more than 1000 jobs go first" in client.get("/ui/jobs?state=queued").text
