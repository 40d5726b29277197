"""`export` from a file of Label Studio; tests/integration/test_export.py has projects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from svac_backend.cli.app import main
from svac_backend.cli.commands import videos as commands
from svac_backend.cli.inputs import SHIPPED
from svac_backend.datasets.layouts import DataSet
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import parse_config
from svac_backend.labelstudio.regions.region import Canvas, RegionOptions
from svac_backend.labelstudio.regions.written import tracks_to_results
from svac_backend.labelstudio.tasks import Window, local_files_url
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from tests.cli.videos import FPS, FRAMES, HEIGHT, WIDTH, write_video
from tests.datasets.made import rectangle

CONFIG = SHIPPED / "brush_frames.xml"


@pytest.fixture
def local(settings: Settings) -> Settings:
    """Without a token: a file needs no Label Studio."""
    return settings.model_copy(update={"label_studio_api_key": None})


def track() -> Track:
    masks = {i: rectangle(12, 4 + 4 * i, 16, 16) for i in range(FRAMES)}
    return Track("obj1", "object", "the red square", masks)


@pytest.fixture
def exported(local: Settings, tmp_path: Path) -> Path:
    """A project of one video in two windows, as Label Studio exports it."""
    root = local.label_studio_files_root
    assert root is not None
    url = local_files_url(write_video(root / "square.mp4"), root)
    config = parse_config(CONFIG.read_text())
    tasks: list[dict[str, Any]] = []
    for window in (Window(0, 5), Window(3, 5)):
        result = tracks_to_results(
            [track()],
            config.mask_control(),
            canvas=Canvas(WIDTH, HEIGHT, window),
            options=RegionOptions(min_area_px=1),
        )
        data = {"video": url, "fps": FPS, "prompt": "the red square", "svac_window": window.to_json()}
        data["frames"] = [f"/{i}.jpg" for i in range(window.count)]
        annotation = {"id": 1, "result": result, "updated_at": "2026-11-22T10:00:00Z", "was_cancelled": False}
        tasks.append({"id": len(tasks) + 1, "data": data, "annotations": [annotation], "predictions": []})
    file = tmp_path / "project.json"
    file.write_text(json.dumps(tasks))
    return file


def export(settings: Settings, layout: str, out: Path, **options: Any) -> None:
    """What the command line does with some options."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "get_settings", lambda: settings)
        commands.export(layout, out, **options)


def refused(settings: Settings, layout: str, out: Path, **options: Any) -> SvacError:
    with pytest.raises(SvacError) as caught:
        export(settings, layout, out, **options)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("layout", ["davis", "youtube-vis", "mevis", "coco"])
def test_a_file_of_label_studio(
    local: Settings, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    out = tmp_path / "out"
    export(local, layout, out, from_=exported)
    (video,) = DataSet(out, layout, "train").read()
    assert (video.name, video.frames, video.fps) == ("square", tuple(range(FRAMES)), FPS)
    (found,) = video.tracks
    assert (found.object_id, found.label, found.expression) == ("obj1", "object", "the red square")
    assert found.masks == track().masks
    assert video.pictures is not None
    assert len(list(video.pictures.glob("*.jpg"))) == FRAMES
    printed = capsys.readouterr().err
    assert f"1 video, {FRAMES} frames, 1 object, {FRAMES} masks as {layout} in {out}" in printed


def test_a_config_beside_the_file_and_no_frames(local: Settings, exported: Path, tmp_path: Path) -> None:
    (local.label_studio_files_root / "square.mp4").unlink()  # type: ignore[operator]
    error = refused(local, "coco", tmp_path / "out", from_=exported, config=CONFIG)
    assert "--no-frames" in error.hint
    assert not (tmp_path / "out").exists()
    export(local, "coco", tmp_path / "out", from_=exported, config=CONFIG, frames=False, split="valid")
    (video,) = DataSet(tmp_path / "out", "coco", "valid").read()
    assert video.tracks[0].masks == track().masks


def test_nothing_to_export(local: Settings, exported: Path, tmp_path: Path) -> None:
    error = refused(local, "coco", tmp_path / "out", from_=exported, source="predictions")
    assert error.message == "There are no predictions to export."


def test_what_is_asked_for_must_make_sense(local: Settings, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--project ID or --from" in refused(local, "coco", out).hint
    assert "--project ID or --from" in refused(local, "coco", out, from_=exported, project=1).hint
    assert "--config goes with --from" in refused(local, "coco", out, project=1, config=CONFIG).message
    assert "no format 'zip'" in refused(local, "zip", out, from_=exported).message
    assert "split" in refused(local, "coco", out, from_=exported, split="a/b").message
    assert "no source" in refused(local, "coco", out, from_=exported, source="dreams").message
    assert "No Label Studio token" in refused(local, "coco", out, project=1).message
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("x")
    assert "is not empty" in refused(local, "coco", out, from_=exported).message


def test_what_a_command_needs_is_marked() -> None:
    done = CliRunner().invoke(main, ["export", "--help"], env={"COLUMNS": "200"})
    marked = [line for line in done.stdout.splitlines() if "[required]" in line]
    assert [line.split("--")[1].split()[0] for line in marked] == ["format", "out"]
    missing = CliRunner().invoke(main, ["export", "--format", "coco"])
    assert (missing.exit_code, "--out" in missing.output) == (2, True)


def test_the_answer_is_on_standard_output(
    local: Settings, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "get_settings", lambda: local)
    arguments = ["export", "--format", "coco", "--no-frames", "--from", str(exported), "--out"]
    plain = CliRunner().invoke(main, [*arguments, str(tmp_path / "plain")])
    assert plain.stdout == f"{tmp_path / 'plain'}\n"
    assert f"{FRAMES} masks as coco" in plain.stderr
    told = json.loads(CliRunner().invoke(main, [*arguments, str(tmp_path / "json"), "--json"]).stdout)
    assert (told["folder"], told["masks"], told["notes"]) == (str(tmp_path / "json"), FRAMES, [])


@pytest.mark.parametrize("content", ["no json", "{}", '[{"id": 1}]', "[7]", '[{"data": {"video": "x"}}]'])
def test_a_file_that_is_no_export(local: Settings, tmp_path: Path, content: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(content)
    refused(local, "coco", tmp_path / "out", from_=file)
    assert "cannot be read" in refused(local, "coco", tmp_path / "out", from_=tmp_path / "missing").message
