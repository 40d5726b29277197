"""A tiny model with random weights. One torch thread: on shared cores its threads wait longer than they work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lab.train_tiny.tokenizer import train_tokenizer

from svac_backend.svac.model import Svac
from tests.small import CONFIG, VOCABULARY

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's tokenizer, trained on few scenes."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(CONFIG.method.question, scenes=20, vocabulary=VOCABULARY).save(str(path))
    return path


@pytest.fixture(scope="session")
def model(tokenizer_file: Path) -> Svac:
    """The embedded model's architecture with random weights."""
    torch.manual_seed(0)
    return Svac(CONFIG, tokenizer_file).eval()
