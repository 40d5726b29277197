"""Tasks and the predictions that they were given."""

from __future__ import annotations

from pathlib import Path

from svac_backend.store.tasks import PredictedTask, TaskStore
from tests.databases import OpenDatabase


def test_a_task_has_what_it_was_given_last(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = TaskStore(open_database(tmp_path))
    store.put([PredictedTask("1", "7", "a", "v1", 0.5, 10.0), PredictedTask("1", "", "a", "v1", 0.5)])
    store.put([PredictedTask("1", "7", "a", "v1", 0.5, 20.0)])
    found = store.get("1", "7")
    assert found is not None
    assert found.updated == 10.0, "the same prediction is no news"
    store.put([PredictedTask("1", "7", "b", "v2", 0.25, 30.0)])
    assert store.get("1", "7") == PredictedTask("1", "7", "b", "v2", 0.25, 30.0)
    assert [one.predicted for one in store.projects()] == [1], "a task without a number is none"


def test_deleted_tasks_leave(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = TaskStore(open_database(tmp_path))
    store.put([PredictedTask("1", name, "a", "v1", 0.5) for name in ("7", "8")])
    store.put([PredictedTask("2", "7", "a", "v1", 0.5)])
    store.delete("1", ["7", "9"])
    assert (store.get("1", "7"), store.get("2", "7") is None) == (None, False)
    assert [(one.project_id, one.predicted) for one in store.projects()] == [("1", 1), ("2", 1)]


def test_projects_come_by_number(open_database: OpenDatabase, tmp_path: Path) -> None:
    store = TaskStore(open_database(tmp_path))
    store.put([PredictedTask(name, "1", "a", "v1", 0.5) for name in ("10", "2", "x")])
    assert [one.project_id for one in store.projects()] == ["x", "2", "10"]
