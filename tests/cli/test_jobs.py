"""`svac-backend jobs` on a data folder, without a web process: the job table is the queue."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from svac_backend.cli.app import main
from svac_backend.cli.commands import operating
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.jobs import Job, JobState, JobStore

PAYLOAD = {
    "project_id": "7",
    "task_id": "12",
    "prompts": [{"label": "object", "expression": "the [red] car"}],
}


@pytest.fixture
def store(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    monkeypatch.setattr(operating, "get_settings", lambda: settings)
    monkeypatch.setenv("COLUMNS", "200")
    database = Database(settings.data_dir)
    yield JobStore(database)
    database.close()


def run(*arguments: str, status: int = 0) -> Any:
    """Run a command, and return what it has on standard output and on standard error."""
    done = CliRunner().invoke(main, ["jobs", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.stdout, done.stderr


def failed(store: JobStore, key: str) -> Job:
    job = store.submit("prelabel", PAYLOAD, key)
    held = store.claim("model", "w1")
    assert held is not None
    assert held.id == job.id
    store.finish(held, JobState.FAILED, error="The video is gone.", hint="Upload it again.")
    return job


def test_the_list_says_why(store: JobStore) -> None:
    bad = failed(store, "a")
    good = store.submit("propagate", PAYLOAD, "b")
    out, err = run("list")
    rows = [line.split() for line in out.splitlines()[1:]]
    assert {row[0] for row in rows} == {bad.id[:8], good.id[:8]}
    assert "7/12" in out
    assert "The video is gone. Upload it again." in out
    assert "1 queued, 1 failed" in err
    out, err = run("list", "--state", "failed", "--json")
    (one,) = json.loads(out)
    assert (one["id"], one["state"], one["task_id"], one["hint"]) == (
        bad.id,
        "failed",
        "12",
        "Upload it again.",
    )
    assert one["finished"].endswith("+00:00")
    assert err == ""
    assert json.loads(run("list", "--kind", "finetune", "--json")[0]) == []
    with pytest.raises(Exception, match="no state 'lost'"):
        run("list", "--state", "lost")


def test_cancel_and_retry_by_the_beginning_of_an_id(store: JobStore) -> None:
    job, other = store.submit("prelabel", PAYLOAD, "a"), store.submit("prelabel", PAYLOAD, "b")
    assert run("cancel", job.id[:10])[0] == f"{job.id}\n"
    assert [store.get(one.id).state.value for one in (job, other)] == ["cancelled", "queued"]  # type: ignore[union-attr]
    assert "had ended already" in run("cancel", job.id)[1]
    again = run("retry", job.id[:10])[0].strip()
    assert again != job.id
    assert store.get(again).state is JobState.QUEUED  # type: ignore[union-attr]
    with pytest.raises(Exception, match="no job 'zzzz'"):
        run("cancel", "zzzz", other.id)
    assert store.get(other.id).state is JobState.QUEUED  # type: ignore[union-attr]
    with pytest.raises(Exception, match="no job ''"):
        run("cancel", "")


def test_a_beginning_that_several_jobs_have_is_refused(store: JobStore) -> None:
    jobs = [store.submit("prelabel", PAYLOAD, str(number)) for number in range(17)]
    first = next(one for one in "0123456789abcdef" if sum(job.id.startswith(one) for job in jobs) > 1)
    with pytest.raises(Exception, match=f"jobs have an id that begins with {first}"):
        run("cancel", first)


def test_watch_ends_with_the_job(store: JobStore) -> None:
    job = store.submit("prelabel", PAYLOAD, "a")

    def work() -> None:
        time.sleep(0.3)
        held = store.claim("model", "w1")
        assert held is not None
        store.finish(held, JobState.DONE, result={"n": 1})

    worker = threading.Thread(target=work)
    worker.start()
    (one,) = json.loads(run("watch", job.id[:9], "--json")[0])
    worker.join()
    assert (one["state"], one["result"]) == ("done", {"n": 1})
    bad = failed(store, "b")
    assert "The video is gone." in run("watch", bad.id, status=1)[1]
    assert json.loads(run("watch", "--json")[0]) == [], "none is active"
