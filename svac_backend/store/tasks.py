"""The tasks that this backend gave predictions, and what people made of them: what a project's manager wants to know.

A task is entered when a prediction is sent to it or /predict answers with one; it leaves when Label Studio says that it
was deleted. Its score is the one that Label Studio got: that of its worst stretch of frames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import ColumnElement, Subquery, and_, case, delete, func, or_, select, true, tuple_
from sqlalchemy.orm import Session

from svac_backend.store.database import Database
from svac_backend.store.tables import AnnotationRow, ConnectionRow, CorrectionRow, TaskRow

# Below this score, a person should look before anybody trusts the masks.
DOUBTFUL = 0.5
# Rows in one statement.
PORTION = 500
# States of annotations that a person has submitted.
_SUBMITTED = ("used", "empty")


@dataclass(frozen=True)
class PredictedTask:
    """A task and its latest prediction.

    Attributes:
        prediction: its key, see `store.predictions`.
        score: 0..1, low where a stretch of the frames needs a look.
        updated: when it was given, in seconds since the epoch.
    """

    project_id: str
    task_id: str
    prediction: str
    model_version: str
    score: float
    updated: float = 0.0


@dataclass(frozen=True)
class ProjectCounts:
    """How far a project is, in tasks.

    Attributes:
        predicted: tasks that have a prediction.
        submitted: tasks that a person has submitted; corrected: those of them on which somebody drew.
        doubtful: predicted tasks with a score below `DOUBTFUL` that nobody has submitted.
    """

    project_id: str
    predicted: int = 0
    submitted: int = 0
    corrected: int = 0
    doubtful: int = 0


@dataclass(frozen=True)
class TaskLine:
    """A task in a list: its prediction, whether people have submitted it, and on how many frames they drew."""

    task: PredictedTask
    submitted: bool
    drawn: int


class TaskFilter(str, Enum):
    """Which tasks of a project to list."""

    ALL = "all"
    DOUBTFUL = "doubtful"
    OPEN = "open"
    SUBMITTED = "submitted"


class TaskStore:
    """Tasks in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, tasks: Sequence[PredictedTask]) -> None:
        """Enter tasks, replacing what is known about them; write nothing if nothing is new."""
        wanted = {(one.project_id, one.task_id): one for one in tasks if one.task_id}
        with self.database.read() as session:
            known = {_id(row): (row.prediction, row.score) for row in _rows(session, list(wanted))}
        changed = [one for key, one in wanted.items() if known.get(key) != (one.prediction, one.score)]
        if not changed:
            return
        now = self.database.time()
        rows = [{**vars(one), "updated": one.updated or now} for one in changed]
        added = self.database.insert(TaskRow)
        values = {name: added.excluded[name] for name in ("prediction", "model_version", "score", "updated")}
        statement = added.on_conflict_do_update(index_elements=["project_id", "task_id"], set_=values)
        with self.database.write(*{_lock(one.project_id) for one in changed}) as session:
            session.execute(statement, rows)

    def delete(self, project_id: str, task_ids: Collection[str]) -> None:
        """Forget tasks that were deleted in Label Studio."""
        mine = (TaskRow.project_id == project_id, TaskRow.task_id.in_(task_ids))
        with self.database.write(_lock(project_id)) as session:
            session.execute(delete(TaskRow).where(*mine))

    def get(self, project_id: str, task_id: str) -> PredictedTask | None:
        """Return a task, or None if it has no prediction."""
        with self.database.read() as session:
            row = session.get(TaskRow, (project_id, task_id))
            return None if row is None else _task(row)

    def given(self, project_id: str, task_ids: Collection[str]) -> set[str]:
        """Return those of some tasks that were given a prediction."""
        with self.database.read() as session:
            return {row.task_id for row in _rows(session, [(project_id, task) for task in task_ids])}

    def projects(self) -> list[ProjectCounts]:
        """Return every project that is connected or has tasks or annotations, ordered by number."""
        counts: dict[str, dict[str, int]] = {}
        people = _people()
        given = (
            select(
                TaskRow.project_id,
                func.count(),
                func.sum(case((and_(TaskRow.score < DOUBTFUL, people.c.task_id.is_(None)), 1), else_=0)),
            )
            .outerjoin(people, _same(people))
            .group_by(TaskRow.project_id)
        )
        made = select(
            people.c.project_id, func.count(), func.sum(case((people.c.drawn > 0, 1), else_=0))
        ).group_by(people.c.project_id)
        with self.database.read() as session:
            for (project,) in session.execute(select(ConnectionRow.project_id)):
                counts[project] = {}
            for project, predicted, doubtful in session.execute(given):
                counts.setdefault(project, {}).update(predicted=predicted, doubtful=int(doubtful))
            for project, submitted, corrected in session.execute(made):
                counts.setdefault(project, {}).update(submitted=submitted, corrected=int(corrected))
        return [ProjectCounts(project, **counts[project]) for project in sorted(counts, key=by_number)]

    def page(
        self,
        project_id: str,
        which: TaskFilter = TaskFilter.ALL,
        *,
        after: tuple[float, str] | None = None,
        limit: int = 50,
    ) -> list[TaskLine]:
        """Return tasks of a project, the least certain first.

        Args:
            project_id: the project.
            which: which of its tasks.
            after: score and id of the last task on the previous page.
            limit: how many tasks at most.
        """
        people = _people(project_id)
        conditions = {
            TaskFilter.ALL: true(),
            TaskFilter.DOUBTFUL: and_(TaskRow.score < DOUBTFUL, people.c.task_id.is_(None)),
            TaskFilter.OPEN: people.c.task_id.is_(None),
            TaskFilter.SUBMITTED: people.c.task_id.is_not(None),
        }
        query = (
            select(TaskRow, people.c.task_id, people.c.drawn)
            .outerjoin(people, _same(people))
            .where(TaskRow.project_id == project_id, conditions[which])
            .order_by(TaskRow.score, TaskRow.task_id)
            .limit(limit)
        )
        if after is not None:
            score, task = after
            query = query.where(
                or_(TaskRow.score > score, and_(TaskRow.score == score, TaskRow.task_id > task))
            )
        with self.database.read() as session:
            return [
                TaskLine(_task(row), seen is not None, int(drawn or 0))
                for row, seen, drawn in session.execute(query)
            ]


def by_number(project_id: str) -> tuple[int, str]:
    """Return a sort key for projects: 2 comes before 10."""
    return (int(project_id) if project_id.isascii() and project_id.isdigit() else 0, project_id)


def _people(project_id: str = "") -> Subquery:
    """The tasks that people have submitted, with the number of frames on which they drew."""
    mine = (
        CorrectionRow.project_id == AnnotationRow.project_id,
        CorrectionRow.annotation_id == AnnotationRow.annotation_id,
    )
    query = (
        select(
            AnnotationRow.project_id,
            AnnotationRow.task_id,
            func.sum(func.coalesce(CorrectionRow.drawn, 0)).label("drawn"),
        )
        .outerjoin(CorrectionRow, and_(*mine))
        .where(AnnotationRow.state.in_(_SUBMITTED), AnnotationRow.task_id != "")
        .group_by(AnnotationRow.project_id, AnnotationRow.task_id)
    )
    if project_id:
        query = query.where(AnnotationRow.project_id == project_id)
    return query.subquery()


def _same(people: Subquery) -> ColumnElement[bool]:
    return and_(people.c.project_id == TaskRow.project_id, people.c.task_id == TaskRow.task_id)


def _rows(session: Session, keys: Sequence[tuple[str, str]]) -> Iterator[TaskRow]:
    for start in range(0, len(keys), PORTION):
        some = keys[start : start + PORTION]
        yield from session.scalars(
            select(TaskRow).where(tuple_(TaskRow.project_id, TaskRow.task_id).in_(some))
        )


def _lock(project_id: str) -> str:
    return f"tasks {project_id}"


def _id(row: TaskRow) -> tuple[str, str]:
    return row.project_id, row.task_id


def _task(row: TaskRow) -> PredictedTask:
    return PredictedTask(**{name: getattr(row, name) for name in PredictedTask.__dataclass_fields__})
