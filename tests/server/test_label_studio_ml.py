"""The adapter for label-studio-ml. Its current version is not on the package index, so its base class is a stand-in
with the same constructor, `set` and `label_config`; everything behind the adapter is real.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svac_backend.jobs.engine import JobState
from svac_backend.jobs.payloads import PrelabelPayload
from svac_backend.settings import Settings, get_settings
from tests.server.bodies import CONFIG, prediction, task

NAME = "svac_backend.server.label_studio_ml"


class LabelStudioMLBase:
    """What label_studio_ml.model.LabelStudioMLBase 2.x does before it calls the subclass."""

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        self.label_config = label_config
        self.values: dict[str, str] = {}
        self.setup()

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def setup(self) -> None:
        raise NotImplementedError


class ModelResponse:
    """label_studio_ml.response.ModelResponse is a pydantic model with these fields."""

    def __init__(self, predictions: list[Any], model_version: str | None = None) -> None:
        self.predictions = predictions
        self.model_version = model_version


@pytest.fixture
def adapter(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The adapter's module, imported over the stand-in, with the test's settings in the environment."""
    package, model, response = (
        types.ModuleType(f"label_studio_ml{part}") for part in ("", ".model", ".response")
    )
    model.LabelStudioMLBase = LabelStudioMLBase  # type: ignore[attr-defined]
    response.ModelResponse = ModelResponse  # type: ignore[attr-defined]
    for module in (package, model, response):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("SVAC_MODEL", settings.model)
    monkeypatch.setenv("SVAC_DATA_DIR", str(settings.data_dir))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    get_settings.cache_clear()
    yield importlib.import_module(NAME)
    sys.modules.pop(NAME, None)
    get_settings.cache_clear()


def test_predictions_come_from_the_same_jobs_and_cache(adapter: Any) -> None:
    model = adapter.SvacModel(project_id="38", label_config=CONFIG)
    backend = adapter._predictor().backend
    assert model.values == {"model_version": backend.model_version}

    assert model.predict([task(7), task(8, prompt="")]).predictions == [[], []]
    (job,) = backend.engine.find(states=(JobState.QUEUED,))
    payload = PrelabelPayload.from_json(job.payload)
    assert (payload.project_id, payload.task_id, payload.push) == ("38", "7", True)

    backend.predictions.put(prediction(payload, backend.model_version))
    backend.engine.cancel(job.id)
    # The base class makes a new instance for every request.
    ((item,), nothing) = (
        adapter.SvacModel(project_id="38", label_config=CONFIG).predict([task(7), task(9)]).predictions
    )
    assert nothing == []
    assert (item["score"], item["model_version"]) == (0.625, backend.model_version)
    assert [region["id"] for region in item["result"]] == ["obj1-f00000", "obj1-f00001"]


def test_events_are_recorded(adapter: Any) -> None:
    model = adapter.SvacModel(project_id="38", label_config=CONFIG)
    answer = model.fit("ANNOTATION_CREATED", {"annotation": {"id": 1}}, job_id="x")
    assert answer["message"] == "Recorded."
    backend = adapter._predictor().backend
    assert backend.engine.find() == []
    (event,) = backend.events.find()
    assert (event.action, event.project_id, event.body) == (
        "ANNOTATION_CREATED",
        "38",
        {"annotation": {"id": 1}},
    )


def test_start_training_queues_a_fine_tuning(adapter: Any) -> None:
    answer = adapter.SvacModel(project_id="38", label_config=CONFIG).fit("START_TRAINING", {}, job_id="x")
    (job,) = adapter._predictor().backend.engine.find()
    assert (job.kind, job.id, job.payload["project_id"]) == ("finetune", answer["job_id"], "38")


def test_without_label_studio_ml_the_import_says_what_to_do(tmp_path: Path) -> None:
    if importlib.util.find_spec("label_studio_ml") is not None:
        pytest.skip("label_studio_ml is installed here")
    with pytest.raises(ImportError, match="svac-backend serve"):
        importlib.import_module(NAME)
