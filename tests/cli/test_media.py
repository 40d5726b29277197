"""`svac-backend media`: links renewed by hand, and frames of deleted tasks deleted, nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from pydantic import SecretStr

from svac_backend.cli.media import run_clean, run_renew
from svac_backend.errors import SvacError
from svac_backend.jobs.renew import LinkedTask, remember
from svac_backend.settings import Settings
from svac_backend.store.links import MediaLinks
from tests.jobs.conftest import label_studio

__all__ = ["label_studio"]


@pytest.fixture
def ours(settings: Settings, label_studio: Any) -> Settings:
    """Settings with two tasks in Label Studio and one that was deleted there, all with links to frames."""
    changes = {
        "label_studio_url": label_studio.url,
        "label_studio_api_key": SecretStr("ab" * 20),
        "media_url": "https://masks.example",
    }
    one = settings.model_copy(update=changes)
    links = MediaLinks.from_settings(one)
    for task in (7, 8, 9):
        folder = links.root / "project-38" / f"task-{task}"
        folder.mkdir(parents=True)
        (folder / "00000.jpg").write_bytes(b"x" * 1_000_000)
        if task != 9:
            label_studio.tasks[task] = {"frames": [links.url(folder / "00000.jpg")]}
        remember(LinkedTask(folder, "38", task, "frames"), links.clock(), links.identity)
    return one


def test_renew(ours: Settings, label_studio: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_renew(ours)
    assert "the links of 3 tasks are new enough" in capsys.readouterr().out
    moved = ours.model_copy(update={"media_url": "https://moved.example"})
    run_renew(moved)
    assert "Links of 2 tasks renewed, 1 deleted in Label Studio" in capsys.readouterr().out
    assert label_studio.tasks[7]["frames"][0].startswith("https://moved.example/media/project-38/task-7/")
    run_renew(moved, every=True)
    assert "Links of 2 tasks renewed" in capsys.readouterr().out
    with pytest.raises(SvacError, match="SVAC_MEDIA_URL is not set"):
        run_renew(ours.model_copy(update={"media_url": None}))


def test_clean(
    ours: Settings,
    label_studio: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = MediaLinks.from_settings(ours).root / "project-38"
    monkeypatch.setattr(typer, "confirm", lambda text: False)
    run_clean(ours)
    assert "Nothing was deleted." in capsys.readouterr().out
    assert (folders / "task-9").is_dir()
    monkeypatch.setattr(typer, "confirm", lambda text: "(1.0 MB)" in text)
    run_clean(ours)
    printed = capsys.readouterr().out
    assert "as project/task: 38/9" in printed
    assert "The frames of 1 task are deleted" in printed
    assert sorted(path.name for path in folders.iterdir()) == ["task-7", "task-8"]
    run_clean(ours, yes=True)
    assert "Nothing to delete" in capsys.readouterr().out
    away = ours.model_copy(update={"label_studio_url": "http://127.0.0.1:9"})
    with pytest.raises(SvacError, match="cannot be reached"):
        run_clean(away, yes=True)
    assert (folders / "task-7").is_dir()
