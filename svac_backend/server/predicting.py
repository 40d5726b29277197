"""What /predict answers: the cache, a result waited for, or nothing yet and a job that pushes it later."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import BATCH, INTERACTIVE, JobState, Work
from svac_backend.jobs.frame_places import frames_way
from svac_backend.jobs.payloads import (
    FRAMES,
    PRELABEL,
    FramesPayload,
    PrelabelPayload,
    label_studio_name,
)
from svac_backend.jobs.rendering import cached_config, rendered
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.server.backend import Backend
from svac_backend.server.metrics import Metrics
from svac_backend.store.database import StoreError

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A task's prediction: `results` is Label Studio's `result` as JSON text."""

    results: bytes
    score: float
    model_version: str

    def to_json_text(self) -> bytes:
        """Return the item of the reply. Results may be megabytes: they are not parsed to be written again."""
        rest = json.dumps({"score": round(self.score, 4), "model_version": self.model_version}).encode()
        return b'{"result":' + self.results + b"," + rest[1:]


class Predictor:
    """Answers predictions for one web process.

    A task that cannot be predicted (its prompt is empty, the config can't show masks, ...) is answered with
    nothing, like one that is queued: Label Studio shows a success whatever we answer, and an error would take
    the other tasks of the call with it. The reason is logged, and stands in the job list as a failed job.

    Args:
        backend: state and engine.
        metrics: where the outcomes are counted.
    """

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self.backend = backend
        self.metrics = metrics
        # An interactive call holds a thread while it waits: the others must stay free for webhooks.
        self._waiters = threading.BoundedSemaphore(max(1, backend.settings.server_threads // 2))

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        label_config: str,
        project_id: str,
        context: Mapping[str, Any] | None = None,
    ) -> list[Answer | None]:
        """Return one answer for each task, in order; None where there is nothing yet, or never will be.

        Args:
            tasks: Label Studio's tasks, `id` and `data` of each are used.
            label_config: the project's labelling config.
            project_id: the project's id.
            context: `params.context`; with a `result` the call is interactive, and may wait.

        Raises:
            SvacError: there is no model.
        """
        version = self.backend.model_version
        connection = self.backend.connections.get(project_id)
        hostname = label_studio_name(self.backend.settings, connection)
        if context is not None and not context.get("result"):
            context = None
        deadline = time.monotonic() + self.backend.settings.predict_wait_s
        calls = [
            _Call(
                project_id,
                "" if task.get("id") is None else str(task["id"])[:32],
                hostname,
                version,
                context,
                deadline,
            )
            for task in tasks
        ]
        works: list[Work] = []
        wishes = [
            self._or_reject(call, partial(self._wish, task, label_config, call, works))
            for task, call in zip(tasks, calls, strict=True)
        ]
        # Asked and stored for all tasks at once: Label Studio sends every task that is selected in one call.
        asked = [wish for wish in wishes if wish is not None]
        active = self.backend.engine.active_keys([wish.job_key(version) for wish in asked if wish.push])
        known = self.backend.predictions.known([wish.cache_key(version) for wish in asked])
        answers = [
            None
            if wish is None
            else self._or_reject(call, partial(self._answer, wish, call, active, known, works))
            for wish, call in zip(wishes, calls, strict=True)
        ]
        self.backend.engine.submit_many(works)
        return answers

    def _or_reject(self, call: _Call, work: Callable[[], T | None]) -> T | None:
        """Do a part of one task's work; when it fails, the reason is recorded and the other tasks go on."""
        try:
            return work()
        except StoreError:
            raise  # it could not be recorded either
        except SvacError as error:
            self._reject(call, error.message, error.hint)
        except Exception as error:
            log.exception("task %s of project %s failed unexpectedly", call.task_id, call.project_id)
            self._reject(
                call,
                f"Unexpected error ({type(error).__name__}).",
                "The web process's log has the full report.",
            )
        return None

    def _wish(
        self, task: Mapping[str, Any], label_config: str, call: _Call, works: list[Work]
    ) -> PrelabelPayload:
        """Return what a task asks for; `works` gets the job that cuts its frames, if it has none."""
        settings = self.backend.settings
        if not call.task_id:
            raise SvacError("The task has no id.", "Send tasks as Label Studio does.")
        data = task.get("data")
        if not isinstance(data, dict):
            raise SvacError("The task has no data.", "Send tasks as Label Studio does.")
        config = cached_config(label_config)
        if call.context is not None:
            _check_context(call.context)
        prompts = task_prompts(data, config, call.context, max_chars=settings.max_prompt_chars)
        payload = PrelabelPayload(
            project_id=call.project_id,
            task_id=call.task_id,
            task_data=data,
            prompts=tuple(prompts),
            label_config=label_config,
            hostname=call.hostname,
            video_url=_video_url(data, config),
            push=call.context is None,
        )
        self._order_frames(payload, config, works)
        return payload

    def _answer(
        self, payload: PrelabelPayload, call: _Call, active: set[str], known: set[str], works: list[Work]
    ) -> Answer | None:
        """Return what is there, or wait for it, or add a job to `works`.

        A prediction that a job is about to push is not answered although it may be in the cache already: Label
        Studio would store our answer, and then have it twice.
        """
        key = payload.job_key(call.version)
        if payload.push and key in active:
            self.metrics.predictions.labels("queued").inc()
            return None
        answer = self._cached(payload, call.version) if payload.cache_key(call.version) in known else None
        if answer is not None:
            self.metrics.predictions.labels("cached").inc()
            return answer
        if call.context is None:
            works.append(Work(PRELABEL, payload.to_json(), key, BATCH))
            self.metrics.predictions.labels("queued").inc()
            return None
        return self._wait(payload, call)

    def _wait(self, payload: PrelabelPayload, call: _Call) -> Answer | None:
        """Give an interactive job its time; when that is not enough, a second job pushes what it makes."""
        job_id = self._submit(payload, call.version, INTERACTIVE)
        if self._waiters.acquire(blocking=False):
            try:
                job = self.backend.engine.wait(job_id, max(0.0, call.deadline - time.monotonic()))
            finally:
                self._waiters.release()
        else:
            log.warning(
                "too many interactive calls wait already; task %s gets its result pushed", call.task_id
            )
            job = self.backend.engine.get(job_id)
        if job.state is JobState.DONE:
            answer = self._cached(payload, call.version)
            if answer is not None:
                self.metrics.predictions.labels("waited").inc()
                return answer
        if job.active:
            # It runs after the first one, finds its result in the cache, and sends it.
            later = PrelabelPayload(**{**payload.__dict__, "push": True})
            self._submit(later, call.version, BATCH)
            self.metrics.predictions.labels("queued").inc()
        else:
            log.warning("task %s: job %s ended as %s: %s", call.task_id, job.id, job.state.value, job.error)
            self.metrics.predictions.labels("failed").inc()
        return None

    def _cached(self, payload: PrelabelPayload, version: str) -> Answer | None:
        found = rendered(
            self.backend.predictions,
            payload.cache_key(version),
            payload.label_config,
            self.backend.settings,
            payload.task_data,
        )
        return None if found is None else Answer(found[0], found[1], version)

    def _submit(self, payload: PrelabelPayload, version: str, priority: int) -> str:
        key = payload.job_key(version)
        return self.backend.engine.submit(PRELABEL, payload.to_json(), key, priority=priority).id

    def _order_frames(self, payload: PrelabelPayload, config: LabelConfig, works: list[Work]) -> None:
        """Have the frames cut that the masks will be drawn on, when the task has only the video."""
        if config.frames is None or payload.task_data.get(config.frames.key):
            return
        frames = FramesPayload(
            project_id=payload.project_id,
            task_id=payload.task_id,
            task_data=payload.task_data,
            label_config=payload.label_config,
            hostname=payload.hostname,
            video_url=payload.video_url,
        )
        try:
            frames_way(self.backend.settings)
        except SvacError as error:
            self.backend.engine.reject(FRAMES, frames.to_json(), frames.job_key(), error.message, error.hint)
            log.warning("task %s: %s", payload.task_id, error)
        else:
            works.append(Work(FRAMES, frames.to_json(), frames.job_key()))

    def _reject(self, call: _Call, error: str, hint: str) -> None:
        log.warning(
            "task %s of project %s is not predicted: %s %s", call.task_id, call.project_id, error, hint
        )
        self.metrics.predictions.labels("rejected").inc()
        self.backend.engine.reject(
            PRELABEL,
            {"project_id": call.project_id, "task_id": call.task_id},
            f"prelabel:{call.project_id}:{call.task_id}:rejected",
            error,
            hint,
        )


@dataclass(frozen=True)
class _Call:
    """What the tasks of one /predict share, and the task's id."""

    project_id: str
    task_id: str
    hostname: str
    version: str
    context: Mapping[str, Any] | None
    deadline: float


def _check_context(context: Mapping[str, Any]) -> None:
    """Refuse clicks and boxes: the whole object's masks as an answer would cover what is being corrected."""
    result = context["result"]
    if isinstance(result, list) and not any(
        isinstance(item, Mapping) and item.get("type") == "textarea" for item in result
    ):
        raise SvacError(
            "Clicks and boxes are no prompts in this version.",
            "Type what to segment into the prompt's text field.",
        )


def _video_url(data: Mapping[str, Any], config: LabelConfig) -> str:
    key = config.video.key if config.video else "video"
    url = data.get(key)
    if not isinstance(url, str) or not url.strip():
        raise SvacError(
            f"The task has no video under the key '{key}'.",
            f"Put the video's address into the task's '{key}'.",
        )
    return url.strip()
