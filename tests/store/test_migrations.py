"""Older databases are upgraded in place, after a backup; newer ones are refused.

`before_migrations.sql.gz` is a database as the last version before the migrations wrote it, with jobs in every state,
one of them of a dead worker, predictions with renderings, answers, webhooks, corrections, and two promoted versions.
"""

from __future__ import annotations

import gzip
import hashlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobEngine
from svac_backend.store import database as module
from svac_backend.store.corrections import CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore, EventStore, Inbox
from svac_backend.store.lanes import LIGHT_LANE, MODEL_LANE, TRAINING_LANE
from svac_backend.store.objects import SentStore
from svac_backend.store.predictions import PredictionStore
from svac_backend.store.schema import HEAD, MIGRATIONS
from svac_backend.store.tables import Base
from svac_backend.store.versions import VersionStore

BACKUP = f"svac.db.before-{HEAD}"
# Of the answers that the older version gave from this file.
RENDERINGS = [
    "4f53cda18c2baa0c",
    "4f53cda18c2baa0c",
    "cff233471b90ebde",
    "cff233471b90ebde",
    "f32ed37d215d8579",
    "fecff034024712b3",
]


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, without the columns that came later."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found = {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}
    later_tables = ("alembic_version", "configs", "drains", "tasks")
    found = {name: of for name, of in found.items() if name not in later_tables}
    later = ("lane", "tries", "due", "config", "gpu_used", "gpu_total", "person")
    later += ("node", "role", "drained", "video")
    return {
        name: [{k: v for k, v in row.items() if k not in later} for row in of] for name, of in found.items()
    }


def schema(path: Path) -> dict[str, Any]:
    """Columns of the tables, whatever their order, and the indexes in their own words."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found: dict[str, Any] = {
            name: sorted(row[1:] for row in connection.execute(f"PRAGMA table_info({name})"))
            for name in tables
        }
        for name in tables:
            found[f"{name} refers to"] = list(connection.execute(f"PRAGMA foreign_key_list({name})"))
        found |= dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'"))
        found["user_version"] = connection.execute("PRAGMA user_version").fetchone()
    return found


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A data folder of the last version before the migrations."""
    folder = tmp_path / "old"
    folder.mkdir()
    dump = gzip.decompress(Path(__file__).with_name("before_migrations.sql.gz").read_bytes()).decode()
    with closing(sqlite3.connect(folder / "svac.db")) as connection:
        connection.executescript(dump)
        connection.execute("PRAGMA journal_mode = WAL")
    return folder


def test_an_older_file_keeps_every_row_and_its_backup_is_as_it_was(old: Path) -> None:
    before, old_schema = rows(old / "svac.db"), schema(old / "svac.db")
    Database(old).close()
    assert rows(old / "svac.db") == before
    assert schema(old / "svac.db") != old_schema
    backup = old / BACKUP
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert rows(backup) == before
    assert schema(backup) == old_schema
    backup.unlink()
    Database(old).close()
    assert not backup.exists()  # nothing was migrated


def test_what_an_older_version_stored_is_found(old: Path) -> None:
    database = Database(old)
    engine = JobEngine(database)
    urgent = engine.store.claim(MODEL_LANE, "w")
    batch = engine.store.claim(MODEL_LANE, "w")
    frames, training = engine.store.claim(LIGHT_LANE, "w"), engine.store.claim(TRAINING_LANE, "w")
    assert urgent is not None
    assert batch is not None
    assert frames is not None
    assert training is not None
    assert [job.key for job in (urgent, batch, frames, training)] == [
        "queued urgent",
        "queued batch",
        "queued frames",
        "finetune 1",
    ]
    assert engine.store.claim(MODEL_LANE, "w") is None
    now = engine.store._watch.clock()
    engine.store._watch.clock = lambda: now
    for _ in range(
        4
    ):  # the dead worker holds no lock: a lease must pass in which only the other one is heard of
        engine.recover(lease_s=30)
        engine.workers.beat("w", [urgent.id, batch.id, frames.id, training.id])
        now += 15
    again = engine.store.claim(MODEL_LANE, "w")
    assert again is not None
    assert (again.key, again.attempts) == ("of a dead worker", 2)
    assert {state.value: count for state, count in engine.store.counts().items()} == {
        "queued": 0,
        "running": 5,
        "done": 2,
        "failed": 1,
        "cancelled": 1,
    }

    predictions = PredictionStore(database)
    shown = rows(old / "svac.db")["renderings"]
    texts = [predictions.rendering(row["prediction_key"], row["config_key"]) for row in shown]
    assert sorted(hashlib.sha256(text or b"").hexdigest()[:16] for text in texts) == RENDERINGS
    connection = ConnectionStore(database).get("38")
    assert connection is not None
    assert connection.access_token == "secret-token"
    assert len(EventStore(database).find()) == 4
    assert (Inbox(database).position(), [one.event for one in Inbox(database).uncollected()]) == (3, [2])
    assert SentStore(database).find("38", "7")["obj1"].hints[3].mask is not None
    assert [one.task_id for one in CorrectionStore(database).for_training()] == ["7", "8"]


def test_versions_of_an_older_file_serve_and_roll_back(old: Path) -> None:
    store = VersionStore(Database(old))
    second, first = store.all()
    assert store.serving(second.base) == second
    assert (second.parent, second.figures) == (first.id, {"gain": 2.0})
    assert store.roll_back(second.base) == first
    assert store.roll_back(second.base) is None


@pytest.mark.parametrize("missing", [("objects", "sent", "snapshots", "parts"), ("trainings", "promotions")])
def test_a_file_that_lacks_whole_tables_gets_them(
    old: Path, missing: tuple[str, ...], tmp_path: Path
) -> None:
    """As the first two versions of the tables were."""
    with closing(sqlite3.connect(old / "svac.db")) as connection:
        for table in missing:
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
    Database(old).close()
    Database(tmp_path / "new").close()
    assert schema(old / "svac.db") == schema(tmp_path / "new" / "svac.db")


def test_new_and_upgraded_files_have_the_schema_of_the_tables(old: Path, tmp_path: Path) -> None:
    for folder in (old, tmp_path / "new"):
        database = Database(folder)
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        database.close()
    assert schema(old / "svac.db") == schema(tmp_path / "new" / "svac.db")
    assert ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)]).get_heads() == [HEAD]


OPENER = """
import sys
from pathlib import Path
from svac_backend.store.database import Database
Database(Path(sys.argv[1]))
"""


def test_processes_that_open_an_older_file_at_once_upgrade_it_once(old: Path) -> None:
    before = rows(old / "svac.db")
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(old)], stderr=subprocess.PIPE) for _ in "abc"
    ]
    errors = [opener.communicate(timeout=60)[1].decode() for opener in openers]
    assert [opener.returncode for opener in openers] == [0, 0, 0], errors
    assert sum("is upgraded" in error for error in errors) == 1
    assert rows(old / "svac.db") == before == rows(old / BACKUP)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, old_schema = rows(old / "svac.db"), schema(old / "svac.db")
    migrate = module.migrate

    def fail(connection: Any) -> None:
        migrate(connection)
        raise RuntimeError("half way")

    with monkeypatch.context() as patch:
        patch.setattr(module, "migrate", fail)
        with pytest.raises(RuntimeError, match="half way"):
            Database(old)
    assert (rows(old / "svac.db"), schema(old / "svac.db")) == (before, old_schema)
    Database(old).close()
    assert rows(old / "svac.db") == before


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Database(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "svac.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(SvacError, match="newer version") as caught:
        Database(tmp_path)
    assert "Update svac-backend" in caught.value.hint


def test_an_up_to_date_file_is_opened_without_alembic(tmp_path: Path) -> None:
    code = f"{OPENER}\nDatabase(Path(sys.argv[1]))\nassert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
