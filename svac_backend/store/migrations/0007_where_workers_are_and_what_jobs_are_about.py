"""Workers tell their node and role, nodes can be drained, and jobs name their video.

Jobs that wait name none; that only costs them the company of their like.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, Double, String, false, text

revision, down_revision = "0007", "0006"


def upgrade() -> None:
    """Add the columns, the table and the index."""
    for name, size in (("node", 100), ("role", 16)):
        word = String(size).with_variant(String(), "postgresql")
        op.add_column("workers", Column(name, word, nullable=False, server_default=""))
    op.add_column("workers", Column("drained", Boolean, nullable=False, server_default=false()))
    word = String(64).with_variant(String(), "postgresql")
    op.add_column("jobs", Column("video", word, nullable=False, server_default=""))
    waiting = text("state = 'queued' AND due IS NULL")
    op.create_index("jobs_video", "jobs", ["lane", "video"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_table(
        "drains",
        Column("node", String(100).with_variant(String(), "postgresql"), primary_key=True),
        Column("until", Double, nullable=False),
        Column("since", Double, nullable=False),
    )
