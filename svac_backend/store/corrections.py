"""What people made of predictions: the tracks that fine-tuning learns from, kept as long as their annotations.

The latest webhook about an annotation counts. An older webhook that is read later changes nothing.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.orm import Session

from svac_backend.masks.tracks import Track
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.tables import AnnotationRow, CorrectionRow

# Of two webhooks about an annotation, the later must win.
LOCK = "corrections"

log = logging.getLogger(__name__)


class AnnotationState(str, Enum):
    """What became of an annotation: `used` has corrections, `empty` has none, `skipped`: the task was skipped."""

    USED = "used"
    EMPTY = "empty"
    SKIPPED = "skipped"
    DELETED = "deleted"


@dataclass(frozen=True)
class Annotation:
    """A human-made annotation.

    Attributes:
        event: number of the webhook that reported it.
        ground_truth: whether it is marked so in Label Studio.
        hostname: the Label Studio of the task; video_url: the address in the task's data.
        video: names the video, see `objects.video_name`.
        width, height: display size of the video in pixels.
        who: name or id of the annotator; saved: when, in seconds since the epoch.
        model_version: version that made the prediction it started from; empty if there was none.
    """

    project_id: str
    annotation_id: str
    event: int
    task_id: str
    state: AnnotationState
    ground_truth: bool = False
    hostname: str = ""
    video_url: str = ""
    video: str = ""
    width: int = 0
    height: int = 0
    who: str = ""
    saved: float = 0.0
    model_version: str = ""


@dataclass(frozen=True)
class Correction:
    """What an annotation says about one object.

    Attributes:
        annotation: who made it, where and when.
        track: the object's masks, by frame of the whole video.
        drawn: frames on which a person drew, changed or removed the mask.
        accepted: frames that were predicted, seen and submitted as they were. A frame of either kind without a mask
            says that the object is not visible there.
        video_path: the video's file, once it has been found here.
    """

    annotation: Annotation
    track: Track
    drawn: frozenset[int]
    accepted: frozenset[int]
    video_path: Path | None = None

    @property
    def expression(self) -> str:
        """The words that name the object."""
        return self.track.expression

    @property
    def task_id(self) -> str:
        """The task."""
        return self.annotation.task_id

    @property
    def project_id(self) -> str:
        """The project."""
        return self.annotation.project_id

    @property
    def annotation_id(self) -> str:
        """The annotation."""
        return self.annotation.annotation_id

    @property
    def video_url(self) -> str:
        """The address of the video in the task's data."""
        return self.annotation.video_url

    @property
    def hostname(self) -> str:
        """The Label Studio that a relative address belongs to."""
        return self.annotation.hostname

    @property
    def who(self) -> str:
        """Name or id of the annotator."""
        return self.annotation.who

    @property
    def when(self) -> float:
        """When it was saved, in seconds since the epoch."""
        return self.annotation.saved

    @property
    def model_version(self) -> str:
        """The version that made the prediction it started from."""
        return self.annotation.model_version

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {
            "annotation": {**vars(self.annotation), "state": self.annotation.state.value},
            "track": self.track.to_json(),
            "drawn": sorted(self.drawn),
            "accepted": sorted(self.accepted),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Correction:
        """Read what `to_json` wrote."""
        about = {**data["annotation"], "state": AnnotationState(data["annotation"]["state"])}
        track = Track.from_json(data["track"])
        return cls(Annotation(**about), track, frozenset(data["drawn"]), frozenset(data["accepted"]))


class CorrectionStore:
    """Corrections in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, annotation: Annotation, corrections: Sequence[Correction] = ()) -> bool:
        """Store what an annotation says now in place of what it said; False if a later webhook was read already."""
        key = (annotation.project_id, annotation.annotation_id)
        with self.database.write(LOCK) as session:
            known = session.get(AnnotationRow, key)
            if known is not None and known.event > annotation.event:
                return False
            mine = (CorrectionRow.project_id == key[0], CorrectionRow.annotation_id == key[1])
            session.execute(delete(CorrectionRow).where(*mine))
            session.merge(AnnotationRow(**{**vars(annotation), "state": annotation.state.value}))
            session.flush()
            for one in corrections:
                session.add(
                    CorrectionRow(
                        project_id=key[0],
                        annotation_id=key[1],
                        object_id=one.track.object_id,
                        expression=one.track.expression,
                        track=pack(one.track.to_json()),
                        frames=pack([sorted(one.drawn), sorted(one.accepted)]),
                        drawn=len(one.drawn),
                    )
                )
        return True

    def delete(self, project_id: str, annotation_ids: Collection[str], event: int) -> int:
        """Forget deleted annotations; return how many of them had corrections.

        Args:
            project_id: empty if the webhook does not say.
            annotation_ids: the annotations.
            event: number of the webhook. An annotation that is not known yet is remembered as deleted: the webhook of
                its creation may be read later.
        """
        with self.database.write(LOCK) as session:
            query = select(AnnotationRow).where(AnnotationRow.annotation_id.in_(annotation_ids))
            if project_id:
                query = query.where(AnnotationRow.project_id == project_id)
            rows = list(session.scalars(query))
            for name in {*annotation_ids} - {row.annotation_id for row in rows} if project_id else ():
                state = AnnotationState.DELETED.value
                session.add(
                    AnnotationRow(project_id=project_id, annotation_id=name, event=event, state=state)
                )
            return _remove(session, [row for row in rows if row.event <= event], event)

    def delete_tasks(self, project_id: str, task_ids: Collection[str], event: int) -> int:
        """Forget the annotations of deleted tasks; return how many of them had corrections."""
        query = select(AnnotationRow).where(
            AnnotationRow.project_id == project_id,
            AnnotationRow.task_id.in_(task_ids),
            AnnotationRow.event <= event,
        )
        with self.database.write(LOCK) as session:
            return _remove(session, list(session.scalars(query)), event)

    def all(self, *, project_id: str = "", video: str = "") -> list[Correction]:
        """Return all corrections, the oldest first; only those of a project or a video if one is given."""
        query = _joined()
        if project_id:
            query = query.where(AnnotationRow.project_id == project_id)
        if video:
            query = query.where(AnnotationRow.video == video)
        with self.database.read() as session:
            found = (_readable(row, about) for row, about in session.execute(query))
            return [one for one in found if one is not None]

    def of_task(self, project_id: str, task_id: str) -> list[Correction]:
        """Return the corrections of a task, the oldest first."""
        query = _joined().where(AnnotationRow.project_id == project_id, AnnotationRow.task_id == task_id)
        with self.database.read() as session:
            found = (_readable(row, about) for row, about in session.execute(query))
            return [one for one in found if one is not None]

    def for_training(self) -> list[Correction]:
        """Return the corrections to learn from: those of one annotation per task, the same that an export takes.

        It is the annotation marked as ground truth, or else the one saved last. Objects without an expression are left
        out.
        """
        found = [one for one in self.all() if one.expression.strip()]
        best: dict[tuple[str, str], Annotation] = {}
        for one in found:
            task = (one.project_id, one.task_id)
            if task not in best or _rank(one.annotation) > _rank(best[task]):
                best[task] = one.annotation
        return [one for one in found if best[one.project_id, one.task_id] == one.annotation]

    def annotation(self, project_id: str, annotation_id: str) -> Annotation | None:
        """Return what is known about an annotation, or None."""
        with self.database.read() as session:
            row = session.get(AnnotationRow, (project_id, annotation_id))
            return None if row is None else _annotation(row)

    def corrected_tasks(self, after: int = 0) -> int:
        """Return in how many tasks a person drew something, counting webhooks with a number above `after`."""
        tasks = (
            select(AnnotationRow.project_id, AnnotationRow.task_id)
            .join(CorrectionRow, _JOIN)
            .where(AnnotationRow.event > after, CorrectionRow.drawn > 0)
            .distinct()
            .subquery()
        )
        with self.database.read() as session:
            return int(session.scalar(select(func.count()).select_from(tasks)) or 0)


_JOIN = (AnnotationRow.project_id == CorrectionRow.project_id) & (
    AnnotationRow.annotation_id == CorrectionRow.annotation_id
)


def _joined() -> Select[CorrectionRow, AnnotationRow]:
    order = (AnnotationRow.saved, AnnotationRow.annotation_id, CorrectionRow.object_id)
    return select(CorrectionRow, AnnotationRow).join(AnnotationRow, _JOIN).order_by(*order)


def _remove(session: Session, rows: Sequence[AnnotationRow], event: int) -> int:
    removed = 0
    for row in rows:
        mine = (
            CorrectionRow.project_id == row.project_id,
            CorrectionRow.annotation_id == row.annotation_id,
        )
        count = session.scalar(select(func.count()).select_from(CorrectionRow).where(*mine))
        session.execute(delete(CorrectionRow).where(*mine))
        removed += bool(count)
        key = (
            AnnotationRow.project_id == row.project_id,
            AnnotationRow.annotation_id == row.annotation_id,
        )
        values = {"state": AnnotationState.DELETED.value, "event": event}
        session.execute(update(AnnotationRow).where(*key).values(**values))
    return removed


def _rank(annotation: Annotation) -> tuple[bool, float, int]:
    return annotation.ground_truth, annotation.saved, annotation.event


def _annotation(row: AnnotationRow) -> Annotation:
    values = {name: getattr(row, name) for name in Annotation.__dataclass_fields__}
    return Annotation(**{**values, "state": AnnotationState(row.state)})


def _readable(row: CorrectionRow, about: AnnotationRow) -> Correction | None:
    """Return None for a damaged row, so that the others can still be read."""
    try:
        return _correction(row, about)
    except (zlib.error, ValueError, KeyError, TypeError):
        what = f"{row.object_id} in annotation {row.annotation_id} of project {row.project_id}"
        log.error("the correction of %s is damaged and left out; submit the annotation again", what)
        return None


def _correction(row: CorrectionRow, about: AnnotationRow) -> Correction:
    drawn, accepted = unpack(row.frames)
    return Correction(
        _annotation(about), Track.from_json(unpack(row.track)), frozenset(drawn), frozenset(accepted)
    )
