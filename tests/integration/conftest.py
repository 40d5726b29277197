"""Tests against a real Label Studio."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.label_studio import label_studio

__all__ = ["label_studio"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
