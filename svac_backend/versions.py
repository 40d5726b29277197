"""The registry of versions: adapters' files in the data folder beside what the database knows of them. Free of torch.

A version's files are looked at before it serves. One that is missing or damaged is marked so, and the last good one
serves.

Label Studio knows "the newest" as the title of the connected model. Where a project shows by its name the version that
served until now, every change of what serves makes it show the newest.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.access import LabelStudioAccess
from svac_backend.settings import Settings
from svac_backend.storage.folder import Kind, remove
from svac_backend.storage.published import open_storage
from svac_backend.store.database import Database, is_there
from svac_backend.store.events import ConnectionStore
from svac_backend.store.versions import BASE, Version, VersionState, VersionStore
from svac_backend.svac.files.adapters import ABOUT, WEIGHTS, verify_adapter
from svac_backend.svac.files.weights import version_of

# How long it is taken on trust that a version's files are in a bucket.
SEEN_S = 60.0

log = logging.getLogger(__name__)


class Registry:
    """Versions of the models of one data folder.

    Args:
        settings: the data folder, and the model that serves.
        database: what is known of versions.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings = settings
        self.store = VersionStore(database)
        self.storage = open_storage(settings)
        # Versions that were found in a bucket, and when.
        self._seen: dict[str, float] = {}
        # What was found to be whole: path -> (time of change, size) of its weights.
        self._whole: dict[Path, tuple[int, int]] = {}

    @property
    def base(self) -> str:
        """The version of the model that the settings name, without an adapter.

        Raises:
            SvacError: there is no such model.
        """
        return version_of(self.settings)

    def folder(self, version: Version) -> Path:
        """Return where a version's files are on this machine; where they lie in a bucket, `verify` brings them."""
        return self.storage.folder(Kind.VERSIONS, version.id)

    def name(self) -> str:
        """Return the model version that serves; the files are only glanced at.

        Raises:
            SvacError: there is no such model.
        """
        found = self.serving()
        return found.name if found else self.base

    def names(self) -> set[str]:
        """Return the names of all versions of the model that the settings name. Raises `SvacError` as `base`."""
        return {self.base, *(version.name for version in self.store.all(self.base))}

    def serving(self, *, verify: bool = False) -> Version | None:
        """Return the version that serves, None for the base itself.

        Args:
            verify: look at every byte of its weights, unless the file is as it was when that was done last.

        Raises:
            SvacError: there is no such model.
        """
        base = self.base
        while True:
            found = self.store.serving(base)
            if found is None:
                return None
            try:
                self.verify(found) if verify else self._glance(found)
            except SvacError as error:
                if error.temporary:  # the storage is away: that says nothing of the version
                    raise
                self.damaged(found, error)
                continue
            return found

    def damaged(self, version: Version, error: SvacError) -> None:
        """Have a version serve no more."""
        log.error("version %s is damaged, the last good one serves: %s", version.name, error)
        self.store.decide(version.id, VersionState.DAMAGED, error.message)

    def problem(self) -> str | None:
        """Return in one sentence which promoted version does not serve, and what to do; None when all is well."""
        passed = self.store.passed_over(self.base)
        if not passed:
            return None
        return (
            f"Version {passed[0].name} does not serve ({passed[0].reason.rstrip('.')}); {self.name()} does. "
            "Restore its file and promote it again, or roll back: svac-backend versions rollback."
        )

    def verify(self, version: Version) -> None:
        """Check every byte of a version's weights.

        Raises:
            SvacError: they are missing or damaged.
        """
        weights = self.folder(version) / WEIGHTS
        now = _stamp(weights)
        if now is not None and self._whole.get(weights) == now:
            return
        self._whole.pop(weights, None)
        if self.storage.remote:
            self.storage.fetch(Kind.VERSIONS, version.id, verify=True)
            now = _stamp(weights)
        info = verify_adapter(self.folder(version))
        if info.sha256 != version.sha256:
            raise SvacError(
                f"The adapter in {self.folder(version)} is another one than was registered.",
                "Restore the file from a backup, or train again.",
            )
        if now is not None:
            self._whole[weights] = now

    def publish(
        self,
        folder: Path,
        *,
        base: str,
        parent: str = "",
        promote: bool,
        reason: str,
        figures: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        job_id: str = "",
        tell: Callable[[str], None] = log.info,
    ) -> Version:
        """Take in an adapter that fine-tuning wrote.

        It is promoted only while the version that it was compared with still serves.

        Args:
            folder: with `adapter.json` and `adapter.safetensors`; they are copied.
            base: version of the model that it was trained on.
            parent: id of the adapter that it was trained on from and compared with; empty: the base itself.
            promote: whether it is good enough.
            reason: why, or why not.
            figures, data: see `store.versions.Version`.
            job_id: of the run.
            tell: called with a sentence on the projects that show the newest from now on.

        Raises:
            SvacError: it is damaged, or cannot be copied.
        """
        version = self.store.of_job(job_id) if job_id else None
        if version is None:
            info = verify_adapter(folder)
            target = self.storage.folder(Kind.VERSIONS, info.adapter_id)
            if target.is_dir() and self.storage.remote:
                remove(target)  # a copy, which need not be whole
            if not target.is_dir():
                self._copy(folder, target)
            self.storage.publish(Kind.VERSIONS, info.adapter_id)  # before anybody hears of it
            version = self.store.register(
                Version(
                    id=info.adapter_id,
                    base=base,
                    sha256=info.sha256,
                    size=info.bytes,
                    parent=parent,
                    figures=dict(figures or {}),
                    data=dict(data or {}),
                    job_id=job_id,
                )
            )
        if version.state is not VersionState.CANDIDATE:
            # The same run, which went on after its end: it may have been stopped before the projects knew.
            if version.state is VersionState.PROMOTED:
                self._have_followed(_name(base, parent), tell)
            return version
        if not promote:
            self.store.decide(version.id, VersionState.KEPT, reason)
        elif self._serving_id(base) != parent:
            changed = (
                "Not promoted: another version serves by now than the one it was compared with. Promote it yourself "
                "if it is the better one."
            )
            self.store.decide(version.id, VersionState.KEPT, f"{changed} {reason.removeprefix('Promoted. ')}")
        else:
            self.store.promote(version.id, reason)
            self._have_followed(_name(base, parent), tell)
        return self.store.get(version.id) or version

    def find(self, name: str) -> Version:
        """Return the version of an id, the beginning of one, or a name; see `VersionStore.find`.

        Raises:
            SvacError: there is none, or it is of another model than the settings name.
        """
        version = self.store.find(name)
        if version.base != self.base:
            raise SvacError(
                f"{version.name} is a version of another model than {self.base}.",
                "Set SVAC_MODEL and SVAC_PRESET to its model first.",
            )
        return version

    def promote(self, version_id: str, tell: Callable[[str], None] = log.info) -> Version:
        """Have a version serve from now on.

        Args:
            version_id: see `find`.
            tell: called with a sentence on the projects that show the newest from now on.

        Raises:
            SvacError: there is none of that id, it is of another model, or it is damaged.
        """
        version, before = self.find(version_id), self.name()
        try:
            self.verify(version)
        except SvacError as error:
            if not error.temporary:
                self.damaged(version, error)
            raise
        if version.state is VersionState.DAMAGED:
            self.store.decide(version.id, VersionState.CANDIDATE, "It was damaged, and is whole again.")
        promoted = self.store.promote(version.id)
        self._have_followed(before, tell)
        return promoted

    def roll_back(self, to: str | None = None, tell: Callable[[str], None] = log.info) -> Version | None:
        """Have the version serve that served before; see `VersionStore.roll_back`, and `promote` for `tell`.

        Raises:
            SvacError: none served before, or not that one.
        """
        before = self.name()
        found = self.store.roll_back(self.base, to)
        self._have_followed(before, tell)
        return found

    def delete(self, version_id: str) -> Version:
        """Delete a version and its files.

        Raises:
            SvacError: there is none of that id, it serves, or its files cannot be deleted.
        """
        version = self.store.find(version_id)
        self.store.delete(version.id)
        self.storage.delete(Kind.VERSIONS, version.id)
        return version

    def _have_followed(self, before: str, tell: Callable[[str], None]) -> None:
        """Have the projects that show what served before show the newest; Label Studio may be away."""
        access = LabelStudioAccess(self.settings, ConnectionStore(self.store.database))
        moved, failure = access.follow_all({before} - {self.name()})
        if moved:
            tell(f"Projects that show the newest from now on: {', '.join(moved)}.")
        if failure is not None:
            log.warning("some projects may still show %s: %s", before, failure)
            tell(
                f"Some projects may still show {before}. {failure.message.rstrip('.')}. "
                "Choose the model in their Settings > Annotation."
            )

    def _serving_id(self, base: str) -> str:
        found = self.store.serving(base)
        return found.id if found else ""

    def _glance(self, version: Version) -> None:
        if self.storage.remote:
            self._glance_far(version)
            return
        weights = self.folder(version) / WEIGHTS
        stamp = _stamp(weights)
        if stamp is None or stamp[1] != version.size or not (self.folder(version) / ABOUT).is_file():
            what = "is missing" if stamp is None else "has another size than was written"
            raise SvacError(
                f"{weights} {what}.", "Restore the file from a backup, or roll back to another version."
            )

    def _glance_far(self, version: Version) -> None:
        """See whether a bucket has a version's files. Who only asks for the name need not have them here."""
        now = time.monotonic()
        if now - self._seen.get(version.id, -SEEN_S) < SEEN_S:
            return
        try:
            there = self.storage.has(Kind.VERSIONS, version.id)
        except SvacError as error:
            if not error.temporary:
                raise
            log.warning("version %s is taken on trust: %s", version.name, error)
            there = True
        if not there:
            raise SvacError(
                f"{version.id} is not in {self.storage}.",
                "Restore it there, or roll back to another version.",
            )
        self._seen[version.id] = now

    def _copy(self, source: Path, target: Path) -> None:
        """Copy an adapter, whole or not at all."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(target) as part:
                part.mkdir()
                for name in (WEIGHTS, ABOUT):
                    shutil.copyfile(source / name, part / name)
                verify_adapter(part)
        except OSError as error:
            raise SvacError(
                f"The new version cannot be stored in {target} ({error.strerror}).",
                "Make room on the disk of SVAC_DATA_DIR, and start the training again: it goes on where it was.",
            ) from error


def _name(base: str, version_id: str) -> str:
    """Return the model version of an adapter, of the base itself where it is empty."""
    return f"{base}-{version_id}" if version_id else base


def served_version(settings: Settings) -> str:
    """Return the model version that serves, of a data folder that need not exist.

    Raises:
        SvacError: there is no such model, or the data folder cannot be used.
    """
    if not is_there(settings):
        return version_of(settings)
    with closing(Database.from_settings(settings)) as database:
        return Registry(settings, database).name()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def compared(a: Version, b: Version | None) -> Iterator[tuple[str, str, str]]:
    """Yield (what, of the first, of the second) for all that is known of two versions; None is the base."""

    def both(what: str, tell: Any) -> tuple[str, str, str]:
        return what, tell(a), "" if b is None else tell(b)

    yield both("model version", lambda one: one.name)
    yield both("state", lambda one: one.state.value)
    yield both("why", lambda one: one.reason)
    yield both("since", lambda one: date_of(one.created))
    yield both("trained on from", lambda one: one.parent or BASE)
    yield both("size", lambda one: f"{one.size / 1e6:.1f} MB")
    figures = [*a.figures, *(() if b is None else b.figures)]
    for name in dict.fromkeys(figures):
        yield both(name.replace("_", " "), lambda one, name=name: _number(one.figures.get(name)))
    data = [*a.data, *(() if b is None else b.data)]
    for name in dict.fromkeys(data):
        yield both(name.replace("_", " "), lambda one, name=name: _text(one.data.get(name)))


def change(figures: Mapping[str, Any], name: str) -> str:
    """Return a measure before and after, e.g. `61.0 to 64.2`; empty where it was not taken."""
    before, after = figures.get(f"{name}_before"), figures.get(f"{name}_after")
    return "" if before is None or after is None else f"{_number(before)} to {_number(after)}"


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:10])) + (", ..." if len(value) > 10 else "")
    return "" if value is None else str(value)


def date_of(seconds: float) -> str:
    """Return a time in this machine's zone."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
