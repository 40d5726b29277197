"""Jobs know their lane, and workers find the next one by an index: the job table is the queue."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, String, text

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Give each job the lane of its kind, as `store.jobs.LANE_OF` was when this was written."""
    op.add_column(
        "jobs",
        Column(
            "lane", String(16).with_variant(String(), "postgresql"), nullable=False, server_default="model"
        ),
    )
    op.execute("UPDATE jobs SET lane = 'light' WHERE kind IN ('frames', 'renew', 'collect')")
    op.execute("UPDATE jobs SET lane = 'training' WHERE kind = 'finetune'")
    waiting = text("state = 'queued'")
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["lane", text("priority DESC"), "created", "id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
