"""Settings, database and the small Label Studio of the jobs' tests: what is learned from is collected by jobs."""

from __future__ import annotations

from tests.jobs.conftest import database, files_root, label_studio, model, settings

__all__ = ["database", "files_root", "label_studio", "model", "settings"]
