"""Answers annotators' requests in the editor: an expression, clicks, a box, propagation, removal."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from svac_backend.editor.answer import Answer, Change, EditorState, as_answer, change, next_to_delete
from svac_backend.editor.notice import (
    NO_WORKER,
    NOTHING_TO_DO,
    not_found,
    notes,
    of_error,
    partial,
    portion,
    shows_notice,
    unanswered,
)
from svac_backend.editor.open_task import OpenTask, Plan
from svac_backend.editor.request import Call, Request, draft_with, read_request, tells_whose
from svac_backend.errors import SvacError
from svac_backend.jobs.engine import INTERACTIVE, LEASE_S, Job, JobState
from svac_backend.jobs.payloads import PRELABEL, PROPAGATE, PrelabelPayload, PropagatePayload, TaskPayload
from svac_backend.jobs.rendering import check_frames, config_key
from svac_backend.jobs.services import Metrics, Services
from svac_backend.labelstudio.api.access import LabelStudioAccess, task_number
from svac_backend.labelstudio.config import cached_config
from svac_backend.labelstudio.corrections import person_of
from svac_backend.labelstudio.regions.region import Region
from svac_backend.labelstudio.regions.sent import removals
from svac_backend.labelstudio.tasks import Window, shown_frames
from svac_backend.store.objects import NOBODY
from svac_backend.store.predictions import Prediction

# Seconds: the editor saves a draft at most 5 s after a change, and a request is a change.
DRAFT_WAIT_S, DRAFT_POLL_S = 8.0, 0.4

log = logging.getLogger(__name__)


class Interactive:
    """Answers annotators for one web process.

    An answer replaces what the editor shows of the same objects, except on frames that a person corrected. The body of
    the call is too old to say which frames those are. So before anything is replaced, this class waits for the draft
    that holds the request itself; the model works meanwhile.

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
        # Tasks that show a notice that no draft may hold yet.
        self._told: set[tuple[str, str]] = set()

    def answer(self, base: TaskPayload, task: Mapping[str, Any], call: Call) -> Answer | None:
        """Return the regions that a request changes, or None if there is nothing to answer yet.

        Args:
            base: the task as jobs know it.
            task: the task as Label Studio sent it, with annotations, drafts and predictions.
            call: the call, with its context.

        Raises:
            SvacError: the request makes no sense, or what it would replace may hold corrections not seen yet.
        """
        open_task = OpenTask.of(self.backend, base, task, call.version)
        config = open_task.config
        request = read_request(call.context or {}, config, open_task.shown)
        if request == Request():
            return None
        if request.remove:
            return self._remove(open_task, request, call)
        if not self._can_answer(open_task, request, call):
            self.metrics.predictions.labels("no worker").inc()
            return as_answer(self._notes(open_task, request, NO_WORKER), 0.0, call.version)
        with self._turn(call) as may_wait:
            open_task, plan = self._settled(open_task, request, call, may_wait)
            if plan is None:
                log.info("task %s: no correction shows an object, so nothing is propagated", call.task_id)
                self.metrics.predictions.labels("empty").inc()
                return as_answer(self._notes(open_task, request, NOTHING_TO_DO), 0.0, call.version)
            answer = self._obtain(plan, call, may_wait)
            open_task = self._of_asker(open_task, request, call)
        person = open_task.person
        if isinstance(answer, Job):
            if answer.active:
                # Nothing is sent yet; asking to propagate continues it.
                made: dict[str, list[Region]] = {name: [] for name in plan.objects}
                self.backend.sent.record(
                    base.project_id, base.task_id, made, plan.hints, person=person, complete=False
                )
            return as_answer(
                self._notes(open_task, request, unanswered(plan.names, answer)), 0.0, call.version
            )
        prediction, complete = answer
        sent = self._change(open_task, plan, prediction, complete)
        self.backend.sent.record(
            base.project_id,
            base.task_id,
            sent.made,
            plan.hints,
            person=person,
            complete=complete,
            forget=sent.outdated,
        )
        words = _said(plan, prediction, complete, open_task.window) or (
            portion(sent.left) if sent.left else ""
        )
        said = self._notes(open_task, request, words)
        return as_answer([*sent.regions, *said], prediction.score, call.version)

    def _remove(self, open_task: OpenTask, request: Request, call: Call) -> Answer:
        """Remove an object from all frames."""
        with self._turn(call) as may_wait:
            open_task = self._draft(open_task, request, call, may_wait)
        object_id, regions = open_task.regions_to_remove(request)
        now = next_to_delete(regions, len(open_task.shown))
        base, left = open_task.base, len(regions) - len(now)
        nothing: dict[str, list[Region]] = {object_id: []}
        self.backend.sent.record(
            base.project_id, base.task_id, nothing, {object_id: {}}, person=open_task.person
        )
        said = (
            f"{left} masks of the object are left: so many at once would freeze the page. Remove it again."
            if left
            else ""
        )
        answer = [*removals(now), *self._notes(open_task, request, said)]
        return as_answer(answer, 0.0, call.version)

    def _notes(self, open_task: OpenTask, request: Request, said: str) -> list[Region]:
        """Return the regions that show the annotator a notice, or clear the previous one."""
        task = (open_task.base.project_id, open_task.base.task_id)
        clear = task in self._told or shows_notice(open_task.shown, open_task.config)
        (self._told.add if said else self._told.discard)(task)
        return notes(open_task.config, request, said, clear=clear)

    def refused(self, call: Call, label_config: str, said: str) -> Answer:
        """Answer a request that cannot be done: say why, and make the editor take clicks and boxes back.

        Args:
            call: the call, with its context.
            label_config: the project's config; it may be what is wrong.
            said: the reason, and what to do.
        """
        self._told.add((call.project_id, call.task_id))
        try:
            regions = of_error(call.context, cached_config(label_config), said)
        except SvacError:
            regions = []
        return as_answer(regions, 0.0, call.version)

    def _can_answer(self, open_task: OpenTask, request: Request, call: Call) -> bool:
        """Whether a worker lives or the answer is known already: nobody should wait for what cannot come."""
        if self.backend.workers.alive(LEASE_S):
            return True
        plan = None if request.propagate else open_task.plan(request)
        return plan is not None and bool(
            self.backend.predictions.known([plan.payload.cache_key(call.version)])
        )

    def _settled(
        self, open_task: OpenTask, request: Request, call: Call, may_wait: bool
    ) -> tuple[OpenTask, Plan | None]:
        """Return the work that a request needs, planned on the latest draft if it replaces anything."""
        plan = open_task.plan(request)
        replaces = request.propagate or (plan is not None and plan.replaces)
        if not replaces and (not request.pointed or tells_whose(open_task.task)):
            return open_task, plan
        begun = None if plan is None else self._begin(plan, call)
        open_task = self._draft(open_task, request, call, may_wait)
        settled = open_task.plan(request)
        if begun is not None and plan is not None and (settled is None or settled.payload != plan.payload):
            self.backend.engine.cancel(begun)  # the body lacked the last correction
        return open_task, settled

    def _draft(self, open_task: OpenTask, request: Request, call: Call, may_wait: bool) -> OpenTask:
        """Wait for the draft that holds the request; return the task as it has it."""
        found = self._saved(open_task, request, call, may_wait)
        if found is None:
            raise SvacError(
                "Label Studio has no draft with this request, so the last corrections are not known.",
                "Wait until the editor says that the draft is saved, and ask again.",
            )
        draft, regions = found
        # The request itself is not a drawing, although a box may look like a mask.
        shown = [region for region in regions if region.get("id") not in request.ids]
        return open_task.of_person(person_of(draft), shown)

    def _of_asker(self, open_task: OpenTask, request: Request, call: Call) -> OpenTask:
        """Return the task of the person who asks, if a draft tells by now; the body of their first call does not."""
        if open_task.person != NOBODY:
            return open_task
        try:
            found = self._saved(open_task, request, call, may_wait=False)
        except SvacError as error:  # answer all the same if Label Studio cannot be asked
            log.info("task %s: it is unknown who asked: %s", call.task_id, error)
            found = None
        return open_task if found is None else open_task.of_person(person_of(found[0]))

    def _saved(
        self, open_task: OpenTask, request: Request, call: Call, may_wait: bool
    ) -> tuple[Mapping[str, Any], list[Region]] | None:
        """Wait for the draft that holds the request; return it and its regions, or None if it does not come."""
        end = min(call.deadline, call.begun + DRAFT_WAIT_S)
        client, number = self._access.client(call.project_id), task_number(call.task_id)
        while True:
            drafts = client.list_drafts(number)
            last = not may_wait or time.monotonic() + DRAFT_POLL_S >= end
            # An earlier draft may lack the last stroke, so it counts only if no other comes.
            found = draft_with(drafts, request, [] if last else open_task.task.get("drafts"))
            if found is not None or last:
                return found
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
        """Start a plan's work unless it is done; return the job's id."""
        if self.backend.predictions.known([plan.payload.cache_key(call.version)]):
            return None
        return self._submit(plan.payload, call)

    def _submit(self, payload: PrelabelPayload | PropagatePayload, call: Call) -> str:
        kind = PRELABEL if isinstance(payload, PrelabelPayload) else PROPAGATE
        key = payload.job_key(call.version)
        return self.backend.engine.submit(kind, payload.to_json(), key, priority=INTERACTIVE).id

    def _obtain(self, plan: Plan, call: Call, may_wait: bool) -> tuple[Prediction, bool] | Job:
        """Return the prediction and whether it is complete (not if time ran out), or the job if there is nothing yet.

        The job goes on, so that all of it is there the next time somebody asks for the same. It does not become a
        prediction of the task: that would show one annotator's draft to all others.
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
            return job
        part = self.backend.parts.get(key)
        self.metrics.predictions.labels("queued" if part is None else "partial").inc()
        return job if part is None else (part, False)

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


def _said(plan: Plan, prediction: Prediction, complete: bool, window: Window | None) -> str:
    """Return what to tell an annotator about an answer; nothing if it is complete and shows something."""
    wanted = [track for track in prediction.tracks if track.object_id in plan.objects]
    if not complete:
        ready = {frame for track in wanted for frame in track.scores}
        payload = plan.payload
        span = payload.frames if isinstance(payload, PropagatePayload) else None
        return partial(plan.names, len(ready), prediction.frame_count if span is None else span[1] - span[0])
    shown = set(shown_frames(prediction.frame_count, window))
    missing = [track.object_id for track in wanted if not shown & track.masks.keys()]
    return (
        not_found([name for one, name in zip(plan.objects, plan.names, strict=True) if one in missing])
        if missing
        else ""
    )
