"""What a task's editor was sent belongs to the person who asked; of older answers nobody knows whose they are."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Boolean, Column, Double, LargeBinary, PrimaryKeyConstraint, String

revision, down_revision = "0006", "0005"

KEY = ("project_id", "task_id", "person", "object_id")
REST = ("regions", "prompts", "complete", "updated")


def upgrade() -> None:
    """Make the table anew, with the person in its key: SQLite changes no key."""

    def name(length: int) -> Any:
        return String(length).with_variant(String(), "postgresql")

    op.rename_table("sent", "sent_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX IF EXISTS sent_pkey RENAME TO sent_before_pkey")
    op.create_table(
        "sent",
        Column("project_id", name(32), nullable=False),
        Column("task_id", name(32), nullable=False),
        Column("person", name(32), nullable=False),
        Column("object_id", name(64), nullable=False),
        Column("regions", LargeBinary, nullable=False),
        Column("prompts", LargeBinary, nullable=False),
        Column("complete", Boolean, nullable=False),
        Column("updated", Double, nullable=False),
        PrimaryKeyConstraint(*KEY),
    )
    values = ", ".join("''" if column == "person" else column for column in (*KEY, *REST))
    op.execute(f"INSERT INTO sent ({', '.join((*KEY, *REST))}) SELECT {values} FROM sent_before")
    op.drop_table("sent_before")
