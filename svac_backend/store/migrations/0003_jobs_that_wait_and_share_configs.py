"""Jobs are tried again and name their labelling config by its hash; indices for what is asked of many rows.

Jobs of older versions keep the config in their payload.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double, Integer, LargeBinary, String, text

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Add the columns, the table and the indices."""
    op.add_column("jobs", Column("tries", Integer, nullable=False, server_default="0"))
    op.add_column("jobs", Column("due", Double))
    op.add_column("jobs", Column("config", String(64).with_variant(String(), "postgresql")))
    op.create_table(
        "configs",
        Column("sha256", String(64).with_variant(String(), "postgresql"), primary_key=True),
        Column("data", LargeBinary, nullable=False),
    )
    op.drop_index("jobs_waiting", "jobs")
    waiting = text("state = 'queued' AND due IS NULL")
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["lane", text("priority DESC"), "created", "id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_index(
        "jobs_due",
        "jobs",
        ["due"],
        sqlite_where=text("due IS NOT NULL"),
        postgresql_where=text("due IS NOT NULL"),
    )
    op.create_index("jobs_key", "jobs", ["key", "created"])
    op.create_index("jobs_kind", "jobs", ["kind", "state", "created"])
    op.create_index("renderings_created", "renderings", ["created"])
