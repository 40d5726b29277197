"""The S3 server, and two machines that use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from svac_backend.settings import Settings
from svac_backend.storage.bucket import Bucket
from svac_backend.storage.cache import Cache
from svac_backend.storage.published import BucketStorage
from tests.storage.server import NAME, FaultyProxy, s3, s3_server

__all__ = ["s3", "s3_server"]
URL = f"s3://{NAME}/pre fix"


def machine(folder: Path, limit: int = 0) -> BucketStorage:
    """A machine's own storage, with its copies in a folder, as another process has it."""
    return BucketStorage(Bucket(URL), Cache(folder, limit))


@pytest.fixture
def here(s3: FaultyProxy, tmp_path: Path) -> BucketStorage:
    return machine(tmp_path / "here")


@pytest.fixture
def there(s3: FaultyProxy, tmp_path: Path) -> BucketStorage:
    return machine(tmp_path / "there")


def settings_of(folder: Path, url: str | None = URL) -> Settings:
    return Settings(_env_file=None, data_dir=folder, storage_url=url)  # type: ignore[call-arg]
