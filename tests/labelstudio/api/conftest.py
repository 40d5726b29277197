"""Settings, database and the small Label Studio of the jobs' tests."""

from __future__ import annotations

from tests.jobs.conftest import database, files_root, label_studio, settings

__all__ = ["database", "files_root", "label_studio", "settings"]
