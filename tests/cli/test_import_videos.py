"""What `import` refuses before it asks Label Studio; tests/integration/test_import.py has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svac_backend.cli.import_videos import import_videos
from svac_backend.cli.projects import Destination
from svac_backend.datasets.windows import Windowing
from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from tests.cli.videos import write_truncated_video, write_video, write_wide_video


def refused(
    settings: Settings, *videos: Path, prompts: tuple[str, ...] = ("the dog",), **options: Any
) -> SvacError:
    predict = options.pop("predict", True)
    with pytest.raises(SvacError) as caught:
        import_videos(settings, videos, prompts, Destination(**options), Windowing(), predict=predict)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "v.mp4")


@pytest.mark.parametrize("target", [{}, {"project": 1, "create": "T"}])
def test_one_target_must_be_named(settings: Settings, video: Path, target: dict[str, Any]) -> None:
    error = refused(settings, video, **target)
    assert "--project ID or --create" in error.hint


def test_a_config_belongs_to_a_new_project(settings: Settings, video: Path) -> None:
    assert "--config goes with --create" in refused(settings, video, project=1, config=Path("c.xml")).message


def test_prompts_are_checked_before_videos(settings: Settings, tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    assert refused(settings, missing, create="Title", prompts=()).message == "There is no prompt."
    assert refused(settings, missing, create="Title", prompts=("",)).message == "A prompt is empty."
    assert "characters" in refused(settings, missing, create="Title", prompts=("x" * 10_000,)).message
    config = tmp_path / "c.xml"
    config.write_text("<View>")
    assert "not well-formed" in refused(settings, missing, create="Title", config=config).message


def test_the_model_is_needed_for_predictions_only(settings: Settings, video: Path) -> None:
    no_model = settings.model_copy(update={"model": "nothing-here"})
    assert "no model" in refused(no_model, video, create="Title").message
    assert "cannot be reached" in refused(no_model, video, create="Title", predict=False).message


def test_the_files_root_must_be_usable(settings: Settings, video: Path, tmp_path: Path) -> None:
    def message(root: Path | None) -> str:
        return refused(
            settings.model_copy(update={"label_studio_files_root": root}), video, project=1
        ).message

    assert "SVAC_LABEL_STUDIO_FILES_ROOT is not set" in message(None)
    assert "which is not a folder" in message(tmp_path / "missing")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "svac").write_text("a file")
    assert "cannot be written" in message(tmp_path / "taken")


@pytest.mark.parametrize("title", ["", "  ", "ab", "x" * 51])
def test_a_title_that_label_studio_would_not_take(settings: Settings, video: Path, title: str) -> None:
    assert "3 to 50 characters" in refused(settings, video, create=title).message


def test_every_video_is_checked(settings: Settings, video: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("hello")
    for bad, words in (
        (tmp_path / "missing.mp4", "missing.mp4"),
        (text, "text.mp4"),
        (tmp_path, "folder"),
        (write_truncated_video(tmp_path / "cut.mkv"), "is cut off"),
        (write_wide_video(tmp_path / "wide.avi"), "20000x16"),
    ):
        assert words in refused(settings, video, bad, create="Title").message


def test_a_label_studio_that_is_down(settings: Settings, video: Path) -> None:
    error = refused(settings, video, project=1)
    assert "cannot be reached" in error.message
    assert list((settings.label_studio_files_root or Path()).rglob("*.*")) == []
    assert (
        "No Label Studio token"
        in refused(settings.model_copy(update={"label_studio_api_key": None}), video, project=1).message
    )
