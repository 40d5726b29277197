"""Bad input through the real console script: what is wrong and what to do, in a sentence each, and no traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from svac_backend import __version__
from tests.cli.videos import write_truncated_video, write_video, write_wide_video

pytestmark = pytest.mark.integration

COMMAND = Path(sys.executable).with_name("svac-backend")
CONFIG = Path(__file__).parents[1] / "labelstudio_config" / "brush_frames.xml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, good and bad, and a stand-in for a model's files."""
    folder = tmp_path_factory.mktemp("cli")
    write_video(folder / "good.mp4")
    write_wide_video(folder / "wide.avi")
    write_truncated_video(folder / "cut.mkv")
    (folder / "text.mp4").write_text("This is no video.\n")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "[brackets].mp4").write_text("no video either")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"preset": "standin"}))
    (folder / "model" / "model.safetensors").write_bytes(b"never loaded")
    (folder / "files").mkdir()
    return folder


def environment(**changes: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SVAC_")},
        "SVAC_MODEL": "model",
        "SVAC_LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "SVAC_LABEL_STUDIO_API_KEY": "d" * 40,
        "SVAC_LABEL_STUDIO_FILES_ROOT": "files",
        **changes,
    }


def refused(place: Path, *arguments: str, status: int = 1, **changes: str) -> tuple[str, str]:
    """Run the command, and return what is wrong and what to do."""
    done = subprocess.run(
        [str(COMMAND), *arguments],
        cwd=place,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    wrong, todo = done.stderr.splitlines()
    assert wrong.startswith("Error: ")
    assert todo.startswith("What to do: ")
    assert todo.rstrip().endswith((".", ")"))
    return wrong, todo


@pytest.mark.parametrize(
    ("arguments", "wrong", "todo"),
    [
        (["nosuch.mp4"], "nosuch.mp4", "path"),
        (["text.mp4"], "text.mp4 is not a video", ""),
        (["empty.mp4"], "empty.mp4", ""),
        (["files"], "files", ""),
        (["[brackets].mp4"], "[brackets].mp4 is not a video", ""),
        (["wide.avi"], "20000x16 pixels", "SVAC_MAX_VIDEO_SIDE"),
        (["cut.mkv"], "is cut off", "again"),
        (["good.mp4", "--prompt", ""], "A prompt is empty.", "--prompt"),
        (["good.mp4", "--prompt", "x" * 10_000], "10000 characters", "SVAC_MAX_PROMPT_CHARS"),
        (["good.mp4", "--prompt", "car: the red car", "--config", str(CONFIG)], "no label 'car'", "'object'"),
        (["good.mp4", "--config", "nosuch.xml"], "nosuch.xml cannot be read", "labelstudio_config"),
        (
            ["good.mp4", "--config", "good.mp4"],
            "good.mp4 cannot be read: it is not text",
            "labelstudio_config",
        ),
        (["good.mp4", "--config", "text.mp4"], "not well-formed XML", ""),
    ],
)
def test_prelabel(place: Path, arguments: list[str], wrong: str, todo: str) -> None:
    prompt = [] if "--prompt" in arguments else ["--prompt", "the dog"]
    found = refused(place, "prelabel", *arguments, *prompt)
    assert wrong in found[0]
    assert todo in found[1]
    assert not (place / "out").exists()


def test_prelabel_without_a_prompt_or_a_model(place: Path) -> None:
    assert "no prompt" in refused(place, "prelabel", "good.mp4")[0]
    wrong, todo = refused(place, "prelabel", "good.mp4", "-p", "the dog", SVAC_MODEL="nosuch")
    assert "no model at 'nosuch'" in wrong
    assert "SVAC_MODEL" in todo


def test_import(place: Path) -> None:
    assert (
        "text.mp4 is not a video"
        in refused(place, "import", "good.mp4", "text.mp4", "--create", "Title", "-p", "x")[0]
    )
    wrong, todo = refused(place, "import", "good.mp4", "--create", "Title", "-p", "the dog")
    assert "Label Studio at http://127.0.0.1:9 cannot be reached" in wrong
    assert "SVAC_LABEL_STUDIO_URL" in todo
    assert "--project" in refused(place, "import", "good.mp4", "-p", "the dog")[1]


def test_export_and_masks(place: Path) -> None:
    assert "--project ID or --from FILE" in refused(place, "export", "--format", "coco", "--out", "x")[1]
    wrong, todo = refused(place, "export", "--format", "coco", "--out", "x", "--from", "good.mp4")
    assert "good.mp4 is not JSON" in wrong
    assert "JSON" in todo
    wrong, _ = refused(
        place,
        "import",
        "--masks",
        "model",
        "--format",
        "davis",
        "--create",
        "Title",
        "--window",
        "9",
        "--stride",
        "2",
    )
    assert "model/Annotations/480p" in wrong
    assert not (place / "x").exists()


def test_too_little_to_export_has_a_status_of_its_own(place: Path) -> None:
    task = {"id": 1, "data": {"video": "/v.mp4", "frames": ["/0.jpg"]}, "annotations": []}
    (place / "project.json").write_text(json.dumps([task]))
    arguments = "export", "--format", "coco", "--out", "x", "--from", "project.json", "--config", str(CONFIG)
    done = subprocess.run(
        [str(COMMAND), *arguments], cwd=place, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == ""
    assert "There are no annotations to export." in done.stderr


def test_settings_that_cannot_be_used(place: Path) -> None:
    for command in (["serve"], ["worker"], ["doctor"], ["prelabel", "good.mp4", "-p", "x"]):
        wrong, todo = refused(place, *command, status=78, SVAC_PORT="many", SVAC_DTYPE="hunter2")
        assert "SVAC_PORT" in wrong
        assert "SVAC_DTYPE" in wrong
        assert "hunter2" not in wrong + todo, "a value may be a secret"


def test_a_mistake_is_told_without_loading_torch(place: Path) -> None:
    script = (
        "import sys\nfrom svac_backend.cli.app import app\n"
        "sys.argv = ['svac-backend', 'prelabel', 'text.mp4', '-p', 'the dog']\n"
        "try:\n    app()\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1 False\n", done.stderr


def test_doctor_fails_where_something_is_broken(place: Path) -> None:
    done = subprocess.run(
        [str(COMMAND), "doctor", "--backend-url", "http://127.0.0.1:9"],
        cwd=place,
        env=environment(COLUMNS="300"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    assert re.search(r"torch and sam2 +│ ok +│ torch \d", done.stdout)
    assert "Nothing answers at http://127.0.0.1:9" in done.stdout
    assert "Label Studio at http://127.0.0.1:9 cannot be reached" in done.stdout
    assert "d" * 40 not in done.stdout


def test_ready_says_why_not_and_fails(place: Path) -> None:
    done = subprocess.run(
        [str(COMMAND), "ready"],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "svac-backend worker" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_told_on_standard_output(place: Path) -> None:
    done = subprocess.run(
        [str(COMMAND), "--version"], cwd=place, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == f"svac-backend {__version__}\n"


def test_a_variable_that_is_no_setting_is_named(place: Path) -> None:
    done = subprocess.run(
        [str(COMMAND), "ready"],
        cwd=place,
        env=environment(SVAC_DEVISE="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "There is no setting SVAC_DEVISE. Did you mean SVAC_DEVICE?" in done.stderr
