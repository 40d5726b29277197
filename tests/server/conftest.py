"""The app over a real database and queue; no worker runs unless a test starts a thread that does its part."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from svac_backend.jobs.engine import LEASE_S, Job, JobState
from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload
from svac_backend.jobs.services import Services
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.lanes import MODEL_LANE
from tests.jobs.conftest import SmallLabelStudio, serve
from tests.server.bodies import prediction, propagated


class Worker:
    """Does what the worker does with jobs, with a square for a mask: also one job at a time, on a thread.

    Attributes:
        hold: while set, no job ends.
        done: payloads of the jobs done, in order.
    """

    def __init__(self, backend: Services) -> None:
        self.backend = backend
        self.hold = threading.Event()
        self.done: list[PrelabelPayload | PropagatePayload] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> Worker:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self.hold.clear()
        if self._thread.is_alive():
            self._thread.join()

    def do(self, job: Job) -> None:
        payload: PrelabelPayload | PropagatePayload
        if job.kind == "prelabel":
            payload = PrelabelPayload.from_json(job.payload)
            self.backend.predictions.put(prediction(payload, self.backend.model_version))
        else:
            payload = PropagatePayload.from_json(job.payload)
            self.backend.predictions.put(propagated(payload, self.backend.model_version))
        self.done.append(payload)

    def complete(self, job: Job) -> None:
        """Do a queued job from claim to end."""
        with self.backend.database.write() as session:  # it goes before any other
            session.execute(text("UPDATE jobs SET priority = 100 WHERE id = :id"), {"id": job.id})
        claimed = self.backend.jobs.claim(MODEL_LANE, "stand-in")
        assert claimed is not None
        assert claimed.id == job.id
        self.do(claimed)
        self.backend.jobs.finish(claimed, JobState.DONE)

    def _work(self) -> None:
        engine = self.backend.engine
        while not self._stop.is_set():
            job = engine.store.claim(MODEL_LANE, "stand-in")
            if job is None:
                self._stop.wait(0.02)
                continue
            while self.hold.is_set() and not self._stop.is_set():
                self._stop.wait(0.02)
            self.do(job)
            engine.store.finish(job, JobState.DONE)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "config.json").write_text(json.dumps({"preset": "standin"}))
    (weights / "model.safetensors").write_bytes(b"no weights, but they have a hash")
    return Settings(
        _env_file=None, model=str(weights), data_dir=tmp_path / "data", predict_wait_s=10, max_body_mb=1
    )


@pytest.fixture
def label_studio() -> Iterator[SmallLabelStudio]:
    yield from serve()


@pytest.fixture
def drafts(label_studio: SmallLabelStudio) -> list[dict[str, Any]]:
    """The task's drafts in Label Studio."""
    return label_studio.drafts


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Makes an app with some settings changed."""
    made: list[Flask] = []

    def app(**changes: Any) -> Flask:
        made.append(create_app(settings.model_copy(update=changes)))
        # Whether a worker lives is told by its sign of life alone; without one nobody would wait for an answer.
        made[-1].extensions["svac"].workers.beat("stand-in", device="none")
        return made[-1]

    yield app
    for one in made:
        one.extensions["svac"].database.close()


@pytest.fixture
def app(make: Callable[..., Flask]) -> Flask:
    return make()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def backend(app: Flask) -> Services:
    found: Services = app.extensions["svac"]
    return found


@pytest.fixture
def no_worker(backend: Services) -> None:
    """The worker that stands in for a real one has left."""
    for found in backend.workers.alive(LEASE_S):
        backend.workers.leave(found.id)


@pytest.fixture
def worker(backend: Services) -> Iterator[Worker]:
    worker = Worker(backend)
    yield worker
    worker.stop()
