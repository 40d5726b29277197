"""The process that trains: the real one, with the embedded model, as far as corrections reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import Job, JobContext, JobState
from svac_backend.jobs.learn import FinetuneHandler, settings_to_json, training_command
from svac_backend.learning import finetune as finetune_module
from svac_backend.learning import process
from svac_backend.learning.child import Child
from svac_backend.learning.collect import Collector
from svac_backend.learning.freeze import Run, open_run
from svac_backend.learning.gate import Decision
from svac_backend.learning.options import TrainOptions
from svac_backend.learning.process import finetune_run
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.store.corrections import Annotation, AnnotationState, Correction, CorrectionStore
from svac_backend.store.database import Database
from svac_backend.store.events import Inbox
from svac_backend.store.versions import TrainingStore
from svac_backend.versions import Registry
from tests.jobs.conftest import HEIGHT, WIDTH, write_clip
from tests.learning.adapter_folders import adapter_folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "files"
    root.mkdir()
    return Settings(
        _env_file=None,
        model="svac-tiny",
        device="cpu",
        threads=1,
        data_dir=tmp_path / "data",
        label_studio_files_root=root,
        finetune_min_videos=3,
        finetune_steps=7,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.from_settings(settings)
    yield database
    database.close()


def correct(settings: Settings, database: Database, number: int) -> None:
    root = settings.label_studio_files_root
    assert root is not None
    write_clip(root / f"{number}.mp4")
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[10:30, 8:24] = True
    about = Annotation(
        "38",
        str(number),
        number,
        str(number),
        AnnotationState.USED,
        video_url=f"/data/local-files/?d={number}.mp4",
        video=f"v{number}",
        width=WIDTH,
        height=HEIGHT,
    )
    track = Track("obj1", "dog", "the dog", {2: to_coco(mask)}, {2: 1.0})
    CorrectionStore(database).put(about, [Correction(about, track, frozenset({2}), frozenset({3}))])


def follow(settings: Settings, run: Run, told: list[str]) -> dict[str, object]:
    child = Child(training_command(run.folder), settings_to_json(settings), run.log)
    try:
        return child.follow(lambda _, message: told.append(message))
    finally:
        child.stop(5)


def test_the_real_process_finds_the_videos_and_says_how_many_are_missing(
    settings: Settings, database: Database
) -> None:
    correct(settings, database, 1)
    correct(settings, database, 2)
    told: list[str] = []
    found = follow(settings, open_run(settings, database, "job"), told)
    assert "Fetching video 2 of 2" in told
    assert (found["adapter"], found["promote"], found["steps"]) == (None, False, 0)
    assert str(found["reason"]).startswith("2 corrected videos so far: 1 more is needed")


def test_a_video_that_is_gone_is_named(settings: Settings, database: Database) -> None:
    correct(settings, database, 1)
    assert settings.label_studio_files_root is not None
    (settings.label_studio_files_root / "1.mp4").unlink()
    run = open_run(settings, database, "job")
    with pytest.raises(SvacError, match=r"The video of task 1 cannot be learned from"):
        finetune_run(settings, database, run, lambda *_: None, lambda: False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """What `finetune` is asked; it answers with an adapter."""
    given: dict[str, object] = {}

    def finetune(
        model: object, data: finetune_module.FinetuneData, out: Path, **options: object
    ) -> finetune_module.Outcome:
        given.update(options, examples=data.examples, out=out)
        adapter_folder(out / "adapter", b"weights")
        decision = Decision(True, "J&F rose.", {"held_out_after": 61.0})
        return finetune_module.Outcome(out / "adapter", decision, 7, 1.0, out / "report.html")

    monkeypatch.setattr(process, "finetune", finetune)
    return given


def test_what_is_trained_on(settings: Settings, database: Database, asked: dict[str, object]) -> None:
    for number in (1, 2, 3):
        correct(settings, database, number)
    registry = Registry(settings, database)
    adapter_folder(settings.data_dir / "made", b"the one that serves")
    serving = registry.publish(settings.data_dir / "made", base=registry.base, promote=True, reason="")
    run = open_run(settings, database, "job")
    found = finetune_run(settings, database, run, lambda *_: None, lambda: False)
    example, *others = asked["examples"]  # type: ignore[misc]
    assert len(others) == 2
    assert (example.expression, example.drawn, example.accepted) == ("the dog", {2}, {3})
    with example.video.open() as video:
        assert (video.info.width, len(video)) == (WIDTH, 12)
    assert asked["parent"] == registry.folder(serving)
    assert isinstance(asked["options"], TrainOptions)
    assert asked["options"].steps == 7
    assert (found["promote"], found["steps"], found["figures"]) == (True, 7, {"held_out_after": 61.0})
    assert Path(str(found["adapter"])).is_absolute()


def test_a_parent_that_is_damaged_meanwhile_is_said(
    settings: Settings, database: Database, asked: dict[str, object]
) -> None:
    for number in (1, 2, 3):
        correct(settings, database, number)
    registry = Registry(settings, database)
    adapter_folder(settings.data_dir / "made", b"the one that serves")
    serving = registry.publish(settings.data_dir / "made", base=registry.base, promote=True, reason="")
    run = open_run(settings, database, "job")
    (registry.folder(serving) / "adapter.safetensors").write_bytes(b"the 0ne that serves")
    with pytest.raises(SvacError, match="damaged"):
        finetune_run(settings, database, run, lambda *_: None, lambda: False)


def test_a_run_is_frozen_when_it_begins(settings: Settings, database: Database) -> None:
    correct(settings, database, 1)
    Inbox(database).advance(11)
    run = open_run(settings, database, "job")
    correct(settings, database, 2)
    Inbox(database).advance(12)
    CorrectionStore(database).delete("38", ["1"], 12)
    again = open_run(settings, database, "job")
    assert again == run
    assert [one.annotation_id for one in again.corrections] == ["1"]
    began = TrainingStore(database).get("job")
    assert began is not None
    assert (began.event, began.corrections) == (11, 1)
    other = open_run(settings, database, "another job")
    assert ([one.annotation_id for one in other.corrections], other.event) == (["2"], 12)


def test_a_worker_that_dies_between_training_and_registering_trains_no_second_time(
    settings: Settings, database: Database, asked: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        correct(settings, database, number)
    run = open_run(settings, database, "0" * 32)
    run.finish(finetune_run(settings, database, run, lambda *_: None, lambda: False))

    def command(_: Path) -> list[str]:
        raise AssertionError("it is trained already")

    handler = FinetuneHandler(settings, database, Collector(settings, database), command)
    result = handler(context_of("0" * 32))
    assert result["promoted"] is True
    registry = Registry(settings, database)
    assert registry.name() == result["version"]
    assert not (run.out / "adapter").exists()  # the registry has it
    again = handler(context_of("0" * 32))  # it died once more, before the job was done
    assert (again["version"], again["promoted"]) == (result["version"], True)
    assert len(registry.store.all()) == 1


def context_of(job_id: str) -> JobContext:
    values: dict[str, object] = {**dict.fromkeys(Job.__dataclass_fields__), "cancel_requested": False}
    job = Job(**{**values, "id": job_id, "state": JobState.RUNNING, "payload": {}})  # type: ignore[arg-type]
    return JobContext(job, lambda *_: job, threading.Event())
