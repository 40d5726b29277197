"""The tasks of each project and the prediction that each was given last, for the pages.

Of older databases it is the newest prediction of each task, with its mean score.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, Double, String

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    """Add the table and the indices, and fill the table."""

    def name(length: int) -> Any:
        return String(length).with_variant(String(), "postgresql")

    op.create_table(
        "tasks",
        Column("project_id", name(32), primary_key=True),
        Column("task_id", name(32), primary_key=True),
        Column("prediction", name(64), nullable=False),
        Column("model_version", name(100), nullable=False),
        Column("score", Double, nullable=False),
        Column("updated", Double, nullable=False),
    )
    op.create_index("tasks_score", "tasks", ["project_id", "score", "task_id"])
    op.create_index("corrections_drawn", "corrections", ["project_id", "annotation_id", "drawn"])
    op.execute(
        "INSERT INTO tasks (project_id, task_id, prediction, model_version, score, updated) "
        "SELECT project_id, task_id, key, model_version, score, created FROM ("
        "SELECT p.*, row_number() OVER (PARTITION BY project_id, task_id ORDER BY created DESC, key) AS place "
        "FROM predictions AS p WHERE task_id <> '') AS newest WHERE place = 1"
    )
