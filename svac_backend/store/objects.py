"""The objects of a video: ids that stay, however often, and in however many tasks, an object is asked for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import select

from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.store.database import Database
from svac_backend.store.tables import ObjectRow


def video_name(identity: str) -> str:
    """Return the name under which a video's objects are kept, 64 hex digits; see `predictions.video_identity`."""
    return hashlib.sha256(identity.encode()).hexdigest()


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
        """Return the object of each wish: the one that has the same label and expression, or a new one.

        Args:
            project_id, video: see `video_name`.
            wishes: (label, expression); an empty expression always is a new object.
            known: objects that have ids without having been claimed, such as those of the task's own prompt.
            taken: further ids that are in use.
        """
        with self.database.write() as session:
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
                            created=time.time(),
                        )
                    )
                found.append(ObjectPrompt(object_id, label, expression))
            return found


def _free(used: Collection[str]) -> str:
    number = 1
    while f"obj{number}" in used:
        number += 1
    return f"obj{number}"
