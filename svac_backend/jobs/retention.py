"""The job `retain`, once a day: delete what is old or can be made again, so that the data folder does not grow forever.

Corrections and frame hints are kept for good. A webhook is deleted only after it was used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Text, cast, delete, func, or_, select, tuple_

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobContext
from svac_backend.learning.collect import deleted_ids
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, Storage
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore, Inbox
from svac_backend.store.jobs import ACTIVE, LOCK
from svac_backend.store.tables import (
    ConfigRow,
    CorrectionRow,
    EventRow,
    JobRow,
    PartRow,
    PredictionRow,
    PromotionRow,
    RenderingRow,
    UncollectedRow,
)
from svac_backend.versions import Registry

RETAIN = "retain"
DAY_S = 86_400.0
PORTION = 500  # rows deleted in one transaction
TASKS_DELETED = "TASKS_DELETED"
COPIES = "copies of the storage here"

log = logging.getLogger(__name__)


@dataclass
class RetainHandler:
    """Does `retain` jobs.

    Attributes:
        settings: how long each kind is kept; 0: forever.
        database: holds most of it.
    """

    settings: Settings
    database: Database

    def __call__(self, context: JobContext) -> dict[str, Any]:
        """See `jobs.engine.Handler`.

        Raises:
            SvacError: the database cannot be used.
        """
        steps: dict[str, Callable[[], int]] = {
            "predictions": self._predictions,
            "jobs": self._jobs,
            "webhooks": self._events,
            "renderings": self._renderings,
            "versions": self._versions,
            "runs": self._runs,
            "downloads": self._media,
            "stored files that nothing needs": open_storage(self.settings).sweep,
        }
        gone = {}
        for number, (name, step) in enumerate(steps.items()):
            context.progress(number / len(steps), f"Looking for {name} to delete")
            gone[name] = step()
        told = ", ".join(f"{count} {name}" for name, count in gone.items() if count)
        return {"message": f"Deleted: {told}" if told else "Nothing is old enough to be deleted", **gone}

    def _jobs(self) -> int:
        limit = _before(self.settings.keep_jobs_days)
        old = (JobRow.state.not_in(ACTIVE), JobRow.finished < limit)
        count = self._rows(JobRow, JobRow.id, select(JobRow.id).where(*old).order_by(JobRow.created))
        # No job may be entered meanwhile: it could name a config that nothing else uses yet.
        with self.database.write(LOCK) as session:
            used = select(JobRow.config).where(JobRow.config.is_not(None))
            session.execute(delete(ConfigRow).where(ConfigRow.sha256.not_in(used)))
            session.execute(delete(PartRow).where(PartRow.updated < self.database.time() - DAY_S))
        return count

    def _events(self) -> int:
        limit = _before(self.settings.keep_events_days)
        with self.database.read() as session:
            oldest = session.scalar(select(func.min(JobRow.created)).where(JobRow.state.in_(ACTIVE)))
            last = session.scalar(select(func.max(EventRow.id))) or 0
        done, deletions = Inbox(self.database).position(), Inbox(self.database, TASKS_DELETED).position()
        old = (
            EventRow.received < min(limit, oldest or limit),  # a waiting job may name a younger one
            EventRow.id <= done,
            EventRow.id < last,  # else SQLite would reuse its number
            or_(EventRow.action != TASKS_DELETED, EventRow.id <= deletions),
            EventRow.id.not_in(select(UncollectedRow.event)),
        )
        return self._rows(EventRow, EventRow.id, select(EventRow.id).where(*old).order_by(EventRow.id))

    def _renderings(self) -> int:
        key = tuple_(RenderingRow.prediction_key, RenderingRow.config_key)
        old = RenderingRow.created < _before(self.settings.keep_renderings_days)
        query = select(RenderingRow.prediction_key, RenderingRow.config_key).where(old)
        return self._rows(RenderingRow, key, query)

    def _predictions(self) -> int:
        """Delete the predictions of tasks that were deleted in Label Studio."""
        limit, inbox, count = _before(self.settings.keep_deleted_days), Inbox(self.database, TASKS_DELETED), 0
        while True:
            events = EventStore(self.database).find(
                after=inbox.position(), action=TASKS_DELETED, limit=PORTION
            )
            for event in events:
                if event.received >= limit:
                    return count
                try:
                    tasks = deleted_ids(TASKS_DELETED, event.body)
                except SvacError as error:
                    log.warning("%s", error)
                    tasks = []
                mine = (PredictionRow.project_id == event.project_id, PredictionRow.task_id.in_(tasks))
                query = select(PredictionRow.key).where(*mine)
                count += self._rows(PredictionRow, PredictionRow.key, query)
                inbox.advance(event.id)
            if not events:
                return count

    def _versions(self) -> int:
        """Delete versions that never served, and that no other version was trained from."""
        registry, limit = Registry(self.settings, self.database), _before(self.settings.keep_versions_days)
        with self.database.read() as session:
            served = set(session.scalars(select(PromotionRow.version)))
        found = registry.store.all()
        kept = served | {one.parent for one in found}
        old = [one for one in found if one.created < limit and one.id not in kept]
        return sum(self._surely(partial(registry.delete, one.id), one.name) for one in old)

    def _runs(self) -> int:
        """Delete the folders of runs that ended long ago and have no version left."""
        limit, store = _before(self.settings.keep_versions_days), Registry(self.settings, self.database).store
        with self.database.read() as session:
            active = set(session.scalars(select(JobRow.id).where(JobRow.state.in_(ACTIVE))))
        storage = open_storage(self.settings)
        names = [one.name for one in storage.entries(Kind.RUNS) if one.changed < limit]
        old = [name for name in names if name not in active and store.of_job(name) is None]
        return sum(self._surely(partial(storage.delete, Kind.RUNS, name), f"run {name}") for name in old)

    def _media(self) -> int:
        """Delete downloads beyond the limit, the least recently used first; never those used today."""
        storage, limit = open_storage(self.settings), self.settings.keep_media_gb * 1e9
        if storage.remote:
            return storage.prune(Kind.MEDIA, limit) if limit else 0
        files = []
        for path in (storage.root / Kind.MEDIA.value).glob("*"):
            if path.suffix != ".json" and path.is_file():
                about = path.stat()
                files.append((max(about.st_atime, about.st_mtime), about.st_size, path))
        now = time.time()
        total, count = sum(size for _, size, _ in files), 0
        for used, size, path in sorted(files):
            broken_off = path.name.startswith("partial-")
            if used > now - DAY_S or not (broken_off or (limit and total > limit)):
                continue
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
            if self._surely(path.unlink, str(path)):
                total, count = total - size, count + 1
        return count

    def _rows(self, table: Any, key: Any, query: Any) -> int:
        """Delete the rows whose keys a query finds, a portion at a time, so that others can write, too."""
        count = 0
        while True:
            with self.database.write() as session:
                found = session.execute(query.limit(PORTION)).all()
                keys = [tuple(row) if len(row) > 1 else row[0] for row in found]
                session.execute(delete(table).where(key.in_(keys)))
            count += len(keys)
            if len(keys) < PORTION:
                return count

    def _surely(self, step: Callable[[], object], what: str) -> bool:
        """Do one deletion; if it fails, the others go on."""
        try:
            step()
        except (OSError, SvacError) as error:
            log.warning("%s is not deleted: %s", what, error)
            return False
        return True


def _before(days: float) -> float:
    """Return the time before which things are old; with 0 days nothing is old."""
    return time.time() - days * DAY_S if days else 0.0


def measure(settings: Settings, database: Database) -> dict[str, tuple[int, int]]:
    """Return what takes up space: kind -> (count, bytes), in the database and beside it."""
    columns = {
        "jobs": cast(JobRow.payload, Text),
        "labelling configs": ConfigRow.data,
        "webhooks": EventRow.body,
        "predictions": PredictionRow.tracks,
        "renderings": RenderingRow.results,
        "corrections": CorrectionRow.track,
    }
    found = {}
    with database.read() as session:
        for name, column in columns.items():
            count, size = session.execute(select(func.count(), func.sum(func.length(column)))).one()
            found[name] = (int(count), int(size or 0))
    room = database.size()
    if room is not None:
        found["database on its server"] = (1, room)
    folder, storage = settings.data_dir, open_storage(settings)
    stored = storage.measure()
    kinds = {
        "downloads": Kind.MEDIA,
        "frames": Kind.FRAMES,
        "runs": Kind.RUNS,
        "versions": Kind.VERSIONS,
    }
    found.update({name: stored[kind] for name, kind in kinds.items()})
    if storage.remote:
        here = Storage(storage.root).measure().values()
        found[COPIES] = (sum(count for count, _ in here), sum(size for _, size in here))
    for name, part in {"database file": "svac.db", "earlier states": "*before-*"}.items():
        tops = list(folder.glob(part)) + (list(folder.glob("svac.db-*")) if part == "svac.db" else [])
        files = [
            path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()
        ]
        found[name] = (len(files), sum(path.stat().st_size for path in files))
    return found


def kept(settings: Settings, kind: str) -> str:
    """Return in words how long a kind that `measure` lists is kept."""
    limits = {
        "jobs": (settings.keep_jobs_days, "days"),
        "webhooks": (settings.keep_events_days, "days"),
        "renderings": (settings.keep_renderings_days, "days"),
        "versions": (settings.keep_versions_days, "days unless it served"),
        "runs": (settings.keep_versions_days, "days without a version"),
        "downloads": (settings.keep_media_gb, "GB"),
        COPIES: (settings.storage_cache_gb, "GB"),
        "predictions": (settings.keep_deleted_days, "days after their task"),
    }
    limit, unit = limits.get(kind, (0, ""))
    return f"{limit:g} {unit}" if limit else "for good"
