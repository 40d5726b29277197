"""What only PostgreSQL does: others write meanwhile, it dies and comes back, its clock counts, no secret is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from lab.postgresql import PostgresServer
from sqlalchemy import text

from svac_backend.errors import SettingsError, StoreError
from svac_backend.store import database as module
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore, Inbox
from svac_backend.store.jobs import JobStore, Work
from svac_backend.store.lanes import MODEL_LANE
from svac_backend.store.schema import HEAD, migrate, revision_of
from svac_backend.store.tables import Base


@pytest.fixture
def url(postgresql: PostgresServer) -> Iterator[str]:
    made = postgresql.new_database()
    yield made
    postgresql.drop(made)


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path, url)) as database:
        yield database


def test_nothing_that_is_told_has_the_password(url: str, database: Database, tmp_path: Path) -> None:
    server, _, name = url.rpartition("/")
    password = server.split(":")[2].partition("@")[0]
    assert password not in f"{database} {database.engine!r} {database.engine.url}"
    assert name in str(database)
    wrong = [
        url.replace(password, f"{password}-no"),
        url.replace("127.0.0.1", f"{password}@127.0.0.1"),  # an @ in a password that was not escaped
        url.replace("127.0.0.1:", "127.0.0.1:x"),
        url.replace("postgresql", "mysql"),
        f"{server}/x?password={password}&no_such_option=1",
        f"{server}/no_such_database",
        server.rpartition(":")[0] + ":1/x",
        password,
    ]
    for address in wrong:
        with pytest.raises((StoreError, SettingsError)) as caught:
            Database(tmp_path, address)
        assert password not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
        assert caught.value.hint


def test_numbers_of_webhooks_are_seen_in_their_order(database: Database, url: str, tmp_path: Path) -> None:
    """A number that is stored late would lie behind the collector's cursor for good."""
    first, second = EventStore(database), EventStore(Database(tmp_path, url))
    added: list[int] = []
    with database.write("events") as session:
        session.execute(text("SELECT nextval('events_id_seq')"))  # one that is being stored
        thread = threading.Thread(target=lambda: added.append(second.add("A", "1", b"{}")))
        thread.start()
        thread.join(0.5)
        assert added == []
        assert first.find() == []
    thread.join(20)
    assert [event.id for event in first.find()] == added
    second.database.close()


def test_a_job_that_another_worker_is_taking_is_passed_over(database: Database) -> None:
    store = JobStore(database)
    one, two = store.submit_many([Work("prelabel", {}, "a"), Work("prelabel", {}, "b")])
    with database.write() as session:
        session.execute(text("SELECT id FROM jobs WHERE id = :id FOR UPDATE"), {"id": one.id})
        taken = store.claim(MODEL_LANE, "w")
    assert taken is not None
    assert taken.id == two.id


def test_the_servers_clock_counts_whatever_this_machines_says(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 7200)
    assert abs(database.time() - now) < 60
    job = JobStore(database).submit("prelabel", {}, "k")
    assert abs(job.created - now) < 60
    monkeypatch.setattr("svac_backend.store.postgresql.CLOCK_S", -1.0)
    assert abs(database.time() - now) < 60  # asked anew


def test_a_server_that_dies_is_said_and_found_again(tmp_path: Path) -> None:
    server = PostgresServer(durable=True)
    try:
        database = Database(tmp_path, server.new_database())
        store, inbox = JobStore(database), Inbox(database)
        job = store.submit("prelabel", {}, "k")
        assert store.claim(MODEL_LANE, "w") is not None
        server.kill()
        for ask in (store.waiting, store.counts, lambda: store.submit("prelabel", {}, "x"), inbox.due):
            with pytest.raises(StoreError, match="cannot be used") as caught:
                ask()
            assert caught.value.temporary
            assert server.password not in str(caught.value)
        server.start()
        again = store.get(job.id)
        assert again is not None
        assert (again.state.value, again.worker_id) == ("running", "w")
        assert store.submit("prelabel", {}, "x").active
        database.close()
    finally:
        server.close()


OPENER = """
import sys
from pathlib import Path
from svac_backend.store.database import Database
Database(Path(sys.argv[1]), sys.argv[2])
"""


def old(database: Database) -> None:
    """Make a database of the first release, with a job and a webhook."""
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        migrate(connection, to="0001")
        job = "'a', 'frames', 'queued', 'k', 0, 0, '', '{\"n\": 1}', 0, false, 0"
        columns = (
            "id, kind, state, key, priority, progress, message, payload, attempts, cancel_requested, created"
        )
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({job})".replace(": 1", "\\: 1")))
        connection.execute(
            text("INSERT INTO events (action, project_id, body, received) VALUES ('A', '1', 'x', 0)")
        )


def test_processes_that_open_an_older_database_at_once_upgrade_it_once(
    database: Database, url: str, tmp_path: Path
) -> None:
    old(database)
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path), url], stderr=subprocess.PIPE)
        for _ in "ab"
    ]
    errors = [opener.communicate(timeout=120)[1].decode() for opener in openers]
    assert [opener.returncode for opener in openers] == [0, 0], errors
    assert sum("is upgraded" in error for error in errors) == 1
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert revision_of(connection) == HEAD
        indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        upgraded = [row[0] for row in connection.execute(text(indexes))]
    taken = JobStore(database).claim("light", "w")
    assert taken is not None
    assert taken.payload == {"n": 1}
    (tmp_path / f"svac.db.before-{HEAD}").rename(_folder(tmp_path / "copy") / "svac.db")
    with closing(Database(tmp_path / "copy")) as backup:
        assert EventStore(backup).counts() == {"A": 1}  # an older copy is brought up to date, too
    with database.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    with closing(Database(tmp_path, url)) as new, new.engine.connect() as connection:
        assert [row[0] for row in connection.execute(text(indexes))] == upgraded


def test_an_upgrade_that_fails_changes_nothing(
    database: Database, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old(database)

    def fail(connection: Any) -> None:
        migrate(connection)
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr(module, "migrate", fail)
        with pytest.raises(RuntimeError, match="half way"):
            Database(tmp_path, url)
    with database.engine.connect() as connection:
        assert revision_of(connection) == "0001"
    Database(tmp_path, url).close()
    assert EventStore(database).counts() == {"A": 1}


def test_a_copy_shows_one_moment_and_comes_back(database: Database, tmp_path: Path) -> None:
    events, jobs = EventStore(database), JobStore(database)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with database.write() as session:  # both or none
                session.execute(text("INSERT INTO cursors VALUES (md5(random()::text), 1)"))
                session.execute(
                    text("INSERT INTO uncollected SELECT count(*), 'e', 'h', 1, 0 FROM uncollected")
                )

    events.add("A", "1", bytes(range(256)))
    job = jobs.submit("prelabel", {"label_config": "<View/>", "text": "ü \ud800 \0"}, "k\0")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        time.sleep(0.2)
        database.copy_to(_folder(tmp_path / "copy") / "svac.db")
    finally:
        stop.set()
        writer.join()
    with closing(Database(tmp_path / "copy")) as copy:
        assert EventStore(copy).find() == events.find()
        found = JobStore(copy).get(job.id)
        assert found == jobs.get(job.id)
        with copy.read() as session:
            counts = [
                session.execute(text(f"SELECT count(*) FROM {of}")).scalar()
                for of in ("cursors", "uncollected")
            ]
        assert counts[0] == counts[1] > 0
    events.add("LATER", "1", b"{}")
    database.copy_from(tmp_path / "copy" / "svac.db")
    assert events.counts() == {"A": 1}
    assert jobs.get(job.id) == found
    assert events.add("B", "1", b"{}") == 2  # the numbers go on


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_transaction_that_stands_still_frees_its_locks(
    database: Database, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a worker that was frozen."""
    monkeypatch.setattr("svac_backend.store.postgresql.IDLE_TIMEOUT_S", 1)
    frozen = Database(tmp_path, url)

    def freeze() -> None:
        with frozen.write("jobs") as session:
            begun = time.monotonic()
            JobStore(database).submit("prelabel", {}, "k")
            assert 0.5 < time.monotonic() - begun < 14
            session.execute(text("SELECT 1"))

    with pytest.raises(StoreError):
        freeze()
    frozen.close()


def test_what_others_have_open_is_counted(database: Database, url: str, tmp_path: Path) -> None:
    system: Any = database.system
    assert system.others() == 0
    with closing(Database(tmp_path, url)) as other:
        assert EventStore(other).counts() == {}
        assert system.others() == 1
    with psycopg.connect(url):  # a person who looks
        assert system.others() == 0
