"""`svac-backend corrections` over a real clip: the list, a picture of what was drawn, the data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from svac_backend.cli import corrections
from svac_backend.datasets.layouts import DataSet
from svac_backend.errors import SvacError
from svac_backend.masks.rle import from_coco, to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import EventStore, Inbox
from tests.jobs.conftest import HEIGHT, WIDTH, write_clip

VIDEO = "/data/local-files/?d=clip.mp4"


def square(left: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:30, left : left + 16] = True
    return mask


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "files"
    root.mkdir()
    write_clip(root / "clip.mp4")
    return Settings(_env_file=None, data_dir=tmp_path / "data", label_studio_files_root=root)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.from_settings(settings)
    yield database
    database.close()


def put(database: Database, number: int, project: str = "38", task: str = "7") -> None:
    about = Annotation(
        project,
        str(number),
        number,
        task,
        AnnotationState.USED,
        video_url=VIDEO,
        video="v",
        width=WIDTH,
        height=HEIGHT,
        who="ann@example.com",
        saved=1767225600.0 + number,
        model_version="svac-3fa9c1d2",
    )
    masks = {2: to_coco(square(4)), 5: to_coco(square(30))}
    tracks = [
        Track("obj1", "dog", "the dog", masks),
        Track("obj2", "cat", "the cat", {5: to_coco(square(2))}),
    ]
    found = [
        Correction(about, tracks[0], frozenset({5}), frozenset({2, 3})),
        Correction(about, tracks[1], frozenset({5}), frozenset()),
    ]
    CorrectionStore(database).put(about, found)


def test_list(settings: Settings, database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    put(database, 1)
    put(database, 2)
    put(database, 3, project="39")
    corrections.run_list(settings)
    out = "".join(capsys.readouterr())
    row = next(line for line in out.splitlines() if "the dog" in line).split("  ")
    cells = [cell.strip() for cell in row if cell.strip()]
    assert cells[:7] == ["1", "38/7", "clip", "the dog", "1", "2", "ann@example.com"]
    assert cells[8] == "svac-3fa9c1d2"
    assert "6 corrections on 1 video; a fine-tuning needs 8 videos." in out
    assert "2 are not used for learning" in out  # both objects of annotation 1, of which 2 is the later one
    corrections.run_list(settings, 39)
    assert "2 corrections on 1 video" in "".join(capsys.readouterr())


def test_list_says_what_is_not_collected(
    settings: Settings, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    EventStore(database).add("ANNOTATION_CREATED", "38", b"{}")
    Inbox(database).put_off(1, "Label Studio cannot be reached.", "Start it.")
    corrections.run_list(settings)
    out = "".join(capsys.readouterr())
    assert "Webhook 1 (to be tried again): Label Studio cannot be reached." in out
    assert "There are new webhooks" in out
    corrections.run_collect(settings)
    assert "0 annotations collected." in "".join(capsys.readouterr())
    corrections.run_list(settings)
    assert "There are new webhooks" not in "".join(capsys.readouterr())


def test_show_draws_the_masks_of_the_frames_that_are_known(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    put(database, 1)
    out = tmp_path / "sheet.png"
    corrections.run_show(settings, "1", out)
    sheet = cv2.imread(str(out))
    assert sheet is not None
    assert sheet.shape[1] > 3 * WIDTH  # frames 2, 3 and 5 in one row
    blue = sheet[..., 0].astype(int) - sheet[..., 2].astype(int)
    assert (blue > 60).sum() > 400  # the first object's colour on the grey clip
    (tmp_path / "one.png").write_bytes(b"")
    corrections.run_show(settings, "38/1", tmp_path / "one.png", pictures=1)
    one = cv2.imread(str(tmp_path / "one.png"))
    assert one is not None
    assert one.shape[1] < 2 * WIDTH
    assert not np.array_equal(one, sheet[:, : one.shape[1]])


@pytest.mark.parametrize(
    ("name", "said"), [("9", "no correction"), ("39/1", "no correction"), ("1", "Several")]
)
def test_show_says_what_is_wrong(
    settings: Settings, database: Database, tmp_path: Path, name: str, said: str
) -> None:
    put(database, 1)
    put(database, 1, project="40")
    with pytest.raises(SvacError, match=said):
        corrections.run_show(settings, name, tmp_path / "x.png")


def test_export_writes_what_is_learned_from(settings: Settings, database: Database, tmp_path: Path) -> None:
    put(database, 1)
    put(database, 2, task="8")
    corrections.run_export(settings, DataSet(tmp_path / "out", "mevis"))
    first, second = list(DataSet(tmp_path / "out", "mevis", "train").read())
    assert (first.name, second.name) == ("clip", "clip-2")
    assert first.frames == (2, 3, 5)
    dog, cat = first.tracks
    assert (dog.expression, cat.expression) == ("the dog", "the cat")
    assert np.array_equal(from_coco(dog.masks[5]), square(30))
    assert sorted(dog.masks) == [2, 5]
    assert sorted(cat.masks) == [5]
    pictures = sorted(path.name for path in (tmp_path / "out" / "train" / "JPEGImages" / "clip").iterdir())
    assert pictures == ["00002.jpg", "00003.jpg", "00005.jpg"]
    meta = json.loads((tmp_path / "out" / "train" / "meta_expressions.json").read_text())
    assert len(meta["videos"]) == 2
    with pytest.raises(SvacError, match="no corrections"):
        corrections.run_export(settings, DataSet(tmp_path / "other", "mevis"), project=99)


def test_names_of_videos() -> None:
    assert corrections.video_stem(VIDEO) == "clip"
    assert corrections.video_stem("https://x.example/a/My%20clip.mp4?signature=1") == "My_clip"
    assert corrections.video_stem("https://x.example/") == "video"
