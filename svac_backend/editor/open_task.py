"""A task that is open in an annotator's editor, and the work that a request needs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from svac_backend.editor.request import (
    Request,
    asker,
    pointed_object,
    predicted_regions,
    refined,
    shown_regions,
    tells_whose,
    used_ids,
)
from svac_backend.errors import SvacError
from svac_backend.jobs.payloads import PrelabelPayload, PropagatePayload, TaskPayload
from svac_backend.jobs.services import Services
from svac_backend.labelstudio.config import LabelConfig, cached_config
from svac_backend.labelstudio.corrections import Corrections, ReadAnnotation, known_objects, read_annotation
from svac_backend.labelstudio.regions.region import Canvas, Region, labels_of, region_name
from svac_backend.labelstudio.tasks import Window, text_wishes, window_of
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.tracks import CocoRle, ObjectPrompt, prompt_of
from svac_backend.store.objects import NOBODY, SentObject, video_name

# Seconds until the editor has surely saved the regions that it got in a draft.
UNSAVED_S = 30.0


@dataclass(frozen=True)
class Plan:
    """The work that a request needs.

    Attributes:
        payload: the payload of the job that does it.
        objects: ids of the objects that it predicts.
        hints: frame hints that the objects are predicted from, kept with the answer.
        kept: masks that people made of them, by object and frame: these stay as they are.
        replaces: whether the editor may show regions of these objects already.
        drawn: regions that a person drew, with ids made by the editor, that are replaced, too.
    """

    payload: PrelabelPayload | PropagatePayload
    objects: tuple[str, ...]
    hints: dict[str, dict[int, FrameHint]] = field(default_factory=dict)
    kept: dict[str, dict[int, FrameHint]] = field(default_factory=dict)
    replaces: bool = False
    drawn: tuple[Region, ...] = ()

    @property
    def names(self) -> list[str]:
        """The objects' names, in the order of `objects`; empty for an object that nobody named."""
        payload = self.payload
        its = payload.prompts if isinstance(payload, PrelabelPayload) else payload.objects
        return [one.expression for one in its]


@dataclass(frozen=True)
class OpenTask:
    """An annotator's task as the body of their call has it, and the earlier answers about it.

    Attributes:
        backend: the stores.
        base: the task as jobs know it.
        task: the task as Label Studio sent it.
        shown: the regions that the editor shows, as far as is known.
        predictions: the results of the task's predictions, the oldest first.
        answered: the answers to the person's interactive calls, by object.
        person: who asks; `NOBODY` until a draft tells.
    """

    backend: Services
    base: TaskPayload
    task: Mapping[str, Any]
    shown: list[Region]
    predictions: list[list[Region]]
    answered: dict[str, SentObject]
    person: str = NOBODY

    @classmethod
    def of(
        cls, backend: Services, base: TaskPayload, task: Mapping[str, Any], model_version: str
    ) -> OpenTask:
        """Read a task."""
        return cls(
            backend=backend,
            base=base,
            task=task,
            shown=shown_regions(task, model_version),
            predictions=predicted_regions(task),
            answered={},
        ).of_person(asker(task))

    def of_person(self, person: str, shown: list[Region] | None = None) -> OpenTask:
        """Return the task as this person has it open, with these regions if given."""
        answered = self.backend.sent.find(self.base.project_id, self.base.task_id, person)
        return replace(self, answered=answered, person=person, shown=self.shown if shown is None else shown)

    @property
    def config(self) -> LabelConfig:
        """The project's labelling config."""
        return cached_config(self.base.label_config)

    @property
    def window(self) -> Window | None:
        """Which frames the task shows."""
        return window_of(self.base.task_data)

    @cached_property
    def there(self) -> list[Region]:
        """All regions that the editor has or had, since the body is up to five seconds old."""
        sent = [region for one in self.answered.values() for region in one.regions]
        return [*self.shown, *sent]

    @cached_property
    def claimed(self) -> list[ObjectPrompt]:
        """The objects that were asked for in the editor."""
        return self.backend.objects.find(self.base.project_id, video_name(self.base.video))

    @cached_property
    def known(self) -> list[ObjectPrompt]:
        """The objects that have names."""
        return known_objects(self.base.task_data, self.config, self.claimed)

    @cached_property
    def annotation(self) -> ReadAnnotation:
        """What the editor shows, compared with what it was sent."""
        data, config = self.base.task_data, self.config
        return read_annotation(self.shown, self.predictions, self.answered, self.claimed, data, config)

    @property
    def corrections(self) -> Corrections:
        """What people have corrected in this task so far."""
        return self.annotation.corrections

    def plan(self, request: Request) -> Plan | None:
        """Return the work that a request needs; None if there is nothing to do.

        Raises:
            SvacError: the request makes no sense on this task.
        """
        if request.propagate:
            return self._propagate() or self._rest()
        if request.pointed:
            return self._point(request)
        return self._find(self._wishes(request.texts)) if request.texts else None

    def regions_to_remove(self, request: Request) -> tuple[str, list[Region]]:
        """Return the object to remove, and all its regions in the editor, including those that people drew.

        Raises:
            SvacError: the request names no object.
        """
        canvas = self.annotation.canvas
        object_id = None if canvas is None else self._meant(request, canvas)
        if object_id is None or canvas is None:
            raise SvacError(
                "This names no object, so nothing is removed.",
                "Ctrl+click the object's mask, or type remove and its sentence.",
            )
        drawings = self.annotation.drawn(self.shown, canvas).drawings
        return object_id, [
            dict(one) for drawing in drawings if drawing.object_id == object_id for one in drawing.results
        ]

    def _meant(self, request: Request, canvas: Canvas) -> str | None:
        if request.texts:
            wanted = str(request.texts[0]).casefold()
            names = [one.object_id for one in self._objects() if one.expression.casefold() == wanted]
            return next(iter(names), None)
        for item, hint in request.pointed.items():
            frame = canvas.frame(item)
            positive = FrameHint(clicks=tuple(replace(click, positive=True) for click in hint.clicks))
            if (
                found := pointed_object(positive, self._masks_on({frame}, canvas).get(frame, {}))
            ) is not None:
                return found
        return None

    def _wishes(self, texts: Sequence[Any]) -> list[tuple[str, str]]:
        most = self.backend.settings.max_prompt_chars
        return text_wishes(texts, self.config.mask_control(), max_chars=most, known=self._objects())

    def _rest(self) -> Plan | None:
        """Ask again for the objects whose last answer lacked frames."""
        unfinished = {name for name, one in self.answered.items() if not one.complete}
        wishes = [(one.label, one.expression) for one in self.known if one.object_id in unfinished]
        wishes = [wish for wish in wishes if wish[1]]
        return self._find(wishes) if wishes else None

    def _find(self, wishes: Sequence[tuple[str, str]]) -> Plan:
        """Look for objects by their expressions."""
        objects = self._claim(wishes)
        ids = tuple(one.object_id for one in objects)
        payload = PrelabelPayload(**vars(self.base), prompts=tuple(objects), push=False)
        replaces = self._has_regions(ids)
        kept = self._masks(ids) if replaces else {}
        return Plan(payload, ids, kept, kept=kept, replaces=replaces)

    def _point(self, request: Request) -> Plan:
        """Segment what was clicked on or boxed."""
        window = self.window
        pointed = {
            item if window is None else window.frame(item): hint for item, hint in request.pointed.items()
        }
        canvas = Canvas(*request.size, window)
        masks = self._masks_on(set(pointed), canvas)
        meant = (pointed_object(hint, masks.get(frame, {})) for frame, hint in pointed.items())
        object_id = next((one for one in meant if one is not None), None)
        if object_id is None:
            self.config.mask_control()
            (one,) = self._claim([(self._label(request.label), "")])
            hints = {one.object_id: pointed}
            return Plan(self._correction((one,), hints, request.size), (one.object_id,), hints)
        shown = self.corrections.hints(object_id)
        for frame, hint in pointed.items():
            mask = masks.get(frame, {}).get(object_id)
            shown[frame] = refined(hint, mask, shown.get(frame))
        name = next((one for one in self._objects() if one.object_id == object_id), None)
        if name is None:
            name = ObjectPrompt(object_id, self._label(request.label), "")
        kept = {frame: hint for frame, hint in shown.items() if hint.mask is not None}
        hints = {object_id: shown}
        payload = self._correction((name,), hints, request.size)
        drawn = self._drawn_on(set(pointed), object_id, canvas)
        return Plan(payload, (object_id,), hints, kept={object_id: kept}, replaces=True, drawn=drawn)

    def _propagate(self) -> Plan | None:
        """Carry people's corrections to the other frames."""
        hints, canvas = self.corrections.to_propagate(), self.annotation.canvas
        if not hints or canvas is None:
            return None
        objects = tuple(one for one in self._objects() if one.object_id in hints)
        payload = self._correction(objects, hints, canvas.size)
        ids = tuple(one.object_id for one in objects)
        return Plan(payload, ids, hints, kept=self._masks(ids), replaces=True)

    def _correction(
        self,
        objects: tuple[ObjectPrompt, ...],
        hints: dict[str, dict[int, FrameHint]],
        size: tuple[int, int],
    ) -> PropagatePayload:
        window = self.window
        frames = None if window is None else (window.start, window.frame(window.count - 1) + 1)
        return PropagatePayload(**vars(self.base), objects=objects, hints=hints, size=size, frames=frames)

    def _claim(self, wishes: Sequence[tuple[str, str]]) -> list[ObjectPrompt]:
        return self.backend.objects.claim(
            self.base.project_id,
            video_name(self.base.video),
            wishes,
            known=self.known,
            taken=used_ids(self.task) | self.answered.keys(),
        )

    def _objects(self) -> list[ObjectPrompt]:
        """Every object of the task, drawn or named."""
        found = {one.object_id: one for one in (*self.known, *self.corrections.objects)}
        return list(found.values())

    def _has_regions(self, objects: Sequence[str]) -> bool:
        """Whether the editor shows any of some objects: in what it saved, or in answers too recent to be saved."""
        maybe = [] if tells_whose(self.task) else [one for result in self.predictions for one in result]
        names = (region_name(region) for region in (*self.shown, *maybe))
        if any(
            name is not None and {name.object_id, prompt_of(name.object_id)} & set(objects) for name in names
        ):
            return True
        lately = time.time() - UNSAVED_S
        answers = (self.answered.get(object_id) for object_id in objects)
        return any(
            one is not None and one.regions and one.updated > lately and not one.others for one in answers
        )

    def _masks(self, objects: Sequence[str]) -> dict[str, dict[int, FrameHint]]:
        """Return the masks that people made of some objects."""
        masks = self.corrections.masks
        return {
            name: shown for name, shown in masks.items() if shown and {name, prompt_of(name)} & set(objects)
        }

    def _masks_on(self, frames: set[int], canvas: Canvas) -> dict[int, dict[str, CocoRle]]:
        """Return the masks of all objects on some frames, by frame and object."""
        tracks = self.annotation.tracks(self._on(frames), canvas)
        return {
            frame: {one.object_id: one.masks[frame] for one in tracks if frame in one.masks}
            for frame in frames
        }

    def _drawn_on(self, frames: set[int], object_id: str, canvas: Canvas) -> tuple[Region, ...]:
        """Return a person's regions of an object on some frames; their ids do not name the object."""
        drawings = self.annotation.drawn(self._on(frames), canvas).drawings
        regions = [
            dict(one) for drawing in drawings if drawing.object_id == object_id for one in drawing.results
        ]
        return tuple(region for region in regions if region_name(region) is None)

    def _on(self, frames: set[int]) -> list[Region]:
        """Return the regions that the editor shows on some frames of the video."""
        window = self.window
        return [
            region
            for region in self.shown
            if isinstance(item := region.get("item_index"), int)
            and (item if window is None else window.frame(item)) in frames
        ]

    def _label(self, chosen: str | None) -> str:
        """Return the label of a new object: the chosen one, else the first unused one, else the first."""
        labels = self.config.mask_control().labels
        if chosen in labels:
            return str(chosen)
        used = {label for region in self.shown for label in labels_of(region)}
        return next((label for label in labels if label not in used), next(iter(labels)))
