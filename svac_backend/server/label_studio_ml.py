"""An adapter for those who host the backend with `label-studio-ml start`: the same predictions, behind its base class.

    # model.py and _wsgi.py in the folder that label-studio-ml starts
    from svac_backend.server.label_studio_ml import SvacModel

`svac-backend worker` must run beside it, with the same settings. The current label-studio-ml (2.x) is not
on the package index, so its routes are our own in `server.protocol`, and this adapter is tested against a
stand-in of its base class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

try:
    from label_studio_ml.model import LabelStudioMLBase
    from label_studio_ml.response import ModelResponse
except ImportError as error:
    raise ImportError(
        "label-studio-ml 2.x is not installed. Use `svac-backend serve`, or install it from its repository: "
        "pip install git+https://github.com/HumanSignal/label-studio-ml-backend"
    ) from error

from svac_backend.jobs.services import Metrics, open_services
from svac_backend.server.predicting import Predictor
from svac_backend.server.protocol import START_TRAINING
from svac_backend.settings import get_settings


@lru_cache(maxsize=1)
def _predictor() -> Predictor:
    # label-studio-ml makes a new model object for every request; the state behind it must outlive that.
    backend = open_services(get_settings())
    return Predictor(backend, Metrics(backend))


class SvacModel(LabelStudioMLBase):
    """SVAC as label-studio-ml sees it: predictions from the cache or the worker."""

    def setup(self) -> None:
        """Set the model's version."""
        self.set("model_version", _predictor().backend.model_version)

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
    ) -> ModelResponse:
        """Return one list for each task: its prediction, or an empty list while the worker makes it."""
        answers = _predictor().predict(tasks, self.label_config, str(self.project_id), context)
        predictions = [
            []
            if answer is None
            else [
                {
                    "result": json.loads(answer.results),
                    "score": answer.score,
                    "model_version": answer.model_version,
                }
            ]
            for answer in answers
        ]
        return ModelResponse(predictions=predictions)

    def fit(self, event: str, data: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        """Record an event; the worker learns from annotations. Start Training queues a fine-tuning."""
        backend, project = _predictor().backend, str(self.project_id)
        number = backend.events.add(event, project, json.dumps(data).encode())
        if event != START_TRAINING:
            return {"event": number, "message": "Recorded."}
        asked = backend.trigger.request("Start Training was pressed in Label Studio", project)
        return {"event": number, "message": asked.message, "job_id": asked.job.id}
