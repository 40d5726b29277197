"""Real masks, where the folder of shared material lies beside the project."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_MASKS = Path(__file__).parents[2] / ".." / "shared" / "masks"


@pytest.fixture(scope="session")
def shared_masks() -> Path:
    """The folder of real DAVIS masks, `<sequence>/{ground_truth,prediction}/<frame>.png`."""
    if not SHARED_MASKS.is_dir():
        pytest.skip("../shared/masks (real masks of DAVIS sequences) is absent")
    return SHARED_MASKS
