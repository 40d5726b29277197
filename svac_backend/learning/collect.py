"""Turns recorded webhooks into corrections; the worker does so whenever there is something new.

It decides whose annotation counts, which frames a person drew, and which they saw and accepted. Free of torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from filelock import FileLock, Timeout

from svac_backend.errors import StoreError, SvacError
from svac_backend.labelstudio.api.access import (
    LabelStudioAccess,
    label_studio_name,
    moment,
    parent_of,
    predictions_before,
)
from svac_backend.labelstudio.config import LabelConfig, cached_config
from svac_backend.labelstudio.corrections import Corrections, person_of, read_annotation
from svac_backend.labelstudio.regions.region import Region, region_name, regions_of
from svac_backend.labelstudio.tasks import Window, video_url
from svac_backend.masks.hints import FrameHints
from svac_backend.masks.rle import area
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings, names_project
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore, Event, EventStore, Inbox
from svac_backend.store.objects import ObjectStore, SentStore, video_name
from svac_backend.store.predictions import video_identity
from svac_backend.store.tables import words
from svac_backend.store.tasks import TaskStore

ANNOTATED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
DELETED = {"ANNOTATIONS_DELETED": "annotations", "TASKS_DELETED": "tasks"}
# Webhooks that change what there is to learn from.
ACTIONS = ANNOTATED | DELETED.keys()


@dataclass(frozen=True)
class Submitted:
    """One annotation of a webhook, with its task.

    Attributes:
        annotation, task: as Label Studio sends them; `task` has `data`.
        label_config: the project's labelling config, empty if the webhook has none.
    """

    annotation: Mapping[str, Any]
    task: Mapping[str, Any]
    label_config: str

    @property
    def id(self) -> str:
        """The annotation's id."""
        return _name(self.annotation.get("id") or "")

    @property
    def task_id(self) -> str:
        """The task's id."""
        return _name(self.task.get("id") or "")

    @property
    def regions(self) -> list[dict[str, Any]]:
        """The annotation's regions. Raises `SvacError` if something in it is not a region."""
        return regions_of(self.annotation.get("result"))


def submitted(body: Mapping[str, Any]) -> Iterator[Submitted]:
    """Yield the annotations of a webhook, except those whose task it does not name.

    ANNOTATIONS_CREATED has a list of annotations under `annotation` and one of tasks under `task`, in any order.
    """
    project = body.get("project")
    config = project.get("label_config") if isinstance(project, Mapping) else None
    tasks = {str(task.get("id")): task for task in _listed(body.get("task"))}
    for annotation in _listed(body.get("annotation")):
        name = annotation.get("task")
        task = tasks.get(str(name)) if name is not None else next(iter(tasks.values()), None)
        if task is not None and annotation.get("id") is not None:
            yield Submitted(annotation, task, config if isinstance(config, str) else "")


def deleted_ids(action: str, body: Mapping[str, Any]) -> list[str]:
    """Return the ids that a webhook reports as deleted."""
    items = _listed(body.get(DELETED[action]))
    return [_name(item["id"]) for item in items if item.get("id") is not None]


def _name(value: Any) -> str:
    """Return an id in a form that the tables take: it may be any JSON value, even with lone surrogates."""
    return words(str(value)[:32])[:32]


def who(annotation: Mapping[str, Any]) -> str:
    """Return the name of an annotation's person, or their id if there is no name."""
    person = annotation.get("completed_by")
    if isinstance(person, Mapping):
        person = person.get("email") or person.get("id")
    name = annotation.get("created_username")
    return str(name).strip() if isinstance(name, str) and name.strip() else str(person or "")


def saved_at(annotation: Mapping[str, Any]) -> float:
    """Return when an annotation was saved, in seconds since the epoch; 0.0 if unknown."""
    return moment(annotation.get("updated_at") or annotation.get("created_at"))


def corrections_of(
    annotation: Annotation,
    tracks: Sequence[Track],
    changed: FrameHints,
    predicted: Mapping[str, Collection[int]],
    shown: Collection[int],
    seen: Collection[int],
) -> list[Correction]:
    """Return what an annotation says about each object.

    Args:
        annotation: the annotation.
        tracks: its masks, by frame of the whole video.
        changed: what a person drew, by object and frame; an empty mask where they removed it.
        predicted: the objects that were predicted, with the frames on which the prediction was shown. If a person saw
            such a frame and changed nothing, they accepted it. No frame is accepted for an object that only a person
            drew: elsewhere, nobody said that it is absent.
        shown: frames that the task shows.
        seen: frames that a person is known to have looked at, see `seen_frames`.

    Returns:
        Objects about which something is known, in the order of the tracks, with masks on known frames only.
    """
    found = []
    for track in tracks:
        masks = dict(track.masks)
        hints = changed.get(track.object_id, {})
        for frame, hint in hints.items():
            masks.pop(frame, None)
            if hint.mask is not None and area(hint.mask):
                masks[frame] = hint.mask
        drawn = {frame for frame, hint in hints.items() if hint.mask is not None} & set(shown)
        if track.object_id in predicted:
            accepted = set(predicted[track.object_id]) & set(shown) & set(seen) - drawn
        else:
            drawn |= masks.keys() & set(shown)
            accepted = set()
        known = drawn | accepted
        if known:
            own = Track(track.object_id, track.label, track.expression)
            own.masks = {frame: mask for frame, mask in sorted(masks.items()) if frame in known}
            own.scores = dict.fromkeys(sorted(known), 1.0)
            found.append(Correction(annotation, own, frozenset(drawn), frozenset(accepted)))
    return found


def seen_frames(changes: Corrections) -> set[int]:
    """Return the frames that a person is known to have looked at: they drew, erased, clicked or boxed something there.

    An annotation does not tell which other frames were on the screen. Deleting an object from all frames takes a single
    action, without looking at any of them.
    """
    seen: set[int] = set()
    for object_id, hints in changes.masks.items():
        its = {
            name.frame
            for region in changes.sent
            if (name := region_name(region)) and name.object_id == object_id
        }
        gone = {frame for frame, hint in hints.items() if hint.mask is not None and not area(hint.mask)}
        seen |= hints.keys() - (gone if its <= gone else set())
    return seen.union(*changes.pointed.values())


def _listed(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, Mapping)]


LOCK_FILE = "collecting.lock"
BULK = "ANNOTATIONS_CREATED"
# Webhooks read at a time: each may hold megabytes.
PORTION = 10

Progress = Callable[[float, str], None]

log = logging.getLogger(__name__)


@dataclass
class Collected:
    """The outcome of reading the webhooks.

    Attributes:
        annotations: how many say something; removed: how many were deleted or say nothing any more; put_off: how many
            could not be used and will be tried again.
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
    """Reads each webhook once, in order; what fails is tried again later.

    Args:
        settings: where Label Studio is, and how predictions were sent.
        database: webhooks in, corrections out.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.connections = ConnectionStore(database)
        self.label_studio = LabelStudioAccess(settings, self.connections)
        self.events, self.inbox = EventStore(database), Inbox(database)
        self.corrections, self.objects = CorrectionStore(database), ObjectStore(database)
        self.tasks = TaskStore(database)
        self.sent = SentStore(database)

    def pending(self) -> bool:
        """Whether there are webhooks to read."""
        return self.events.latest(ACTIONS) > self.inbox.position() or bool(self.inbox.due())

    def collect(self, progress: Progress = lambda *_: None) -> Collected:
        """Read all new webhooks, and those that are due to be tried again.

        Raises:
            SvacError: another process has been collecting for minutes, or the database cannot be used.
        """
        done = Collected()
        with self._alone():
            for number in self.inbox.due():
                found = self.events.find(after=number - 1, limit=1)
                if found and found[0].id == number:
                    self._use(found[0], done)
                else:
                    self.inbox.settle(number)
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
        """Hold the lock: two collectors at once would each see only half of an annotation's history."""
        try:
            with FileLock(self.settings.data_dir / LOCK_FILE, timeout=300):
                yield
        except Timeout as error:
            raise SvacError(
                "Another process has been collecting corrections for minutes.", "Try again later."
            ) from error

    def _use(self, event: Event, done: Collected) -> None:
        # One malformed annotation must not keep others from being read, in this webhook and in later ones.
        problems: list[SvacError] = []
        with self._aside(event, problems):
            if event.action in ANNOTATED:
                for one in submitted(event.body):
                    with self._aside(event, problems):
                        self._take(event, one, done)
            else:
                ids = deleted_ids(event.action, event.body)
                if event.action == "TASKS_DELETED":
                    done.removed += self.corrections.delete_tasks(event.project_id, ids, event.id)
                    self.tasks.delete(event.project_id, ids)
                else:
                    done.removed += self.corrections.delete(event.project_id, ids, event.id)
        if problems:
            # If one of the problems is temporary, the webhook must not be given up because of another.
            first = next((one for one in problems if one.temporary), problems[0])
            self.inbox.put_off(event.id, first.message, first.hint, temporary=first.temporary)
            done.put_off += 1
        else:
            self.inbox.settle(event.id)

    @contextmanager
    def _aside(self, event: Event, problems: list[SvacError]) -> Iterator[None]:
        """Note errors raised within it; only database errors are raised further."""
        try:
            yield
        except StoreError:
            raise
        except SvacError as error:
            log.warning("webhook %d is put off: %s", event.id, error)
            problems.append(error)
        except Exception as error:
            log.exception("webhook %d cannot be used", event.id)
            problems.append(SvacError(f"Unexpected error ({type(error).__name__}).", "See the worker's log."))

    def _take(self, event: Event, one: Submitted, done: Collected) -> None:
        known = self.corrections.annotation(event.project_id, one.id)
        if known is not None and known.event > event.id:
            return  # a later webhook about it was read already
        saved = saved_at(one.annotation)
        if known is not None and 0 < saved < known.saved:
            return  # an earlier state, sent again
        about = Annotation(
            project_id=event.project_id,
            annotation_id=one.id,
            event=event.id,
            task_id=one.task_id,
            state=AnnotationState.SKIPPED,
            ground_truth=bool(one.annotation.get("ground_truth")),
            who=who(one.annotation),
            saved=saved or event.received,
        )
        found: list[Correction] = []
        if not one.annotation.get("was_cancelled"):
            about, found = self._read(about, one)
        if event.action == BULK and not any(correction.drawn for correction in found):
            # Label Studio can turn all tasks' predictions into annotations at one click: nobody has looked at them.
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
        client = self.label_studio.client(about.project_id)
        predictions = predictions_before(
            client, about.task_id, one.annotation, self.sent.replaced(about.project_id, about.task_id)
        )
        video = video_name(video_identity(hostname, url))
        about = replace(about, state=AnnotationState.EMPTY, hostname=hostname, video_url=url, video=video)
        parent = parent_of(one.annotation, predictions)
        read = read_annotation(
            one.regions,
            [item["result"] for item in predictions],
            self.sent.find(about.project_id, about.task_id, person_of(one.annotation)),
            self.objects.find(about.project_id, video),
            data,
            config,
            parent=None if parent is None else parent["result"],
        )
        read.check_size(one.regions)
        canvas, changes = read.canvas, read.corrections
        if canvas is None:
            return about, []
        shown = _shown(data, config, canvas.window)
        predicted = self._predicted(changes.sent, shown)
        width, height = canvas.size
        about = replace(about, width=width, height=height, model_version=_version(parent, predictions))
        whole = about.ground_truth or names_project(self.settings.accept_untouched, about.project_id)
        sentences = read.sentences()
        regions = one.regions if whole else _without_unknown(one.regions, changes.sent)
        tracks = [replace(t, expression=sentences.get(t.object_id, "")) for t in read.tracks(regions)]
        seen = shown if whole else seen_frames(changes)
        made = {track.object_id: track.masks for track in tracks}
        masks = {
            name: {i: hint for i, hint in hints.items() if name in predicted or i in made.get(name, ())}
            for name, hints in changes.masks.items()
        }
        found = corrections_of(about, tracks, masks, predicted, shown, seen)
        if found:
            about = replace(about, state=AnnotationState.USED)
        return about, [replace(correction, annotation=about) for correction in found]

    def _predicted(self, sent: Sequence[Region], shown: Sequence[int]) -> dict[str, list[int]]:
        """Return the objects that the editor was sent, with the frames on which a person can accept them."""
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
    return [] if window is None else list(window.frames)


def _without_unknown(regions: Sequence[Region], sent: Sequence[Region]) -> list[Region]:
    """Leave out masks of the model whose prediction is gone: they cannot be compared, and perhaps nobody saw them."""
    compared = {name.object_id for region in sent if (name := region_name(region))}
    return [
        region
        for region in regions
        if (name := region_name(region)) is None
        or name.object_id in compared
        or region.get("origin") != "prediction"
    ]


def _version(parent: Mapping[str, Any] | None, predictions: Sequence[Mapping[str, Any]]) -> str:
    source = parent or (predictions[-1] if predictions else {})
    return str(source.get("model_version") or "")[:200]
