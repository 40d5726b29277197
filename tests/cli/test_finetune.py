"""`svac-backend finetune`: from a folder to a registered version, and what is said where there is nothing to learn."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from lab.mevis import write_mevis

from svac_backend.cli.finetune import run
from svac_backend.errors import SvacError
from svac_backend.learning.process import LOCK_FILE
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.versions import VersionState
from svac_backend.svac.files.adapters import verify_adapter
from svac_backend.versions import Registry
from tests.learning.made import SCENES, small_model

FEW = {"steps": 2, "batch": 2, "accumulate": 1, "rank": 4}


@pytest.fixture
def trainable(tokenizer_file: Path, tmp_path: Path) -> Settings:
    """A very small model, and a gate that few videos pass."""
    folder = tmp_path / "model"
    small_model(tokenizer_file).save_pretrained(folder)
    return Settings(
        _env_file=None,
        model=str(folder),
        data_dir=tmp_path / "data",
        device="cpu",
        finetune_min_videos=4,
        finetune_min_gain=-100,
    )


def test_a_folder_becomes_a_version(
    trainable: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mevis(tmp_path / "mevis" / "train", range(4), SCENES, expressions=1)
    write_mevis(tmp_path / "mevis" / "valid", range(10, 11), SCENES, expressions=1)
    outcome = run(
        trainable, data=tmp_path, split="train", regression="valid", out=tmp_path / "run", changes=FEW
    )
    assert outcome.steps == 2
    assert outcome.adapter is not None
    assert outcome.decision.figures["regression_before"] is not None
    registry = Registry(trainable, Database.from_settings(trainable))
    (version,) = registry.store.all()
    assert version.sha256 == verify_adapter(outcome.adapter).sha256
    assert version.reason == outcome.decision.reason
    assert version.data == {"examples": 4, "from": str(tmp_path)}
    assert (version.state is VersionState.PROMOTED) == outcome.decision.promote
    told = capsys.readouterr().err
    assert version.name in told
    assert outcome.decision.reason[:30] in told
    # The same folder again: the run is done, so nothing is trained and no second version comes of it.
    assert run(trainable, data=tmp_path, out=tmp_path / "run", regression="valid", changes=FEW).steps == 2
    assert len(registry.store.all()) == 1


def test_without_corrections_it_says_how_many_are_missing(
    trainable: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run(trainable, changes=FEW)
    assert outcome.adapter is None
    assert "4 more are needed" in outcome.decision.reason
    assert "4 more are needed" in capsys.readouterr().err
    assert Registry(trainable, Database.from_settings(trainable)).store.all() == []


def test_two_at_once_are_refused(trainable: Settings) -> None:
    trainable.data_dir.mkdir(parents=True)
    with (
        FileLock(trainable.data_dir / LOCK_FILE),
        pytest.raises(SvacError, match="Another fine-tuning runs"),
    ):
        run(trainable, changes=FEW)
