"""Tasks and the predictions that they were given."""

from __future__ import annotations

import threading
from pathlib import Path

from svac_backend.store.database import Database
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


def test_those_who_enter_the_same_tasks_at_once_wait_for_nobody(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    database = open_database(tmp_path)
    stores = [TaskStore(database), TaskStore(database)]
    names = [str(number) for number in range(40)]
    failed: list[Exception] = []

    def enter(which: int) -> None:
        try:
            for score in range(10):
                order = names if which else names[::-1]
                stores[which].put([PredictedTask("1", name, "a", "v1", score / 10) for name in order])
                stores[which].delete("1", order[:5])
        except Exception as error:  # noqa: BLE001 (told below)
            failed.append(error)

    threads = [threading.Thread(target=enter, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for which in (0, 1):
        stores[which].put([PredictedTask("1", name, "b", "v2", 0.25, 30.0) for name in names])
    assert store_of(database, names) == {("b", "v2", 0.25, 30.0)}


def store_of(database: Database, names: list[str]) -> set[tuple[str, str, float, float]]:
    """What is known of some tasks."""
    found = [TaskStore(database).get("1", name) for name in names]
    return {(one.prediction, one.model_version, one.score, one.updated) for one in found if one is not None}


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
