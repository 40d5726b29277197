"""Real masks, where there are any."""

from __future__ import annotations

from tests.masks.conftest import shared_masks

__all__ = ["shared_masks"]
