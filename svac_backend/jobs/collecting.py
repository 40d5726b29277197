"""Turns webhooks that were recorded into corrections. Torch-free; the worker does it when there is something new."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock, Timeout

from svac_backend.errors import SvacError
from svac_backend.jobs.corrected import find_corrections, known_objects
from svac_backend.jobs.label_studio import LabelStudioAccess, predictions_before
from svac_backend.jobs.payloads import label_studio_name, video_url
from svac_backend.jobs.rendering import cached_config
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.editing import frame_size
from svac_backend.labelstudio.regions import results_to_tracks
from svac_backend.labelstudio.sending import Region, region_name
from svac_backend.labelstudio.windows import Window, window_of
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.connections import ConnectionStore
from svac_backend.store.corrections import Annotation, AnnotationState, CorrectionStore
from svac_backend.store.database import Database, StoreError
from svac_backend.store.events import Event, EventStore
from svac_backend.store.inbox import Inbox
from svac_backend.store.objects import ObjectStore, video_name
from svac_backend.store.predictions import video_identity
from svac_backend.store.sent import SentStore
from svac_backend.training.collect import (
    ACTIONS,
    ANNOTATED,
    Correction,
    Submitted,
    corrections_of,
    deleted_ids,
    saved_at,
    submitted,
    who,
)

LOCK_FILE = "collecting.lock"
BULK = "ANNOTATIONS_CREATED"
# Webhooks read at a time: each may hold megabytes.
PORTION = 10

Progress = Callable[[float, str], None]

log = logging.getLogger(__name__)


@dataclass
class Collected:
    """What a look at the webhooks brought.

    Attributes:
        annotations: that say something; removed: that were deleted or say nothing any more; put_off: that could not be
            made use of and are tried again.
    """

    annotations: int = 0
    removed: int = 0
    put_off: int = 0

    def __str__(self) -> str:
        parts = [f"{self.annotations} annotation{'' if self.annotations == 1 else 's'} collected"]
        parts += [f"{self.removed} removed"] if self.removed else []
        parts += [f"{self.put_off} put off"] if self.put_off else []
        return ", ".join(parts)


class Collector:
    """Looks at each webhook once, in order; what fails is tried again later.

    Args:
        settings: where Label Studio is, and how predictions were sent.
        database: webhooks in, corrections out.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.connections = ConnectionStore(database)
        self.label_studio = LabelStudioAccess(settings, self.connections)
        self.events, self.inbox = EventStore(database), Inbox(database)
        self.corrections, self.objects, self.sent = (
            CorrectionStore(database),
            ObjectStore(database),
            SentStore(database),
        )

    def pending(self) -> bool:
        """Whether there is something to look at."""
        return self.events.latest(ACTIONS) > self.inbox.position() or bool(self.inbox.due())

    def collect(self, progress: Progress = lambda *_: None) -> Collected:
        """Look at all webhooks that are new, and at those that are to be tried again.

        Raises:
            SvacError: another process has been collecting for minutes, or the database cannot be used.
        """
        done = Collected()
        with self._alone():
            for number in self.inbox.due():
                for event in self.events.find(after=number - 1, limit=1):
                    if event.id == number:
                        self._use(event, done)
            first = self.inbox.position()
            last = max(self.events.latest(ACTIONS), first)
            while True:
                events = self.events.find(after=self.inbox.position(), limit=PORTION)
                for event in events:
                    if event.action in ACTIONS:
                        self._use(event, done)
                    self.inbox.advance(event.id)
                    progress(min(1.0, (event.id - first) / max(1, last - first)), "Collecting corrections")
                if len(events) < PORTION:
                    return done

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two at once would each look at half of what an annotation went through."""
        try:
            with FileLock(self.settings.data_dir / LOCK_FILE, timeout=300):
                yield
        except Timeout as error:
            raise SvacError(
                "Another process has been collecting corrections for minutes.", "Try again later."
            ) from error

    def _use(self, event: Event, done: Collected) -> None:
        try:
            if event.action in ANNOTATED:
                for one in submitted(event.body):
                    self._take(event, one, done)
            else:
                ids = deleted_ids(event.action, event.body)
                if event.action == "TASKS_DELETED":
                    done.removed += self.corrections.delete_tasks(event.project_id, ids, event.id)
                else:
                    done.removed += self.corrections.delete(event.project_id, ids, event.id)
        except StoreError:
            raise
        except SvacError as error:
            log.warning("webhook %d is put off: %s", event.id, error)
            self.inbox.put_off(event.id, error.message, error.hint)
            done.put_off += 1
        except Exception as error:
            # One malformed body must not keep all others from being looked at.
            log.exception("webhook %d cannot be made use of", event.id)
            self.inbox.put_off(
                event.id, f"Unexpected error ({type(error).__name__}).", "See the worker's log."
            )
            done.put_off += 1
        else:
            self.inbox.settle(event.id)

    def _take(self, event: Event, one: Submitted, done: Collected) -> None:
        known = self.corrections.annotation(event.project_id, one.id)
        if known is not None and known.event > event.id:
            return  # a later webhook about it was looked at already
        about = Annotation(
            project_id=event.project_id,
            annotation_id=one.id,
            event=event.id,
            task_id=one.task_id,
            state=AnnotationState.SKIPPED,
            ground_truth=bool(one.annotation.get("ground_truth")),
            who=who(one.annotation),
            saved=saved_at(one.annotation) or event.received,
        )
        found: list[Correction] = []
        if not one.annotation.get("was_cancelled"):
            about, found = self._read(about, one)
        if event.action == BULK and not any(correction.drawn for correction in found):
            # Label Studio makes annotations of predictions at a click for all tasks: nobody has looked at them.
            about, found = replace(about, state=AnnotationState.EMPTY), []
        was_used = known is not None and known.state is AnnotationState.USED
        if self.corrections.put(about, found):
            done.annotations += bool(found)
            done.removed += was_used and not found

    def _read(self, about: Annotation, one: Submitted) -> tuple[Annotation, list[Correction]]:
        """Compare an annotation with what its editor was sent."""
        connection = self.connections.get(about.project_id)
        config = cached_config(one.label_config or (connection.label_config if connection else ""))
        data = one.task.get("data")
        if not isinstance(data, dict):
            raise SvacError(
                "The webhook does not say which task was annotated.", "Have its payload sent along."
            )
        hostname = label_studio_name(self.settings, connection)
        url = video_url(data, config)
        identity = video_identity(hostname, url)
        client = self.label_studio.client(about.project_id)
        predictions = predictions_before(client, about.task_id, one.annotation)
        results = [item["result"] for item in predictions]
        size = frame_size(one.regions, *results)
        about = replace(about, state=AnnotationState.EMPTY, hostname=hostname, video_url=url)
        about = replace(about, video=video_name(identity))
        if size is None:
            return about, []
        window, answered = window_of(data), self.sent.find(about.project_id, about.task_id)
        claimed = self.objects.find(about.project_id, video_name(identity))
        known = known_objects(data, config, claimed)
        parent = _parent(one, predictions)
        changes = find_corrections(
            one.regions,
            results,
            answered,
            config,
            size,
            window=window,
            known=known,
            parent=None if parent is None else parent["result"],
        )
        tracks = results_to_tracks(
            one.regions,
            config,
            width=size[0],
            height=size[1],
            window=window,
            tracks=[Track(**vars(name)) for name in known],
            certain=changes.masks,
        )
        shown = _shown(data, config, window)
        predicted = self._predicted(changes.sent, shown)
        about = replace(about, width=size[0], height=size[1], model_version=_version(parent, predictions))
        found = corrections_of(about, tracks, changes.masks, predicted, shown)
        if found:
            about = replace(about, state=AnnotationState.USED)
        return about, [replace(correction, annotation=about) for correction in found]

    def _predicted(self, sent: Sequence[Region], shown: Sequence[int]) -> dict[str, list[int]]:
        """Which objects the editor was sent, and the frames on which that can be accepted."""
        frames: dict[str, set[int]] = {}
        for region in sent:
            name = region_name(region)
            if name is not None:
                frames.setdefault(name.object_id, set()).add(name.frame)
        if self.settings.send_every > 1 or self.settings.send_below_score is not None:
            return {object_id: sorted(its) for object_id, its in frames.items()}
        return {object_id: list(shown) for object_id in frames}


def _shown(data: Mapping[str, Any], config: LabelConfig, window: Window | None) -> list[int]:
    if window is None:
        frames = data.get(config.frames.key) if config.frames else None
        window = Window(0, len(frames)) if isinstance(frames, list) and frames else None
    return [] if window is None else [window.frame(item) for item in range(window.count)]


def _parent(one: Submitted, predictions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    wanted = one.annotation.get("parent_prediction")
    return next((item for item in predictions if wanted is not None and item["id"] == wanted), None)


def _version(parent: Mapping[str, Any] | None, predictions: Sequence[Mapping[str, Any]]) -> str:
    source = parent or (predictions[-1] if predictions else {})
    return str(source.get("model_version") or "")[:200]
