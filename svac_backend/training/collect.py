"""From what persons submitted to what can be learned: whose annotation, which frames were drawn, which accepted.

Free of torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from svac_backend.masks.prompts import Prompts
from svac_backend.masks.rle import area
from svac_backend.masks.tracks import Track
from svac_backend.store.corrections import Annotation, Correction

__all__ = [
    "ACTIONS",
    "ANNOTATED",
    "DELETED",
    "Correction",
    "Submitted",
    "corrections_of",
    "deleted_ids",
    "moment",
    "saved_at",
    "submitted",
    "who",
]

ANNOTATED = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED"})
DELETED = {"ANNOTATIONS_DELETED": "annotations", "TASKS_DELETED": "tasks"}
# Webhooks that change what there is to learn from.
ACTIONS = ANNOTATED | DELETED.keys()


@dataclass(frozen=True)
class Submitted:
    """One annotation of a webhook, with its task.

    Attributes:
        annotation, task: as Label Studio sends them; `task` has `data`.
        label_config: the project's labelling config, empty where the webhook has none.
    """

    annotation: Mapping[str, Any]
    task: Mapping[str, Any]
    label_config: str

    @property
    def id(self) -> str:
        """The annotation's id."""
        return str(self.annotation.get("id") or "")[:32]

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self.task.get("id") or "")[:32]

    @property
    def regions(self) -> list[dict[str, Any]]:
        """What the annotation holds."""
        result = self.annotation.get("result")
        return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []


def submitted(body: Mapping[str, Any]) -> Iterator[Submitted]:
    """Yield the annotations of a webhook; those whose task is not told are left out.

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
    """Return the ids of what a webhook says is deleted."""
    items = _listed(body.get(DELETED[action]))
    return [str(item["id"])[:32] for item in items if item.get("id") is not None]


def who(annotation: Mapping[str, Any]) -> str:
    """Return the name of an annotation's person, or the id where no name is told."""
    person = annotation.get("completed_by")
    if isinstance(person, Mapping):
        person = person.get("email") or person.get("id")
    name = annotation.get("created_username")
    return str(name).strip() if isinstance(name, str) and name.strip() else str(person or "")


def saved_at(annotation: Mapping[str, Any]) -> float:
    """Return when an annotation was saved, in seconds since the epoch; 0.0 where it is not told."""
    return moment(annotation.get("updated_at") or annotation.get("created_at"))


def moment(value: Any) -> float:
    """Return a time of Label Studio's, text or not, in seconds since the epoch; 0.0 where it is none."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return 0.0
    if not isinstance(found, datetime):
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def corrections_of(
    annotation: Annotation,
    tracks: Sequence[Track],
    changed: Prompts,
    predicted: Mapping[str, Collection[int]],
    shown: Collection[int],
) -> list[Correction]:
    """Return what an annotation says of each object.

    Args:
        annotation: whose.
        tracks: the annotation's masks, by frame of the whole video.
        changed: what a person drew, by object and frame; an empty mask where he removed it.
        predicted: the objects that were predicted, with the frames on which this was shown; what is not changed there
            was accepted. Of an object that only a person knew of, no frame is accepted: where he drew nothing, nobody
            said that it is not there.
        shown: frames that the task shows.

    Returns:
        Objects of which something is known, in the order of the tracks. Their tracks hold masks of those frames only.
    """
    found = []
    for track in tracks:
        masks = dict(track.masks)
        prompts = changed.get(track.object_id, {})
        for frame, prompt in prompts.items():
            masks.pop(frame, None)
            if prompt.mask is not None and area(prompt.mask):
                masks[frame] = prompt.mask
        drawn = {frame for frame, prompt in prompts.items() if prompt.mask is not None} & set(shown)
        if track.object_id in predicted:
            accepted = set(predicted[track.object_id]) & set(shown) - drawn
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


def _listed(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, Mapping)]
