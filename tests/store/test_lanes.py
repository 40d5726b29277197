"""Who takes which job: reserved for people, together with its like, and nothing waits for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

from svac_backend.store.database import Database
from svac_backend.store.drains import EVERY_NODE, DrainStore
from svac_backend.store.jobs import Job, JobStore
from svac_backend.store.lanes import LANES, MODEL_LANE
from tests.databases import OpenDatabase
from tests.store.test_jobs import fill, steps


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> JobStore:
    return JobStore(open_database(tmp_path))


def submit(store: JobStore, key: str, video: str = "", priority: int = 0) -> Job:
    payload = {"hostname": "http://ls", "video_url": video} if video else {}
    return store.submit("prelabel", payload, key, priority)


def take(store: JobStore, worker: str = "w", **wishes: object) -> str | None:
    job = store.claim(MODEL_LANE, worker, **wishes)  # type: ignore[arg-type]
    return None if job is None else job.key


def test_a_reserved_worker_takes_only_what_a_person_waits_for(store: JobStore) -> None:
    submit(store, "batch")
    assert take(store, least=10) is None
    assert MODEL_LANE in store.waiting()
    assert store.waiting(10) == []
    submit(store, "person", priority=10)
    assert store.waiting(10) == [MODEL_LANE]
    assert take(store, least=10) == "person"
    assert take(store) == "batch"


def test_a_worker_goes_on_with_its_video_but_not_before_what_is_more_urgent(store: JobStore) -> None:
    other = submit(store, "other", "b.mp4")
    mine = submit(store, "mine", "a.mp4")
    assert mine.video not in ("", other.video)
    assert store.waiting() == [MODEL_LANE]
    submit(store, "person", "c.mp4", priority=10)
    assert take(store, videos=[mine.video]) == "person"
    assert take(store, videos=[mine.video]) == "mine"
    assert take(store, videos=[mine.video]) == "other"


def test_a_video_that_another_is_at_is_left_to_it_while_there_are_others(store: JobStore) -> None:
    for key, video in (("1", "a.mp4"), ("2", "a.mp4?token=x"), ("3", "b.mp4"), ("4", "")):
        submit(store, key, video)
    same = [submit(store, "5", "a.mp4").video, store.find(key="1")[0].video]
    assert same[0] == same[1]
    assert [take(store, f"w{n}") for n in range(4)] == [
        "1",
        "2",
        "3",
        "4",
    ]  # a token of no known kind: another video
    assert take(store, "w5") == "5"  # nothing else waits


def test_to_take_a_job_of_many_reads_few_rows(tmp_path: Path) -> None:
    store = JobStore(Database(tmp_path))
    fill(store, 20_000, "queued")
    with store.database.write() as session:
        session.execute(text("UPDATE jobs SET video = 'of ' || id"))

    def work() -> None:
        assert take(store) == "queued1"
        assert take(store, videos=["none of them"]) == "queued2"
        assert take(store, videos=["of queued19000"]) == "queued19000"
        assert take(store, least=0) == "queued3"
        assert take(store, least=1) is None

    assert steps(store, work) <= 2


def test_every_lane_is_looked_at(store: JobStore) -> None:
    for kind in ("prelabel", "frames", "finetune", "bulk"):
        store.submit(kind, {}, kind)
    assert sorted(store.waiting()) == sorted(LANES)


def test_orders_to_empty_a_node(open_database: OpenDatabase, tmp_path: Path) -> None:
    drains = DrainStore(open_database(tmp_path))
    assert drains.seconds_left("a") is None
    drains.order("a", 100)
    drains.order("b", 0)
    assert 95 < (drains.seconds_left("a") or 0) <= 100
    assert drains.seconds_left("b") == 0
    assert drains.seconds_left("c") is None
    drains.order(EVERY_NODE, 50)
    assert 45 < (drains.seconds_left("c") or 0) <= 50
    assert [one.node for one in drains.all()] == [EVERY_NODE, "a", "b"]
    assert drains.withdraw("a")
    assert not drains.withdraw("a")
    assert drains.withdraw(EVERY_NODE)
    assert drains.all() == []
