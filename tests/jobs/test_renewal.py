"""Links in tasks: renewed in time, of a task's own frames only, and what stands beside them is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.jobs import process
from svac_backend.jobs.engine import Job, JobEngine, JobState
from svac_backend.jobs.renew import (
    RECORD,
    RENEW,
    LinkedTask,
    due_tasks,
    gone_tasks,
    linked_tasks,
    remember,
    renew,
    renewal_if_due,
)
from svac_backend.jobs.worker import create_worker
from svac_backend.labelstudio.api.client import LabelStudioClient
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.links import DAY_S, MediaLinks

URL = "https://masks.example/svac"


@pytest.fixture
def ours(settings: Settings, label_studio: Any) -> Settings:
    return settings.model_copy(
        update={
            "label_studio_url": label_studio.url,
            "label_studio_api_key": SecretStr("ab" * 20),
            "media_url": URL,
        }
    )


@pytest.fixture
def links(ours: Settings) -> MediaLinks:
    return MediaLinks.from_settings(ours)


@pytest.fixture
def client(label_studio: Any) -> Any:
    one = LabelStudioClient(label_studio.url, "ab" * 20)
    return lambda _: one


def later(links: MediaLinks, days: float) -> MediaLinks:
    now = links.clock()
    return replace(links, clock=lambda: now + days * DAY_S)


def link(links: MediaLinks, label_studio: Any, task: int, project: str = "38", frames: int = 3) -> LinkedTask:
    """Have a task with links, made now."""
    folder = links.root / f"project-{project}" / f"task-{task}"
    urls = [links.url(folder / f"{i:05d}.jpg") for i in range(frames)]
    label_studio.tasks[task] = {"video": "/v.mp4", "frames": urls, "fps": 10}
    remember(LinkedTask(folder, project, task, "frames"), links.clock(), links.identity)
    return next(found for found in linked_tasks(links.root) if found.task == task)


def test_links_are_due_at_half_of_their_life(links: MediaLinks, label_studio: Any) -> None:
    task = link(links, label_studio, 7)
    assert due_tasks(links) == []
    assert due_tasks(later(links, 14.9)) == []
    assert due_tasks(later(links, 15.1)) == [task]
    assert due_tasks(links, every=True) == [task]
    assert due_tasks(replace(links, base_url="https://moved.example")) == [task]
    assert due_tasks(replace(links, key=b"0" * 64)) == [task]
    assert due_tasks(replace(links, base_url=""), every=True) == [], "there is no address to write"


def test_new_links_are_all_that_changes(links: MediaLinks, label_studio: Any, client: Any) -> None:
    link(links, label_studio, 7)
    before = dict(label_studio.tasks[7])
    at = later(links, 20)
    steps: list[str] = []
    done = renew(due_tasks(at), at, client, lambda fraction, message: steps.append(f"{fraction} {message}"))
    assert str(done) == "Links of 1 task renewed"
    assert steps == ["0.0 Renewed the links of 0 of 1 tasks"]
    after = label_studio.tasks[7]
    assert {**after, "frames": None} == {**before, "frames": None}
    assert [at.path_of(url) for url in after["frames"]] == [at.path_of(url) for url in before["frames"]]
    assert set(after["frames"]).isdisjoint(before["frames"])
    assert due_tasks(at) == []
    assert due_tasks(later(links, 36)) != []


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://moved.example:9090"},
        {"key": b"0" * 64},
        {"base_url": "http://h", "key": b"1" * 64},
    ],
)
def test_links_of_another_address_or_key_are_renewed_too(
    links: MediaLinks, label_studio: Any, client: Any, change: dict[str, Any]
) -> None:
    task = link(links, label_studio, 7)
    new = replace(links, **change)
    assert renew([task], new, client).renewed == 1
    assert new.path_of(label_studio.tasks[7]["frames"][2]) == task.folder / "00002.jpg"


@pytest.mark.parametrize(
    "frames",
    [
        None,
        "text",
        [],
        [7, None],
        ["/data/local-files/?d=a.jpg"],
        ["s3://bucket/a.jpg"],
        ["{url}/media/project-38/task-8/00000.jpg?signature=a.b.c"],
        ["{url}/media/project-38/task-7/../task-8/00000.jpg?signature=a.b.c"],
        ["{url}/media/project-38/task-7/%2e%2e%2fsvac.db?signature=a.b.c"],
        ["{url}/media/project-38/task-7/.hidden?signature=a.b.c"],
        ["{url}/media/project-38/task-7/00000.jpg"],
        ["x{url}/media/project-38/task-7/00000.jpg?signature=a.b.c"],
    ],
)
def test_what_is_not_ours_is_not_signed(
    links: MediaLinks, label_studio: Any, client: Any, frames: Any
) -> None:
    """Whoever may change a task's data must not get links to other files out of us."""
    task = link(links, label_studio, 7)
    if isinstance(frames, list):
        frames = [frame.replace("{url}", URL) if isinstance(frame, str) else frame for frame in frames]
    label_studio.tasks[7]["frames"] = frames
    before = dict(label_studio.tasks[7])
    done = renew([task], links, client)
    assert (done.renewed, done.others) == (0, 1)
    assert str(done) == "Links of 0 tasks renewed, 1 now with other frames"
    assert label_studio.tasks[7] == before


def test_frames_of_others_among_ours_are_kept(links: MediaLinks, label_studio: Any, client: Any) -> None:
    task = link(links, label_studio, 7)
    label_studio.tasks[7]["frames"][1] = "s3://bucket/a.jpg"
    assert renew([task], later(links, 1), client).renewed == 1
    assert label_studio.tasks[7]["frames"][1] == "s3://bucket/a.jpg"
    assert links.path_of(label_studio.tasks[7]["frames"][0]) == task.folder / "00000.jpg"


def test_deleted_tasks_and_projects(links: MediaLinks, label_studio: Any, client: Any) -> None:
    kept, deleted = link(links, label_studio, 7), link(links, label_studio, 8)
    other = link(links, label_studio, 9, project="39")
    del label_studio.tasks[8]
    assert gone_tasks(links.root, client) == [deleted, other]
    done = renew([kept, deleted, other], later(links, 20), client)
    assert (done.renewed, done.gone, done.refused) == (1, [deleted, other], [])
    assert "2 deleted in Label Studio (svac-backend media clean)" in str(done)
    assert due_tasks(later(links, 20)) == [], "they are not asked for every day"


def test_a_label_studio_that_is_down_or_another_service_changes_nothing(
    links: MediaLinks, label_studio: Any
) -> None:
    task = link(links, label_studio, 7)
    down = LabelStudioClient("http://127.0.0.1:9", "ab" * 20)
    with pytest.raises(SvacError, match="cannot be reached"):
        renew([task], links, lambda _: down)
    wrong = LabelStudioClient(f"{label_studio.url}/elsewhere", "ab" * 20)
    with pytest.raises(SvacError):
        gone_tasks(links.root, lambda _: wrong)
    assert list(linked_tasks(links.root)) == [task]


def test_a_damaged_record_is_said_and_the_others_are_found(
    links: MediaLinks, label_studio: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [link(links, label_studio, number) for number in (5, 6, 7)]
    (tasks[0].folder / RECORD).write_text("no json")
    (tasks[1].folder / RECORD).write_text(json.dumps({"format": "svac-links-2"}))
    assert list(linked_tasks(links.root)) == [tasks[2]]
    assert caplog.text.count("is damaged") == 2
    assert list(linked_tasks(links.root / "nothing")) == []


def test_tasks_come_in_the_order_of_their_numbers(links: MediaLinks, label_studio: Any) -> None:
    for task in (11, 9, 10):
        link(links, label_studio, task)
    assert [found.task for found in linked_tasks(links.root)] == [9, 10, 11]


def test_the_worker_renews_when_it_starts_and_every_day(
    ours: Settings, database: Database, links: MediaLinks, label_studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert renewal_if_due(ours) == []
    task = link(links, label_studio, 7)
    remember(task)  # as if nothing was known of when they were made
    before = label_studio.tasks[7]["frames"]
    monkeypatch.setattr(process, "CHORES_EVERY_S", 0.0)
    engine = JobEngine(database)
    worker, _ = create_worker(ours, database, load=lambda _: None, lease_s=0.6)  # type: ignore[arg-type,return-value]
    worker.start()

    def renewals(count: int) -> list[Job]:
        for _ in range(200):
            done = engine.find(states=(JobState.DONE,), kind=RENEW)
            if len(done) == count:
                return done
            worker._stop.wait(0.05)
        raise AssertionError(engine.find())

    (first,) = renewals(1)
    assert first.message == "Links of 1 task renewed"
    assert label_studio.tasks[7]["frames"] is not before
    worker._stop.wait(0.3)
    assert len(engine.find(kind=RENEW)) == 1, "no job where nothing is due"
    remember(task)
    assert renewals(2)[0].result == {"renewed": 1, "gone": 0, "refused": 0}
    worker.stop()


def test_a_key_that_is_damaged_does_not_keep_the_worker_from_its_work(
    ours: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    (ours.data_dir / "media.key").write_text("damaged")
    worker, _ = create_worker(ours, database, load=lambda _: None)  # type: ignore[arg-type,return-value]
    worker.start()
    worker.stop()
    assert "is not a key of media links" in caplog.text
    assert JobEngine(database).find(kind="retain")  # nor from its other daily work


@pytest.mark.parametrize(("hours", "state"), [(24.0, JobState.QUEUED), (0.0, JobState.FAILED)])
def test_a_label_studio_that_is_away_is_waited_for(
    ours: Settings, database: Database, links: MediaLinks, hours: float, state: JobState
) -> None:
    task = LinkedTask(links.root / "project-38" / "task-7", "38", 7, "frames")
    remember(task)
    away = ours.model_copy(update={"label_studio_url": "http://127.0.0.1:9", "retry_hours": hours})
    engine = JobEngine(database)
    worker, _ = create_worker(away, database, load=lambda _: None)  # type: ignore[arg-type,return-value]
    worker.start()
    (job,) = engine.find(kind=RENEW)
    done = engine.wait(job.id, timeout=20)
    worker.stop()
    assert done.state is state
    assert "cannot be reached" in (done.error or "")
    assert due_tasks(links) == [next(iter(linked_tasks(links.root)))]
