"""What all tests share: hypothesis without deadlines, one torch thread, and a small model with random weights."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.databases import open_database, postgresql

__all__ = ["open_database", "postgresql"]

# Other work on the machine makes a test late; that says nothing about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what a test logged that is no text, such as a lone surrogate: xdist passes reports on as UTF-8."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_runtest_setup() -> None:
    # On few cores torch's threads wait for each other longer than they work. Most tests never import it.
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model's tokenizer, trained on few scenes."""
    from lab.train_tiny.tokenizer import train_tokenizer

    from tests.small import CONFIG, VOCABULARY

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(CONFIG.method.question, scenes=20, vocabulary=VOCABULARY).save(str(path))
    return path


@pytest.fixture(scope="session")
def random_model(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for SVAC_MODEL: the embedded model's architecture with random weights, which find something."""
    import torch

    from svac_backend.svac.model import Svac
    from tests.small import CONFIG

    folder = tmp_path_factory.mktemp("random-model")
    torch.manual_seed(3)
    model = Svac(CONFIG, tokenizer_file)
    # Random weights may say of everything that it is not there, or of every pixel that it is outside.
    with torch.no_grad():
        decoder = model.sam.sam_mask_decoder
        decoder.pred_obj_score_head.layers[-1].bias.fill_(10.0)
    model.save_pretrained(folder)
    return folder
