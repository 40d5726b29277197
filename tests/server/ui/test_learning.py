"""The pages of training and of versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from svac_backend.jobs.services import Services
from svac_backend.learning.curves import drawn_curves, seconds_left
from svac_backend.learning.triggers import FINETUNE
from svac_backend.store.versions import BASE
from tests.jobs.conftest import SmallLabelStudio
from tests.server.ui.filled import add_training, add_version, end, write_run
from tests.server.ui.forms import press


def test_a_training_is_seen_while_it_runs_and_can_be_stopped(client: FlaskClient, backend: Services) -> None:
    job = add_training(backend, steps=40, of=180)
    told = client.get("/ui/training?live=1").get_json()
    assert told["summary"] == "running 30 %"
    assert "about 7 minutes more" in told["html"], "140 steps of 3 s"
    assert told["html"].count("<polyline") == 2
    press(client, f"/ui/jobs/{job.id}/stop", on="/ui/training")
    assert backend.engine.get(job.id).cancel_requested


def test_a_training_can_be_started(client: FlaskClient, backend: Services) -> None:
    answer = press(client, "/ui/training/start", on="/ui/training")
    assert [job.kind for job in backend.engine.find()] == [FINETUNE]
    assert "Fine-tuning starts." in client.get(answer.location).text


def test_the_report_is_shown_in_a_sandbox(client: FlaskClient, backend: Services) -> None:
    job = add_training(backend)
    assert client.get(f"/ui/training/{job.id}/report").status_code == 404
    end(backend, job)
    folder = backend.settings.data_dir / "training" / job.id / "out"
    (folder / "report.html").write_text("<style>b{}</style><script>alert(1)</script>")
    assert f"/ui/training/{job.id}/report" in client.get("/ui/training").text
    answer = client.get(f"/ui/training/{job.id}/report")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert "script-src" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["..", "%2e%2e", "../../etc", "x"])
def test_a_report_is_that_of_a_training(client: FlaskClient, backend: Services, name: str) -> None:
    write_run(backend, "x", steps=4, of=8, report="secret")
    assert client.get(f"/ui/training/{name}/report").status_code == 404


def test_versions_say_what_they_are(client: FlaskClient, backend: Services, tmp_path: Path) -> None:
    good = add_version(backend, tmp_path, "good", good=True)
    bad = add_version(backend, tmp_path, "bad", good=False)
    html = client.get("/ui/versions").text
    assert html.count(">serves<") == 1
    assert "did not pass the gate" in html
    assert "61.0 to 66.5" in html
    pair = client.get(f"/ui/versions?a={good.id}&b={bad.id}").text
    assert "Comparison" in pair
    assert "66.5" in pair
    assert client.get(f"/ui/versions?a={good.id}&b={BASE}").status_code == 200
    assert "Comparison" not in client.get("/ui/versions?a=x&b=y").text


def test_a_version_that_did_not_pass_needs_a_second_yes(
    client: FlaskClient, backend: Services, tmp_path: Path
) -> None:
    good = add_version(backend, tmp_path, "good", good=True)
    bad = add_version(backend, tmp_path, "bad", good=False)
    answer = press(client, f"/ui/versions/{bad.id}/promote", on="/ui/versions")
    assert answer.status_code == 200
    assert "did not pass the gate" in answer.text
    assert "Promote it all the same" in answer.text
    assert backend.registry.name() == good.name, "the first press changes nothing"
    token = answer.text.split('name="token" value="')[1].split('"')[0]
    sure = client.post(f"/ui/versions/{bad.id}/promote", data={"token": token, "sure": "yes"})
    assert sure.status_code == 303
    assert backend.registry.name() == bad.name


def test_projects_follow_and_the_page_says_so(
    client: FlaskClient, backend: Services, label_studio: SmallLabelStudio, tmp_path: Path
) -> None:
    version = add_version(backend, tmp_path, "kept", good=False)
    backend.connections.put("38", label_studio.url, "ab" * 20, "<View/>")
    label_studio.shown = backend.registry.base
    token = press(client, f"/ui/versions/{version.id}/promote", on="/ui/versions").text
    token = token.split('name="token" value="')[1].split('"')[0]
    sure = client.post(f"/ui/versions/{version.id}/promote", data={"token": token, "sure": "yes"})
    assert label_studio.shown == "SVAC"
    assert "Projects that show the newest from now on: 38." in client.get(sure.location).text


def test_roll_back_asks_first(client: FlaskClient, backend: Services, tmp_path: Path) -> None:
    good = add_version(backend, tmp_path, "good", good=True)
    answer = press(client, "/ui/versions/rollback", on="/ui/versions")
    assert "Roll back?" in answer.text
    assert backend.registry.name() == good.name
    token = answer.text.split('name="token" value="')[1].split('"')[0]
    client.post("/ui/versions/rollback", data={"token": token, "sure": "yes"})
    assert backend.registry.name() == backend.registry.base
    assert "/ui/versions/rollback" not in client.get("/ui/versions").text


def test_a_version_of_another_model_is_not_promoted(client: FlaskClient) -> None:
    client.get("/ui/versions")
    assert client.post("/ui/versions/x/promote").status_code == 403
    token = client.get("/ui/training").text.split('name="token" value="')[1].split('"')[0]
    assert client.post("/ui/versions/x/promote", data={"token": token, "sure": "yes"}).status_code == 404


def test_time_is_told_from_the_pace(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    assert seconds_left(path) is None
    path.write_text('{"step": 4, "of": 10, "seconds": 8.0, "loss": 1.0}\n{"step": 6, "of"')
    assert seconds_left(path) == 12.0
    assert drawn_curves(path) == [], "of a single line"
    path.write_text('{"step": 4, "seconds": 8.0}\n')
    assert seconds_left(path) is None, "of an earlier version"
