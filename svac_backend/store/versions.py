"""Versions of the model: the adapters that fine-tuning made, and which of them serves.

A base is a model as the settings name and run it, e.g. `svac-3fa9c1d2`; a version of it is called
`<base>-<adapter id>`. Promotions form a stack: promoting puts a version on top, rolling back takes it off again, and
the top version serves. Damaged and deleted versions are passed over, so that the last good one serves.

Also fine-tuning runs, with what was known when each began, so that one can tell what is new since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from svac_backend.errors import SvacError
from svac_backend.store.database import Database
from svac_backend.store.tables import PromotionRow, TrainingRow, VersionRow

# Stands for the model without an adapter.
BASE = "base"
# A lock, so that one decision is made at a time: which version serves follows from all decisions before it.
LOCK = "versions"


class VersionState(str, Enum):
    """What was decided about a version: nothing yet for a `candidate`; `kept` was not good enough to serve."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    KEPT = "kept"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Version:
    """An adapter.

    Attributes:
        id: the first 8 hex digits of its hash.
        base: version of the model that it belongs to.
        parent: id of the adapter that its training started from; empty: the base.
        sha256: hash of its weights' file, which has `size` bytes.
        state: see `VersionState`; stays `promoted` after a rollback.
        reason: why it was promoted, kept, or is damaged.
        figures: what was measured; data: what it was trained on; both JSON-able.
        job_id: the fine-tuning run that made it.
        created: seconds since the epoch.
    """

    id: str
    base: str
    sha256: str
    size: int
    parent: str = ""
    state: VersionState = VersionState.CANDIDATE
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    job_id: str = ""
    created: float = 0.0

    @property
    def name(self) -> str:
        """The model version that Label Studio sees."""
        return f"{self.base}-{self.id}"


class VersionStore:
    """Versions in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def register(self, version: Version) -> Version:
        """Store a version, unless it is there already; return what is stored."""
        now = self.database.time()
        with self.database.write(LOCK) as session:
            row = session.get(VersionRow, version.id)
            if row is None:
                values = {**vars(version), "state": version.state.value}
                row = VersionRow(**{**values, "created": version.created or now})
                session.add(row)
                session.flush()
            return _version(row)

    def get(self, version_id: str) -> Version | None:
        """Return a version, or None."""
        with self.database.read() as session:
            row = session.get(VersionRow, version_id)
            return None if row is None else _version(row)

    def find(self, name: str) -> Version:
        """Return the version with an id, the beginning of an id, or a whole model version.

        Raises:
            SvacError: there is none, or more than one.
        """
        found = [one for one in self.all() if one.id.startswith(name) or one.name == name] if name else []
        exact = [one for one in found if name in (one.id, one.name)]
        if len(exact or found) != 1:
            many = "There are several versions" if found else "There is no version"
            raise SvacError(f"{many} {name[:60]!r}.", "See `svac-backend versions list`.")
        return (exact or found)[0]

    def all(self, base: str = "") -> list[Version]:
        """Return the versions, the newest first; only those of `base` if it is given."""
        query = select(VersionRow).order_by(VersionRow.created.desc(), VersionRow.id)
        if base:
            query = query.where(VersionRow.base == base)
        with self.database.read() as session:
            return [_version(row) for row in session.scalars(query)]

    def of_job(self, job_id: str) -> Version | None:
        """Return the version that a job made, or None."""
        with self.database.read() as session:
            row = session.scalar(select(VersionRow).where(VersionRow.job_id == job_id))
            return None if row is None else _version(row)

    def decide(self, version_id: str, state: VersionState, reason: str) -> None:
        """Record what was decided about a version."""
        with self.database.write(LOCK) as session:
            row = _row(session, version_id)
            row.state, row.reason = state.value, reason

    def promote(self, version_id: str, reason: str = "") -> Version:
        """Make a version serve from now on.

        Raises:
            SvacError: there is no version with that id, or it is damaged.
        """
        now = self.database.time()
        with self.database.write(LOCK) as session:
            row = _row(session, version_id)
            if row.state == VersionState.DAMAGED.value:
                raise SvacError(
                    f"Version {version_id} is damaged: {row.reason}", "Promote another one, or train again."
                )
            row.state, row.reason = VersionState.PROMOTED.value, reason or row.reason
            if _stack(session, row.base)[-1:] != [version_id]:
                session.add(PromotionRow(base=row.base, version=version_id, back=False, at=now))
            return _version(row)

    def roll_back(self, base: str, to: str | None = None) -> Version | None:
        """Make the previous version serve again; return it, or None for the base itself.

        Args:
            base: the model.
            to: the id of a version that served before, or `BASE`; None: the previous one.

        Raises:
            SvacError: no version served before, or that one did not.
        """
        now = self.database.time()
        with self.database.write(LOCK) as session:
            stack = _good(session, base)
            if not stack:
                raise SvacError(
                    "The base model serves, so there is nothing to roll back.", "Nothing needs to be done."
                )
            target = (stack[-2] if len(stack) > 1 else "") if to is None else ("" if to == BASE else to)
            if target and target not in stack[:-1]:
                raise SvacError(
                    f"Version {target} did not serve before the present one.",
                    "See `svac-backend versions list`; `promote` takes any version.",
                )
            session.add(PromotionRow(base=base, version=target, back=True, at=now))
            return _version(_row(session, target)) if target else None

    def serving(self, base: str) -> Version | None:
        """Return the version of a base that serves; None for the base itself."""
        with self.database.read() as session:
            stack = _good(session, base)
            return _version(_row(session, stack[-1])) if stack else None

    def passed_over(self, base: str) -> list[Version]:
        """Return the damaged versions that would serve, the last promoted one first."""
        with self.database.read() as session:
            good = set(_good(session, base)[-1:])
            found = []
            for version_id in reversed(_stack(session, base)):
                if version_id in good:
                    break
                row = session.get(VersionRow, version_id)
                if row is not None:
                    found.append(_version(row))
            return found

    def delete(self, version_id: str) -> None:
        """Forget a version.

        Raises:
            SvacError: there is no version with that id, or it serves.
        """
        with self.database.write(LOCK) as session:
            row = _row(session, version_id)
            if _good(session, row.base)[-1:] == [version_id]:
                raise SvacError(
                    f"Version {version_id} serves.",
                    "Roll back, or promote another version, before you delete it.",
                )
            session.execute(delete(VersionRow).where(VersionRow.id == version_id))


def _row(session: Session, version_id: str) -> VersionRow:
    row = session.get(VersionRow, version_id)
    if row is None:
        raise SvacError(f"There is no version {version_id[:60]!r}.", "See `svac-backend versions list`.")
    return row


def _stack(session: Session, base: str) -> list[str]:
    """Return the versions that were promoted and not rolled back; the current one is last."""
    stack: list[str] = []
    for row in session.scalars(
        select(PromotionRow).where(PromotionRow.base == base).order_by(PromotionRow.id)
    ):
        if not row.back:
            stack.append(row.version)
        else:
            stack = stack[: _last(stack, row.version) + 1]
    return stack


def _last(stack: list[str], version: str) -> int:
    return max((place for place, one in enumerate(stack) if one == version), default=-1)


def _good(session: Session, base: str) -> list[str]:
    """Return those versions of `_stack` that can serve."""
    query = select(VersionRow.id).where(
        VersionRow.base == base, VersionRow.state != VersionState.DAMAGED.value
    )
    good = set(session.scalars(query))
    return [version for version in _stack(session, base) if version in good]


def _version(row: VersionRow) -> Version:
    values = {name: getattr(row, name) for name in Version.__dataclass_fields__}
    return Version(**{**values, "state": VersionState(row.state)})


@dataclass(frozen=True)
class Training:
    """A fine-tuning run.

    Attributes:
        job_id: its job.
        base: version of the model without an adapter.
        parent: id of the adapter that it starts from, or empty.
        event: number of the last webhook whose annotations it learns from.
        corrections: how many it learns from.
        created: when it began, in seconds since the epoch.
    """

    job_id: str
    base: str
    parent: str
    event: int
    corrections: int
    created: float = 0.0


class TrainingStore:
    """Runs in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, training: Training) -> Training:
        """Store a run, unless it is there already, as after a crash; return what is stored."""
        now = self.database.time()
        with self.database.write(LOCK) as session:
            row = session.get(TrainingRow, training.job_id)
            if row is None:
                row = TrainingRow(**{**vars(training), "created": training.created or now})
                session.add(row)
                session.flush()
            return _training(row)

    def get(self, job_id: str) -> Training | None:
        """Return a run, or None."""
        with self.database.read() as session:
            row = session.get(TrainingRow, job_id)
            return None if row is None else _training(row)

    def last_event(self, base: str) -> int:
        """Return the number of the last webhook that any run of a model has learned from; 0 if there is none."""
        query = select(func.max(TrainingRow.event)).where(TrainingRow.base == base)
        with self.database.read() as session:
            return session.scalar(query) or 0


def _training(row: TrainingRow) -> Training:
    return Training(**{name: getattr(row, name) for name in Training.__dataclass_fields__})
