"""A real Label Studio for tests. Its first start takes a minute, so a migrated database is kept between runs."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path

import pytest
from lab.label_studio import create_personal_access_token

from svac_backend.labelstudio.local import LabelStudioServer, find_executable

DATABASE = "label_studio.sqlite3"
# The key that signs tokens, and the login that belongs to the database.
BESIDE = (".env", "login.json")


@pytest.fixture(scope="session")
def label_studio() -> Iterator[LabelStudioServer]:
    """A running Label Studio, one for the whole session; its projects are thrown away at the end."""
    find_executable()  # raises what to install
    server = _shared()
    yield server
    server.stop()
    shutil.rmtree(server.data_dir, ignore_errors=True)


@cache
def personal_access_token(server: LabelStudioServer) -> str:
    """Return a personal access token of the server's user: Label Studio shows it only once."""
    return create_personal_access_token(server.client())


@lru_cache(maxsize=1)
def _shared() -> LabelStudioServer:
    # More than one conftest may bring the fixture; they share one server.
    data_dir = Path(tempfile.mkdtemp(prefix="svac-label-studio-"))
    template = _template()
    if template is not None and (template / DATABASE).exists():
        shutil.copytree(template, data_dir, dirs_exist_ok=True)
        return LabelStudioServer(data_dir).start()
    server = LabelStudioServer(data_dir).start()
    if template is not None:
        _keep(server, template)
    return server


def _template() -> Path | None:
    """The folder of the kept database, of this user and this version of Label Studio; None when unknown."""
    packages = (
        find_executable().resolve().parents[1].glob("lib/python*/site-packages/label_studio-*.dist-info")
    )
    version = next(
        (path.name.removeprefix("label_studio-").removesuffix(".dist-info") for path in packages), None
    )
    if version is None:
        return None
    folder = Path(tempfile.gettempdir()) / f"svac-label-studio-{version}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder if folder.stat().st_uid == os.getuid() else None


def _keep(server: LabelStudioServer, template: Path) -> None:
    for name in BESIDE:
        shutil.copy2(server.data_dir / name, template / name)
    part = template / "partial"
    part.unlink(missing_ok=True)
    # The backup is consistent although the server runs.
    with (
        closing(sqlite3.connect(server.data_dir / DATABASE)) as source,
        closing(sqlite3.connect(part)) as target,
    ):
        source.backup(target)
    part.replace(template / DATABASE)
