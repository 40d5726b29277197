"""The page of health and storage."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from svac_backend.jobs.services import Services
from tests.server.bodies import predict_body, task


@pytest.mark.usefixtures("no_worker")
def test_health_says_what_ready_says(client: FlaskClient, backend: Services) -> None:
    html = client.get("/ui/health").text
    assert "not ready" in html
    assert "No worker is running" in html
    backend.workers.beat("host:1", device="cpu", model_version=backend.model_version)
    html = client.get("/ui/health").text
    assert "New tasks get masks." in html
    assert "on cpu" in html
    assert client.get("/ui/health?live=1").get_json()["summary"] == "ready"


def test_storage_says_what_takes_the_room_and_how_long_it_is_kept(client: FlaskClient) -> None:
    client.post("/predict", json=predict_body(task()))
    html = client.get("/ui/health").text
    for words in ("predictions", "7 days after their task", "30 days", "for good", "50 GB"):
        assert words in html
