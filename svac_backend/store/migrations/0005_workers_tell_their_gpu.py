"""Workers tell how much memory of their GPU is in use."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, Double

revision, down_revision = "0005", "0004"


def upgrade() -> None:
    """Add the columns; without a GPU they stay empty."""
    for name in ("gpu_used", "gpu_total"):
        op.add_column("workers", Column(name, Double))
