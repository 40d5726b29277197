"""A tiny model with random weights. One torch thread: on shared cores its threads wait longer than they work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from svac_backend.svac.model import Svac
from tests.small import CONFIG

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tokenizer_file: Path) -> Svac:
    """The embedded model's architecture with random weights."""
    torch.manual_seed(0)
    return Svac(CONFIG, tokenizer_file).eval()
