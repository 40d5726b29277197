"""Whether the backend can serve, and why not: over a real database, with workers' heartbeats written by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from svac_backend.jobs.services import Services, open_services, reasons_not_ready, reasons_worker_not_ready
from svac_backend.settings import Settings


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = open_services(Settings(_env_file=None, data_dir=tmp_path, min_free_mb=0))  # type: ignore[call-arg]
    yield opened
    opened.database.close()


def test_a_worker_with_the_weights_of_the_settings_is_needed(services: Services) -> None:
    (reason,) = reasons_not_ready(services)
    assert "svac-backend worker" in reason
    services.workers.beat("h:1:a")
    assert reasons_not_ready(services) == ["The worker is loading its model."]
    services.workers.beat("h:1:a", device="cpu", model_version="svac-00000000")
    (reason,) = reasons_not_ready(services)
    assert "svac-00000000" in reason
    assert services.registry.base in reason
    # Beside one with other weights, one with ours is enough; it may serve an adapter.
    services.workers.beat("h:2:b", device="cpu", model_version=f"{services.registry.base}-a1b2")
    assert reasons_not_ready(services) == []


def test_a_worker_that_is_silent_counts_for_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.workers.beat("h:1:a", device="cpu", model_version=services.registry.base)
    monkeypatch.setattr("svac_backend.jobs.services.LEASE_S", -1.0)
    (reason,) = reasons_not_ready(services)
    assert "svac-backend worker" in reason


def test_little_disk_is_a_reason(services: Services) -> None:
    services.workers.beat("h:1:a", device="cpu", model_version=services.registry.base)
    services.settings.min_free_mb = 10**12
    (reason,) = reasons_not_ready(services)
    assert "SVAC_MIN_FREE_MB" in reason


def test_no_model_and_a_damaged_database_are_reasons(services: Services) -> None:
    services.settings.model = "nothing-here"
    (reason,) = reasons_not_ready(services)
    assert "nothing-here" in reason
    services.database.close()
    (services.settings.data_dir / "svac.db").write_bytes(b"garbage" * 1000)
    assert any(str(services.database) in reason for reason in reasons_not_ready(services))
    assert any(str(services.database) in reason for reason in reasons_worker_not_ready(services))


def test_a_host_asks_for_its_own_worker(services: Services) -> None:
    services.workers.beat("another-host:1:a", device="cpu", model_version=services.registry.base)
    (reason,) = reasons_worker_not_ready(services)
    assert socket.gethostname()[:60] in reason
    services.workers.beat(f"{socket.gethostname()[:60]}:1:a")
    assert reasons_worker_not_ready(services) == []
