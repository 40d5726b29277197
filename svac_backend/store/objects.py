"""The objects of a video: ids that stay the same, however often and in however many tasks an object is asked for.

Also what a task's editor was sent in answer to prompts, so that a correction can be told from what the model drew.

Predictions come back with every interactive call. Answers do not: Label Studio's editor merges them into the draft. So
each answered region is kept, together with the frame hints of its object (masks, clicks, boxes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, select

from svac_backend.labelstudio.regions.region import Region
from svac_backend.masks.hints import FrameHint
from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.tables import ObjectRow, SentRow, SnapshotRow


def video_name(identity: str) -> str:
    """Return the name under which a video's objects are kept, 64 hex digits; see `predictions.video_identity`."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


class ObjectStore:
    """Objects in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def find(self, project_id: str, video: str) -> list[ObjectPrompt]:
        """Return a video's known objects, the oldest first."""
        query = select(ObjectRow).where(ObjectRow.project_id == project_id, ObjectRow.video == video)
        with self.database.read() as session:
            rows = session.scalars(query.order_by(ObjectRow.created, ObjectRow.object_id))
            return [ObjectPrompt(row.object_id, row.label, row.expression) for row in rows]

    def claim(
        self,
        project_id: str,
        video: str,
        wishes: Sequence[tuple[str, str]],
        *,
        known: Iterable[ObjectPrompt] = (),
        taken: Collection[str] = (),
    ) -> list[ObjectPrompt]:
        """Return an object for each wish: the known one with the same label and expression, or a new one.

        Args:
            project_id, video: the video, see `video_name`.
            wishes: (label, expression) pairs; an empty expression is always a new object.
            known: objects that have ids without having been claimed, such as those of the task's own prompt.
            taken: further ids that are in use.
        """
        now = self.database.time()
        with self.database.write(f"objects {project_id} {video}") as session:
            query = select(ObjectRow).where(ObjectRow.project_id == project_id, ObjectRow.video == video)
            rows = list(session.scalars(query.order_by(ObjectRow.created)))
            ids = {(row.label, row.expression): row.object_id for row in reversed(rows) if row.expression}
            known = list(known)
            ids |= {(one.label, one.expression): one.object_id for one in reversed(known)}
            used = {*taken, *(row.object_id for row in rows), *(one.object_id for one in known)}
            found = []
            for label, expression in wishes:
                object_id = ids.get((label, expression)) if expression else None
                if object_id is None:
                    object_id = _free(used)
                    used.add(object_id)
                    ids[label, expression] = object_id
                    session.add(
                        ObjectRow(
                            project_id=project_id,
                            video=video,
                            object_id=object_id,
                            label=label,
                            expression=expression,
                            created=now,
                        )
                    )
                found.append(ObjectPrompt(object_id, label, expression))
            return found


def _free(used: Collection[str]) -> str:
    number = 1
    while f"obj{number}" in used:
        number += 1
    return f"obj{number}"


HintsByFrame = Mapping[int, FrameHint]

# Stands for the person if no draft told who asked: in answers of older versions, or when Label Studio cannot be asked.
NOBODY = ""

# How many replaced states of a task's predictions are kept: an open editor may still show one of them.
REPLACED = 20


@dataclass(frozen=True)
class SentObject:
    """What interactive calls were answered about one object of a task.

    Attributes:
        regions: the answered regions, the latest for each (id, control). They include regions sent to others, whose
            annotation this person may copy or continue, except under ids that this person was sent, too.
        hints: what this person showed of it, by 0-based frame of the video.
        complete: whether the latest answer had all frames; False if its time ran out first.
        updated: when that was, in seconds since the epoch.
        own: whether this person is known to have asked for it; after a person's first answer that may be unknown.
        others: whether only others are known to have asked for it.
    """

    object_id: str
    regions: list[Region] = field(default_factory=list)
    hints: dict[int, FrameHint] = field(default_factory=dict)
    complete: bool = True
    updated: float = 0.0
    own: bool = True
    others: bool = False


@dataclass(frozen=True)
class Replaced:
    """What a prediction in Label Studio showed until a newer one replaced it.

    Attributes:
        prediction: its id, which stays; since: when this state was sent, in seconds since the epoch.
    """

    prediction: int
    since: float
    regions: list[Region]


class SentStore:
    """Answers of interactive calls in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def find(self, project_id: str, task_id: str, person: str = NOBODY) -> dict[str, SentObject]:
        """Return what a person's calls in a task were answered, by object id.

        An answer whose person is unknown counts for everybody, unless this person asked for the same object.
        """
        query = select(SentRow).where(SentRow.project_id == project_id, SentRow.task_id == task_id)
        found: dict[str, SentObject] = {}
        with self.database.read() as session:
            # The person's own rows come last, so that they override all others.
            rows = list(session.scalars(query))
            for row in sorted(
                rows, key=lambda row: (row.person == person, row.person == NOBODY, row.updated)
            ):
                regions = {_name(region): region for region in unpack(row.regions)}
                if (others := found.get(row.object_id)) is not None:
                    regions = {_name(region): region for region in others.regions} | regions
                mine = row.person in (person, NOBODY)
                found[row.object_id] = SentObject(
                    row.object_id,
                    list(regions.values()),
                    _hints(row) if mine else {},
                    row.complete if mine else True,
                    row.updated,
                    own=row.person == person,
                    others=not mine,
                )
        return dict(sorted(found.items(), key=lambda item: item[1].updated))

    def record(
        self,
        project_id: str,
        task_id: str,
        regions: Mapping[str, Sequence[Region]],
        hints: Mapping[str, HintsByFrame],
        *,
        person: str = NOBODY,
        complete: bool = True,
        forget: Collection[str] = (),
    ) -> None:
        """Keep an answer: its regions replace those with the same id, its hints replace all earlier ones.

        Args:
            project_id, task_id: the task.
            regions: by object id.
            hints: what the answer was made from, by object id; none for an object found by its expression.
            person: who asked, by their id in Label Studio; `NOBODY` if unknown.
            complete: whether the answer has all frames.
            forget: ids of regions that are no longer needed.
        """
        now = self.database.time()
        with self.database.write(f"sent {project_id} {task_id}") as session:
            for object_id in dict.fromkeys([*regions, *hints]):
                old = session.get(SentRow, (project_id, task_id, person, object_id))
                known = {} if old is None else {_name(region): region for region in unpack(old.regions)}
                known = {name: region for name, region in known.items() if name[0] not in forget}
                known |= {_name(region): region for region in regions.get(object_id, ())}
                shown = {str(frame): hint.to_json() for frame, hint in hints.get(object_id, {}).items()}
                session.merge(
                    SentRow(
                        project_id=project_id,
                        task_id=task_id,
                        person=person,
                        object_id=object_id,
                        regions=pack(list(known.values())),
                        prompts=pack(shown),
                        complete=complete,
                        updated=now,
                    )
                )

    def keep_replaced(self, project_id: str, task_id: str, one: Replaced) -> None:
        """Keep what a prediction in Label Studio showed before a newer one replaced it."""
        blob = pack(vars(one))
        mine = (SnapshotRow.project_id == project_id, SnapshotRow.task_id == task_id)
        now = self.database.time()
        with self.database.write(f"snapshots {project_id} {task_id}") as session:
            row = SnapshotRow(project_id=project_id, task_id=task_id, regions=blob, created=now)
            session.add(row)
            session.flush()
            kept = select(SnapshotRow.id).where(*mine).order_by(SnapshotRow.id.desc()).limit(REPLACED)
            session.execute(delete(SnapshotRow).where(*mine, SnapshotRow.id.not_in(kept.scalar_subquery())))

    def replaced(self, project_id: str, task_id: str) -> list[Replaced]:
        """Return what `keep_replaced` kept for a task, the oldest first."""
        query = select(SnapshotRow).where(
            SnapshotRow.project_id == project_id, SnapshotRow.task_id == task_id
        )
        with self.database.read() as session:
            found = [unpack(row.regions) for row in session.scalars(query.order_by(SnapshotRow.id))]
        # Rows of earlier versions hold an annotator's regions, for jobs that are long done.
        return [Replaced(**one) for one in found if isinstance(one, dict)]


def _name(region: Region) -> tuple[str, str]:
    return str(region.get("id")), str(region.get("from_name"))


def _hints(row: SentRow) -> dict[int, FrameHint]:
    return {int(frame): FrameHint.from_json(data) for frame, data in unpack(row.prompts).items()}
