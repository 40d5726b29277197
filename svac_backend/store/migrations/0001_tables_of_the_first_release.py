"""The tables of the first release.

The versions before it wrote them without migrations, in three steps that each only added tables: in their files, what
is there already stays as it is.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the tables that are missing."""
    table(
        "jobs",
        key("id", 32),
        column("kind", name(32)),
        column("state", name(16)),
        column("key", name(200)),
        column("priority", Integer),
        column("progress", Double),
        column("message", Text),
        column("payload", JSON),
        Column("result", JSON),
        Column("error", Text),
        Column("hint", Text),
        column("attempts", Integer),
        column("cancel_requested", Boolean),
        Column("worker_id", name(100)),
        Column("heartbeat", Double),
        column("created", Double),
        Column("started", Double),
        Column("finished", Double),
    )
    active = text("state IN ('queued', 'running')")
    op.create_index(
        "jobs_active_key",
        "jobs",
        ["key"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
        if_not_exists=True,
    )
    index("jobs_state_created", "jobs", "state", "created")
    index("jobs_created", "jobs", "created")
    table(
        "workers",
        key("id", 100),
        column("device", name(100)),
        column("model_version", name(100)),
        column("started", Double),
        column("heartbeat", Double),
    )
    table(
        "predictions",
        key("key", 64),
        column("model_version", name(100)),
        column("project_id", name(32)),
        column("task_id", name(32)),
        column("tracks", LargeBinary),
        column("width", Integer),
        column("height", Integer),
        column("fps", Double),
        column("frame_count", Integer),
        column("score", Double),
        column("created", Double),
    )
    index("predictions_task", "predictions", "project_id", "task_id")
    table(
        "renderings",
        key("prediction_key", 64),
        key("config_key", 64),
        column("results", LargeBinary),
        column("created", Double),
        ForeignKeyConstraint(["prediction_key"], ["predictions.key"], ondelete="CASCADE"),
    )
    table(
        "connections",
        key("project_id", 32),
        column("hostname", Text),
        column("access_token", Text),
        column("label_config", Text),
        column("updated", Double),
    )
    table(
        "events",
        Column("id", Integer, primary_key=True),
        column("action", name(100)),
        column("project_id", name(32)),
        column("body", LargeBinary),
        column("received", Double),
    )
    index("events_action", "events", "action", "id")
    table(
        "objects",
        key("project_id", 32),
        key("video", 64),
        key("object_id", 64),
        column("label", Text),
        column("expression", Text),
        column("created", Double),
    )
    table(
        "sent",
        key("project_id", 32),
        key("task_id", 32),
        key("object_id", 64),
        column("regions", LargeBinary),
        column("prompts", LargeBinary),
        column("complete", Boolean),
        column("updated", Double),
    )
    table(
        "snapshots",
        Column("id", Integer, primary_key=True),
        column("project_id", name(32)),
        column("task_id", name(32)),
        column("regions", LargeBinary),
        column("created", Double),
    )
    index("snapshots_task", "snapshots", "project_id", "task_id", "id")
    table("parts", key("key", 64), column("prediction", LargeBinary), column("updated", Double))
    table(
        "annotations",
        key("project_id", 32),
        key("annotation_id", 32),
        column("event", Integer),
        column("task_id", name(32)),
        column("state", name(16)),
        column("ground_truth", Boolean),
        column("hostname", Text),
        column("video_url", Text),
        column("video", name(64)),
        column("width", Integer),
        column("height", Integer),
        column("who", Text),
        column("saved", Double),
        column("model_version", name(200)),
    )
    index("annotations_video", "annotations", "video")
    index("annotations_task", "annotations", "project_id", "task_id")
    index("annotations_event", "annotations", "event")
    table(
        "corrections",
        key("project_id", 32),
        key("annotation_id", 32),
        key("object_id", 64),
        column("expression", Text),
        column("track", LargeBinary),
        column("frames", LargeBinary),
        column("drawn", Integer),
        ForeignKeyConstraint(
            ["project_id", "annotation_id"],
            ["annotations.project_id", "annotations.annotation_id"],
            ondelete="CASCADE",
        ),
    )
    table(
        "uncollected",
        Column("event", Integer, primary_key=True, autoincrement=False),
        column("error", Text),
        column("hint", Text),
        column("tries", Integer),
        column("due", Double),
    )
    table("cursors", key("name", 32), column("value", Integer))
    table(
        "versions",
        key("id", 32),
        column("base", name(100)),
        column("parent", name(32)),
        column("sha256", name(64)),
        column("size", Integer().with_variant(BigInteger(), "postgresql")),
        column("state", name(16)),
        column("reason", Text),
        column("figures", JSON),
        column("data", JSON),
        column("job_id", name(32)),
        column("created", Double),
    )
    table(
        "promotions",
        Column("id", Integer, primary_key=True),
        column("base", name(100)),
        column("version", name(32)),
        column("back", Boolean),
        column("at", Double),
    )
    index("promotions_base", "promotions", "base", "id")
    table(
        "trainings",
        key("job_id", 32),
        column("base", name(100)),
        column("parent", name(32)),
        column("event", Integer),
        column("corrections", Integer),
        column("created", Double),
    )


def table(name: str, *parts: Any) -> None:
    op.create_table(name, *parts, if_not_exists=True)


def index(name: str, of: str, *columns: str) -> None:
    op.create_index(name, of, columns, if_not_exists=True)


def key(of: str, length: int) -> Column[str]:
    return Column(of, name(length), primary_key=True)


def name(length: int) -> Any:
    """PostgreSQL would refuse what is longer."""
    return String(length).with_variant(String(), "postgresql")


def column(name: str, of: Any) -> Column[Any]:
    return Column(name, of, nullable=False)
