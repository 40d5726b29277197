"""Answers what annotators ask for in the editor: an expression, clicks, a box, propagation."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from svac_backend.editor.answer import Answer, Change, EditorState, as_answer, change
from svac_backend.editor.open_task import OpenTask, Plan
from svac_backend.editor.request import BOXES, POINTS, Call, Request, draft_with, read_request, tells_whose
from svac_backend.errors import SvacError
from svac_backend.jobs.engine import INTERACTIVE, JobState
from svac_backend.jobs.payloads import PRELABEL, PROPAGATE, PrelabelPayload, PropagatePayload, TaskPayload
from svac_backend.jobs.rendering import check_frames, config_key
from svac_backend.jobs.services import Metrics, Services
from svac_backend.labelstudio.api.access import LabelStudioAccess, task_number
from svac_backend.labelstudio.regions.region import Region
from svac_backend.store.predictions import Prediction

# The editor saves a draft at most 5 s after a change, and a request is a change.
DRAFT_WAIT_S, DRAFT_POLL_S = 8.0, 0.4

log = logging.getLogger(__name__)


class Interactive:
    """Answers annotators for one web process.

    An answer replaces what the editor shows of the same objects, except on frames that a person corrected. The body of
    the call is too old to say which frames these are. So before anything is replaced, this waits for the draft that
    holds the request itself; the model works meanwhile.

    Args:
        backend: state and engine.
        metrics: counts the outcomes.
    """

    def __init__(self, backend: Services, metrics: Metrics) -> None:
        self.backend = backend
        self.metrics = metrics
        # A waiting call holds a thread: some must stay free for webhooks.
        self._waiters = threading.BoundedSemaphore(max(1, backend.settings.server_threads // 2))
        self._access = LabelStudioAccess(backend.settings, backend.connections)

    def answer(self, base: TaskPayload, task: Mapping[str, Any], call: Call) -> Answer | None:
        """Return the regions that a request changes, or None when there is nothing to say yet.

        Args:
            base: the task, as jobs know it.
            task: as Label Studio sent it, with annotations, drafts and predictions.
            call: with the context.

        Raises:
            SvacError: the request makes no sense, or what it would replace may hold unseen corrections.
        """
        open_task = OpenTask.of(self.backend, base, task, call.version)
        request = read_request(call.context or {}, open_task.config)
        if request == Request():
            return None
        with self._turn(call) as may_wait:
            open_task, plan = self._settled(open_task, request, call, may_wait)
            if plan is None:
                log.info("task %s: no correction shows an object, so nothing is propagated", call.task_id)
                self.metrics.predictions.labels("empty").inc()
                return as_answer(_left(request, open_task, []), 0.0, call.version)
            answer = self._obtain(plan, call, may_wait)
        if answer is None:
            return None
        prediction, complete = answer
        sent = self._change(open_task, plan, prediction, complete)
        self.backend.sent.record(
            base.project_id,
            base.task_id,
            sent.made,
            plan.hints,
            complete=complete,
            forget=sent.outdated,
        )
        return as_answer(_left(request, open_task, sent.regions), prediction.score, call.version)

    def _settled(
        self, open_task: OpenTask, request: Request, call: Call, may_wait: bool
    ) -> tuple[OpenTask, Plan | None]:
        """Return the work that a request needs; where it replaces anything, as the latest draft has the task."""
        plan = open_task.plan(request)
        replaces = request.propagate or (plan is not None and plan.replaces)
        if not replaces and (not request.pointed or tells_whose(open_task.task)):
            return open_task, plan
        begun = None if plan is None else self._begin(plan, call)
        open_task = replace(open_task, shown=self._draft(open_task, request, call, may_wait))
        settled = open_task.plan(request)
        if begun is not None and plan is not None and (settled is None or settled.payload != plan.payload):
            self.backend.engine.cancel(begun)  # the body lacked the last correction
        return open_task, settled

    def _draft(self, open_task: OpenTask, request: Request, call: Call, may_wait: bool) -> list[Region]:
        """Wait for the draft that holds the request; return its regions."""
        end = min(call.deadline, call.begun + DRAFT_WAIT_S)
        client, number = self._access.client(call.project_id), task_number(call.task_id)
        while True:
            drafts = client.list_drafts(number)
            last = not may_wait or time.monotonic() + DRAFT_POLL_S >= end
            # An earlier draft may lack the last stroke: it counts only if no other comes.
            found = draft_with(drafts, request, [] if last else open_task.task.get("drafts"))
            if found is not None:
                # The request itself was not drawn, although a box may look like a mask.
                return [region for region in found if region.get("id") not in request.ids]
            if last:
                raise SvacError(
                    "Label Studio has no draft with this request, so the last corrections are not known.",
                    "Wait until the editor says that the draft is saved, and ask again.",
                )
            time.sleep(DRAFT_POLL_S)

    @contextmanager
    def _turn(self, call: Call) -> Iterator[bool]:
        """Yield whether this call may wait."""
        may_wait = self._waiters.acquire(blocking=False)
        if not may_wait:
            log.warning("too many interactive calls are waiting; the one for task %s may not", call.task_id)
        try:
            yield may_wait
        finally:
            if may_wait:
                self._waiters.release()

    def _begin(self, plan: Plan, call: Call) -> str | None:
        """Begin a plan's work unless it is done; return the job's id."""
        if self.backend.predictions.known([plan.payload.cache_key(call.version)]):
            return None
        return self._submit(plan.payload, call)

    def _submit(self, payload: PrelabelPayload | PropagatePayload, call: Call) -> str:
        kind = PRELABEL if isinstance(payload, PrelabelPayload) else PROPAGATE
        key = payload.job_key(call.version)
        return self.backend.engine.submit(kind, payload.to_json(), key, priority=INTERACTIVE).id

    def _obtain(self, plan: Plan, call: Call, may_wait: bool) -> tuple[Prediction, bool] | None:
        """Return the prediction, and whether it is complete: when time is up it is not.

        The job goes on, and the next time that somebody asks for the same, all of it is there. It becomes no prediction
        of the task: that would show one annotator's draft to all others.
        """
        key = plan.payload.cache_key(call.version)
        prediction = self.backend.predictions.get(key)
        if prediction is not None:
            self.metrics.predictions.labels("cached").inc()
            return prediction, True
        job_id = self._submit(plan.payload, call)
        left = max(0.0, call.deadline - time.monotonic()) if may_wait else 0.0
        job = self.backend.engine.wait(job_id, left)
        if job.state is JobState.DONE:
            prediction = self.backend.predictions.get(key)
            if prediction is not None:
                self.metrics.predictions.labels("waited").inc()
                return prediction, True
        if not job.active:
            log.warning("task %s: job %s ended as %s: %s", call.task_id, job.id, job.state.value, job.error)
            self.metrics.predictions.labels("failed").inc()
            return None
        part = self.backend.parts.get(key)
        self.metrics.predictions.labels("queued" if part is None else "partial").inc()
        return None if part is None else (part, False)

    def _change(self, open_task: OpenTask, plan: Plan, prediction: Prediction, complete: bool) -> Change:
        check_frames(open_task.base.task_data, open_task.base.label_config, prediction.frame_count)
        frames = plan.payload.frames if isinstance(plan.payload, PropagatePayload) else None
        shown_as = config_key(open_task.base.label_config, self.backend.settings, open_task.window)
        rendered = self.backend.predictions.rendering(prediction.key, shown_as) if complete else None
        editor = EditorState(open_task.shown, open_task.there, plan.kept, plan.drawn, open_task.window)
        return change(
            prediction,
            plan.objects,
            editor,
            open_task.config,
            self.backend.settings,
            frames=None if frames is None else range(*frames),
            complete=complete,
            rendered=None if rendered is None else json.loads(rendered),
        )


def without_points(call: Call) -> Answer | None:
    """Return an empty answer if clicks or boxes asked: with it the editor takes them back."""
    result = (call.context or {}).get("result")
    regions = [region for region in result if isinstance(region, Mapping)] if isinstance(result, list) else []
    pointed = any(region.get("type") in (*POINTS, *BOXES) for region in regions)
    return as_answer([], 0.0, call.version) if pointed else None


def _left(request: Request, open_task: OpenTask, regions: list[Region]) -> list[Region]:
    """Add to an answer that the command leaves the prompt's field: else it is submitted with the annotation."""
    text = open_task.config.text
    if request.left is None or text is None:
        return regions
    field = {"id": next(iter(request.ids), "prompt"), "from_name": text.name, "to_name": text.to_name}
    return [*regions, {**field, "type": "textarea", "value": {"text": list(request.left)}}]
