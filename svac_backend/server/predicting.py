"""What /predict answers: a cached prediction, an annotator's answer, or nothing yet while a job makes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from svac_backend.editor.answer import Answer
from svac_backend.editor.interactive import Interactive
from svac_backend.editor.request import Call
from svac_backend.errors import StoreError, SvacError
from svac_backend.jobs.engine import BATCH, REJECTED, Work
from svac_backend.jobs.frames import order_frames
from svac_backend.jobs.payloads import PRELABEL, PrelabelPayload, task_payload
from svac_backend.jobs.rendering import rendered
from svac_backend.jobs.services import Metrics, Services
from svac_backend.labelstudio.api.access import label_studio_name
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.tasks import task_prompts
from svac_backend.store.tasks import PredictedTask

T = TypeVar("T")

log = logging.getLogger(__name__)


class Predictor:
    """Answers predictions for one web process.

    A task that cannot be predicted (its prompt is empty, the config cannot show masks, ...) gets an empty answer, like
    a queued one: Label Studio shows success whatever we answer, and an error would take the other tasks of the call
    with it. The reason is logged and appears in the job list as a failed job.

    Args:
        backend: state and engine.
        metrics: counts the outcomes.
    """

    def __init__(self, backend: Services, metrics: Metrics) -> None:
        self.backend = backend
        self.metrics = metrics
        self.interactive = Interactive(backend, metrics)

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        label_config: str,
        project_id: str,
        context: Mapping[str, Any] | None = None,
    ) -> list[Answer | None]:
        """Return one answer for each task, in order; None where there is none yet, or never will be.

        Args:
            tasks: Label Studio's tasks. `id` and `data` of each are used; for an annotator's request also its
                annotations, drafts and predictions.
            label_config: the project's labelling config.
            project_id: the project's id.
            context: `params.context`; if it has a `result`, the call is an annotator's request and may wait.

        Raises:
            SvacError: there is no model.
        """
        version = self.backend.model_version
        connection = self.backend.connections.get(project_id)
        hostname = label_studio_name(self.backend.settings, connection)
        if context is not None and context.get("result") is None:
            context = None
        begun = time.monotonic()
        deadline = begun + self.backend.settings.predict_wait_s
        calls = [
            Call(
                project_id,
                "" if task.get("id") is None else str(task["id"])[:32],
                hostname,
                version,
                context,
                begun,
                deadline,
            )
            for task in tasks
        ]
        works: list[Work] = []
        given: list[PredictedTask] = []
        if context is not None:
            asked_for = [
                self._or_reject(
                    call,
                    partial(self._interactive, task, label_config, call, works),
                    otherwise=partial(self.interactive.refused, call, label_config),
                )
                for task, call in zip(tasks, calls, strict=True)
            ]
            self.backend.engine.submit_many(works)
            return asked_for
        wishes = [
            self._or_reject(call, partial(self._wish, task, label_config, call, works))
            for task, call in zip(tasks, calls, strict=True)
        ]
        # One look-up and one insert for all tasks: Label Studio sends every selected task in one call.
        asked = [wish for wish in wishes if wish is not None]
        active = self.backend.engine.active_keys([wish.job_key(version) for wish in asked if wish.push])
        known = self.backend.predictions.known([wish.cache_key(version) for wish in asked])
        answers = [
            None
            if wish is None
            else self._or_reject(call, partial(self._answer, wish, call, active, known, works, given))
            for wish, call in zip(wishes, calls, strict=True)
        ]
        self.backend.tasks.put(given)
        self.backend.engine.submit_many(works)
        return answers

    def _or_reject(
        self, call: Call, work: Callable[[], T | None], *, otherwise: Callable[[str], T] | None = None
    ) -> T | None:
        """Do part of one task's work; if it fails, record the reason so that the other tasks go on.

        `otherwise` gets the reason, and returns what is answered instead.
        """
        try:
            return work()
        except StoreError:
            raise  # it could not be recorded either
        except SvacError as error:
            reason = error.message, error.hint
        except Exception as error:
            log.exception("task %s of project %s failed unexpectedly", call.task_id, call.project_id)
            reason = (
                f"Unexpected error ({type(error).__name__}).",
                "The web process's log has the full report.",
            )
        self._reject(call, *reason)
        return None if otherwise is None else otherwise(" ".join(reason))

    def _interactive(
        self, task: Mapping[str, Any], label_config: str, call: Call, works: list[Work]
    ) -> Answer | None:
        base = task_payload(task, label_config, call.project_id, call.hostname)
        order_frames(base, self.backend.settings, self.backend.engine, works)
        return self.interactive.answer(base, task, call)

    def _wish(
        self, task: Mapping[str, Any], label_config: str, call: Call, works: list[Work]
    ) -> PrelabelPayload:
        """Return what a task asks for; add to `works` the job that cuts its frames, if it has none yet."""
        base = task_payload(task, label_config, call.project_id, call.hostname)
        config, limit = cached_config(label_config), self.backend.settings.max_prompt_chars
        prompts = task_prompts(base.task_data, config, max_chars=limit)
        order_frames(base, self.backend.settings, self.backend.engine, works)
        return PrelabelPayload(**vars(base), prompts=tuple(prompts), push=True)

    def _answer(
        self,
        payload: PrelabelPayload,
        call: Call,
        active: set[str],
        known: set[str],
        works: list[Work],
        given: list[PredictedTask],
    ) -> Answer | None:
        """Return the cached answer and note it in `given`, or add a job to `works`.

        A prediction that a job is about to push is not answered, even if it is in the cache already: Label Studio would
        store our answer and the pushed one, and have it twice.
        """
        key = payload.job_key(call.version)
        prediction = payload.cache_key(call.version)
        if key not in active and prediction in known:
            answer = self._cached(payload, call.version)
            if answer is not None:
                given.append(
                    PredictedTask(call.project_id, call.task_id, prediction, call.version, answer.score)
                )
                self.metrics.predictions.labels("cached").inc()
                return answer
        if key not in active:
            works.append(Work(PRELABEL, payload.to_json(), key, BATCH))
        self.metrics.predictions.labels("queued").inc()
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

    def _reject(self, call: Call, error: str, hint: str) -> None:
        log.warning(
            "task %s of project %s is not predicted: %s %s", call.task_id, call.project_id, error, hint
        )
        self.metrics.predictions.labels("rejected").inc()
        self.backend.engine.reject(
            PRELABEL,
            {"project_id": call.project_id, "task_id": call.task_id},
            f"prelabel:{call.project_id}:{call.task_id}{REJECTED}",
            error,
            hint,
        )
