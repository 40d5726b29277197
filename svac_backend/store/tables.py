"""The tables. Times are seconds since the epoch (UTC); JSON that can be large is compressed.

A change here needs a migration in `store/migrations/`, and its number in `schema.HEAD`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

# Word for word: SQLite uses a partial index only if a query repeats its condition.
WAITING = text("jobs.state = 'queued' AND jobs.due IS NULL")


class Words(TypeDecorator[str]):
    """Text for people. Lone surrogates and NUL, which no database takes, are stored as escapes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """See sqlalchemy."""
        return None if value is None else words(value)


def words(value: str) -> str:
    """Return text as `Words` stores it."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")


class Long(TypeDecorator[str]):
    """Text of any length. Lone surrogates, which no database takes, are escaped; in PostgreSQL NUL is, too."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """See sqlalchemy."""
        if value is None or dialect.name != "sqlite":
            return None if value is None else words(value)
        return value.encode("utf-8", "backslashreplace").decode()


class Name(Long):
    """A short text: an id, a key, a kind. Its length is declared but not enforced: a longer one must not be lost."""

    impl = String  # type: ignore[assignment]
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take any length in PostgreSQL, too, which would refuse a longer text."""
        return dialect.type_descriptor(String() if dialect.name == "postgresql" else self.impl_instance)


# PostgreSQL enforces the range of its types, and a file may be larger than 2 GB.
Size = Integer().with_variant(BigInteger(), "postgresql")


def _where(condition: str) -> dict[str, Any]:
    """Return the arguments that make an index partial."""
    return {f"{system}_where": text(condition) for system in ("sqlite", "postgresql")}


class Base(DeclarativeBase):
    """Root of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Double()}


class JobRow(Base):
    """A unit of work for the worker; see `store.jobs.Job` for the meaning of each column."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    kind: Mapped[str] = mapped_column(Name(32))
    lane: Mapped[str] = mapped_column(Name(16), server_default="model")
    state: Mapped[str] = mapped_column(Name(16))
    key: Mapped[str] = mapped_column(Name(200))
    priority: Mapped[int] = mapped_column(default=0)
    progress: Mapped[float] = mapped_column(default=0.0)
    message: Mapped[str] = mapped_column(Words, default="")
    video: Mapped[str] = mapped_column(Name(64), default="", server_default="")
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    error: Mapped[str | None] = mapped_column(Words, default=None)
    hint: Mapped[str | None] = mapped_column(Words, default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    due: Mapped[float | None] = mapped_column(default=None)
    config: Mapped[str | None] = mapped_column(Name(64), default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    worker_id: Mapped[str | None] = mapped_column(Name(100), default=None)
    heartbeat: Mapped[float | None] = mapped_column(default=None)
    created: Mapped[float]
    started: Mapped[float | None] = mapped_column(default=None)
    finished: Mapped[float | None] = mapped_column(default=None)

    __table_args__ = (
        # Two active jobs can never share a key, whatever process submits them; finished ones may.
        Index("jobs_active_key", "key", unique=True, **_where("state IN ('queued', 'running')")),
        Index(
            "jobs_waiting",
            "lane",
            priority.desc(),
            "created",
            "id",
            **_where("state = 'queued' AND due IS NULL"),
        ),
        Index("jobs_video", "lane", "video", **_where("state = 'queued' AND due IS NULL")),
        Index("jobs_due", "due", **_where("due IS NOT NULL")),
        Index("jobs_key", "key", "created"),
        Index("jobs_kind", "kind", "state", "created"),
        Index("jobs_state_created", "state", "created"),
        Index("jobs_created", "created"),
    )


class ConfigRow(Base):
    """A labelling config, packed. Jobs refer to it by its hash, so that thousands of jobs of a project share it."""

    __tablename__ = "configs"

    sha256: Mapped[str] = mapped_column(Name(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class WorkerRow(Base):
    """A worker process, and when it last gave a sign of life."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Name(100), primary_key=True)
    device: Mapped[str] = mapped_column(Name(100), default="")
    model_version: Mapped[str] = mapped_column(Name(100), default="")
    started: Mapped[float]
    heartbeat: Mapped[float]
    gpu_used: Mapped[float | None] = mapped_column(default=None)
    gpu_total: Mapped[float | None] = mapped_column(default=None)
    node: Mapped[str] = mapped_column(Name(100), default="", server_default="")
    role: Mapped[str] = mapped_column(Name(16), default="", server_default="")
    drained: Mapped[bool] = mapped_column(default=False, server_default=false())


class DrainRow(Base):
    """A node whose workers take no more jobs; see `store.drains`."""

    __tablename__ = "drains"

    node: Mapped[str] = mapped_column(Name(100), primary_key=True)
    until: Mapped[float]
    since: Mapped[float]


class PredictionRow(Base):
    """What the model found in a video, once for each (video, prompts, model version)."""

    __tablename__ = "predictions"

    key: Mapped[str] = mapped_column(Name(64), primary_key=True)
    model_version: Mapped[str] = mapped_column(Name(100))
    project_id: Mapped[str] = mapped_column(Name(32))
    task_id: Mapped[str] = mapped_column(Name(32))
    tracks: Mapped[bytes] = mapped_column(LargeBinary)
    width: Mapped[int]
    height: Mapped[int]
    fps: Mapped[float]
    frame_count: Mapped[int]
    score: Mapped[float]
    created: Mapped[float]

    __table_args__ = (Index("predictions_task", "project_id", "task_id"),)


class TaskRow(Base):
    """A task in Label Studio, and its latest prediction; see `store.tasks`."""

    __tablename__ = "tasks"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    task_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    prediction: Mapped[str] = mapped_column(Name(64))
    model_version: Mapped[str] = mapped_column(Name(100))
    score: Mapped[float]
    updated: Mapped[float]

    __table_args__ = (Index("tasks_score", "project_id", "score", "task_id"),)


class RenderingRow(Base):
    """A prediction's Label Studio results for one labelling config, so that /predict need not build them."""

    __tablename__ = "renderings"

    prediction_key: Mapped[str] = mapped_column(
        ForeignKey("predictions.key", ondelete="CASCADE"), primary_key=True
    )
    config_key: Mapped[str] = mapped_column(Name(64), primary_key=True)
    results: Mapped[bytes] = mapped_column(LargeBinary)
    created: Mapped[float]

    __table_args__ = (Index("renderings_created", "created"),)


class ConnectionRow(Base):
    """A project's Label Studio, token and config, from its last /setup."""

    __tablename__ = "connections"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    hostname: Mapped[str] = mapped_column(Long)
    access_token: Mapped[str] = mapped_column(Long)
    label_config: Mapped[str] = mapped_column(Long)
    updated: Mapped[float]


class EventRow(Base):
    """One webhook, as it came."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    action: Mapped[str] = mapped_column(Name(100))
    project_id: Mapped[str] = mapped_column(Name(32), default="")
    body: Mapped[bytes] = mapped_column(LargeBinary)
    received: Mapped[float]

    __table_args__ = (Index("events_action", "action", "id"),)


class ObjectRow(Base):
    """An object of a video: its id, label and expression. All windows of a video share the same objects."""

    __tablename__ = "objects"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    video: Mapped[str] = mapped_column(Name(64), primary_key=True)
    object_id: Mapped[str] = mapped_column(Name(64), primary_key=True)
    label: Mapped[str] = mapped_column(Long)
    expression: Mapped[str] = mapped_column(Long)
    created: Mapped[float]


class SentRow(Base):
    """What a person's interactive calls in a task were answered about one object; see `store.objects.SentObject`."""

    __tablename__ = "sent"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    task_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    person: Mapped[str] = mapped_column(Name(32), primary_key=True)
    object_id: Mapped[str] = mapped_column(Name(64), primary_key=True)
    regions: Mapped[bytes] = mapped_column(LargeBinary)
    prompts: Mapped[bytes] = mapped_column(LargeBinary)
    complete: Mapped[bool] = mapped_column(default=True)
    updated: Mapped[float]


class SnapshotRow(Base):
    """What a prediction in Label Studio showed before a newer one replaced it."""

    __tablename__ = "snapshots"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project_id: Mapped[str] = mapped_column(Name(32))
    task_id: Mapped[str] = mapped_column(Name(32))
    regions: Mapped[bytes] = mapped_column(LargeBinary)
    created: Mapped[float]

    __table_args__ = (Index("snapshots_task", "project_id", "task_id", "id"),)


class PartRow(Base):
    """The tracks found so far of a prediction that is still being made."""

    __tablename__ = "parts"

    key: Mapped[str] = mapped_column(Name(64), primary_key=True)
    prediction: Mapped[bytes] = mapped_column(LargeBinary)
    updated: Mapped[float]


class AnnotationRow(Base):
    """A human-made annotation, as its latest webhook reported it; see `store.corrections`."""

    __tablename__ = "annotations"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    annotation_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    event: Mapped[int]
    task_id: Mapped[str] = mapped_column(Name(32), default="")
    state: Mapped[str] = mapped_column(Name(16))
    ground_truth: Mapped[bool] = mapped_column(default=False)
    hostname: Mapped[str] = mapped_column(Long, default="")
    video_url: Mapped[str] = mapped_column(Long, default="")
    video: Mapped[str] = mapped_column(Name(64), default="")
    width: Mapped[int] = mapped_column(default=0)
    height: Mapped[int] = mapped_column(default=0)
    who: Mapped[str] = mapped_column(Long, default="")
    saved: Mapped[float] = mapped_column(default=0.0)
    model_version: Mapped[str] = mapped_column(Name(200), default="")

    __table_args__ = (
        Index("annotations_video", "video"),
        Index("annotations_task", "project_id", "task_id"),
        Index("annotations_event", "event"),
    )


class CorrectionRow(Base):
    """What a human-made annotation says about one object."""

    __tablename__ = "corrections"

    project_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    annotation_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    object_id: Mapped[str] = mapped_column(Name(64), primary_key=True)
    expression: Mapped[str] = mapped_column(Long)
    track: Mapped[bytes] = mapped_column(LargeBinary)
    frames: Mapped[bytes] = mapped_column(LargeBinary)
    drawn: Mapped[int]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "annotation_id"],
            ["annotations.project_id", "annotations.annotation_id"],
            ondelete="CASCADE",
        ),
        # Kept apart, so that they can be counted without reading the masks.
        Index("corrections_drawn", "project_id", "annotation_id", "drawn"),
    )


class UncollectedRow(Base):
    """A webhook that could not be read for corrections yet, and when it is tried again."""

    __tablename__ = "uncollected"

    event: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    error: Mapped[str] = mapped_column(Words)
    hint: Mapped[str] = mapped_column(Words)
    tries: Mapped[int]
    due: Mapped[float]


class CursorRow(Base):
    """How far a reader has come, e.g. the last webhook that corrections were collected from."""

    __tablename__ = "cursors"

    name: Mapped[str] = mapped_column(Name(32), primary_key=True)
    value: Mapped[int]


class VersionRow(Base):
    """An adapter that fine-tuning made; see `store.versions.Version`."""

    __tablename__ = "versions"

    id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    base: Mapped[str] = mapped_column(Name(100))
    parent: Mapped[str] = mapped_column(Name(32), default="")
    sha256: Mapped[str] = mapped_column(Name(64))
    size: Mapped[int] = mapped_column(Size)
    state: Mapped[str] = mapped_column(Name(16))
    reason: Mapped[str] = mapped_column(Words, default="")
    figures: Mapped[dict[str, Any]] = mapped_column(JSON)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    job_id: Mapped[str] = mapped_column(Name(32), default="")
    created: Mapped[float]


class PromotionRow(Base):
    """Which version of a base serves, and since when; an empty version is the base itself."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    base: Mapped[str] = mapped_column(Name(100))
    version: Mapped[str] = mapped_column(Name(32))
    back: Mapped[bool]
    at: Mapped[float]

    __table_args__ = (Index("promotions_base", "base", "id"),)


class TrainingRow(Base):
    """A fine-tuning run: what was known when it began."""

    __tablename__ = "trainings"

    job_id: Mapped[str] = mapped_column(Name(32), primary_key=True)
    base: Mapped[str] = mapped_column(Name(100))
    parent: Mapped[str] = mapped_column(Name(32), default="")
    event: Mapped[int]
    corrections: Mapped[int]
    created: Mapped[float]
