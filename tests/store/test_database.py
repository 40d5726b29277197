"""The database file: settings, several processes, faults. For older files see `test_migrations.py`."""

from __future__ import annotations

import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import svac_backend
from svac_backend.errors import StoreError, SvacError
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.events import EventStore
from svac_backend.store.tables import EventRow
from tests.databases import PARAMETERS, OpenDatabase


def test_file_is_private_and_in_wal_mode(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "folder")
    assert stat.S_IMODE((tmp_path / "new" / "folder" / "svac.db").stat().st_mode) == 0o600
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 15_000


def test_the_folder_is_private_also_one_of_an_older_version_but_no_other_folder(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    new, empty, shared = tmp_path / "new", tmp_path / "empty", tmp_path / "shared"
    for folder in (empty, shared):
        folder.mkdir(mode=0o755)
    (shared / "what others left").touch()
    for folder in (new, empty, shared):
        Database(folder).close()
    assert (mode(new), mode(empty), mode(shared)) == (0o700, 0o700, 0o755)
    new.chmod(0o755)
    Database(new).close()
    assert mode(new) == 0o700


def test_opens_again_and_keeps_what_is_there(open_database: OpenDatabase, tmp_path: Path) -> None:
    first = open_database(tmp_path)
    EventStore(first).add("TASKS_CREATED", "1", b"{}")
    first.close()
    assert EventStore(open_database(tmp_path)).counts() == {"TASKS_CREATED": 1}


def write_and_fail(database: Database) -> None:
    with database.write() as session:
        session.add(EventRow(action="A", project_id="", body=b"0", received=0.0))
        session.flush()
        raise RuntimeError("half way")


def test_a_failed_write_changes_nothing(open_database: OpenDatabase, tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with pytest.raises(RuntimeError, match="half way"):
        write_and_fail(database)
    assert EventStore(database).counts() == {}


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "svac.db").write_bytes(b"this is not a database, but long enough to be taken for one" * 40)
    with pytest.raises(SvacError, match="cannot be used") as caught:
        Database(tmp_path)
    assert "svac-backend restore" in caught.value.hint


def test_a_database_that_may_only_be_read_is_said(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with database.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    with pytest.raises(StoreError, match="readonly") as caught:
        EventStore(database).add("A", "1", b"{}")
    assert "Let this user write" in caught.value.hint
    assert not caught.value.temporary


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(SvacError, match="cannot be used"):
        Database(tmp_path / "data")


WRITER = """
import sys
from pathlib import Path
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore
from svac_backend.store.jobs import JobStore
database = Database(Path(sys.argv[1]), sys.argv[3])
for number in range(25):
    EventStore(database).add("WRITE", sys.argv[2], b"{}")
    JobStore(database).submit("prelabel", {}, "the same key")
"""


@pytest.mark.parametrize("system", PARAMETERS)
def test_processes_write_at_the_same_time(
    system: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Also the making of the tables is raced for: there are none when they start."""
    url = request.getfixturevalue("postgresql").new_database() if system == "postgresql" else ""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(n), url], stderr=subprocess.PIPE)
        for n in range(3)
    ]
    errors = [writer.communicate(timeout=60)[1].decode() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], errors
    database = Database(tmp_path, url)
    assert EventStore(database).counts() == {"WRITE": 75}
    with database.read() as session:
        assert session.execute(text("SELECT COUNT(*) FROM jobs")).scalar() == 1
    database.close()


def test_pack_round_trip() -> None:
    data = {"text": "ü\ud7ff", "list": [1, 2.5, None, True]}
    assert unpack(pack(data)) == data


def test_a_database_that_another_program_holds_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svac_backend.store.sqlite.BUSY_TIMEOUT_S", 0.05)
    events = EventStore(Database(tmp_path))
    with sqlite3.connect(tmp_path / "svac.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked") as caught:
            events.add("A", "1", b"{}")
        assert "other program" in caught.value.hint
        assert caught.value.temporary
        assert events.counts() == {}  # reading goes on
        other.execute("ROLLBACK")
    events.add("A", "1", b"{}")
    assert events.counts() == {"A": 1}


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with database.write() as session:  # SQLite's own limit says the same as a disk that is full
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
    with pytest.raises(StoreError, match="full") as caught:
        EventStore(database).add("A", "1", bytes(range(256)) * 4000)
    assert "Free some space" in caught.value.hint
    assert EventStore(database).counts() == {}


def test_a_mistake_of_the_code_is_not_blamed_on_the_database(
    open_database: OpenDatabase, tmp_path: Path
) -> None:
    database = open_database(tmp_path)
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO events (action) VALUES (NULL)"))


def test_all_parts_open_the_database_that_the_settings_name() -> None:
    """`Database(folder)` is that folder's SQLite file, whatever SVAC_DATABASE_URL says."""
    package = Path(svac_backend.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\bDatabase\(", path.read_text())
    }
    assert found == {"cli/storage.py"}, "which restores that file from a backup"
