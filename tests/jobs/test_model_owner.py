"""Which version the worker's model serves with: real adapters in the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.jobs.engine import JobEngine, JobState
from svac_backend.jobs.payloads import FramesPayload, PrelabelPayload
from svac_backend.jobs.worker import ModelOwner, create_worker
from svac_backend.learning.adapters import (
    LoraOptions,
    attach_lora,
    detach_lora,
    loaded_adapter,
    marks_of,
    save_adapter,
    trained_parameters,
)
from svac_backend.masks.tracks import ObjectPrompt
from svac_backend.pipeline import load_model
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.links import MediaLinks
from svac_backend.store.predictions import PredictionStore
from svac_backend.store.versions import Version
from svac_backend.svac.files.adapters import WEIGHTS
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo
from tests.jobs.conftest import CONFIG, write_clip
from tests.storage.server import FaultyProxy, VideoHost, s3, s3_server

__all__ = ["s3", "s3_server"]

VIDEO = ArrayVideo(np.random.default_rng(0).integers(0, 255, (4, 48, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def settings_of_model() -> Settings:
    return Settings(_env_file=None, model="svac-tiny", device="cpu", threads=1)


@pytest.fixture(scope="module")
def model(settings_of_model: Settings) -> Svac:
    model = load_model(settings_of_model)
    # With random adapters it is sure of nothing: all is drawn, so that versions differ.
    model.config = replace(model.config, absent_below=0.0)
    return model


@pytest.fixture(scope="module")
def adapters(model: Svac, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that change what the model sees, and one of another model."""
    lora = LoraOptions(2, 4, 0.0)
    found = {}
    for seed, name in enumerate(("one", "two", "foreign")):
        torch.manual_seed(seed)
        attach_lora(model, lora)
        state = {key: value.detach().clone() for key, value in trained_parameters(model).items()}
        detach_lora(model)
        for key, value in state.items():
            if value.is_floating_point():
                state[key] = value + 0.05 * torch.randn_like(value)
        marks = marks_of(model)
        if name == "foreign":
            marks = {key: [value + 1 for value in values] for key, values in marks.items()}
        found[name] = tmp_path_factory.mktemp("adapters") / name
        save_adapter(found[name], state, torch.float32, lora=lora, marks=marks, parent=None, steps=1)
    return found


@pytest.fixture
def owner(tmp_path: Path, settings_of_model: Settings, model: Svac) -> Iterator[ModelOwner]:
    settings = settings_of_model.model_copy(update={"data_dir": tmp_path / "data"})
    database = Database.from_settings(settings)
    owner = ModelOwner(settings, database, lambda _: model)
    yield owner
    for version in owner.registry.store.all():
        owner.registry.store.decide(version.id, version.state.DAMAGED, "the test is over")
    owner.version()  # the model is shared: it goes back as it came
    assert loaded_adapter(model) is None
    database.close()


def publish(owner: ModelOwner, folder: Path) -> Version:
    serving = owner.registry.serving()
    return owner.registry.publish(
        folder,
        base=owner.registry.base,
        parent=serving.id if serving else "",
        promote=True,
        reason="better",
    )


def logits(owner: ModelOwner) -> list[bytes]:
    """What the model makes of the video, bit for bit."""
    found = owner.get().segment(VIDEO, ["the red square", "the dog"])
    return [frame.masks.tobytes() + frame.scores.tobytes() for frame in found]


def test_promoted_versions_serve_and_roll_back_brings_the_old_masks_back_bit_for_bit(
    owner: ModelOwner, adapters: dict[str, Path]
) -> None:
    base = owner.version()
    assert owner.describe() == ("", "")
    before = logits(owner)
    assert owner.describe() == ("cpu", base)

    one = publish(owner, adapters["one"])
    assert owner.describe() == ("cpu", base)  # a job that runs goes on with the old one
    assert logits(owner) == before
    assert owner.version() == one.name
    first = logits(owner)
    assert first != before
    two = publish(owner, adapters["two"])
    assert owner.version() == two.name
    assert logits(owner) not in (before, first)

    owner.registry.roll_back()
    assert owner.version() == one.name
    assert logits(owner) == first
    owner.registry.roll_back()
    assert owner.version() == base
    assert logits(owner) == before


def test_a_damaged_version_is_refused_and_the_last_good_one_serves(
    owner: ModelOwner, adapters: dict[str, Path]
) -> None:
    one, two = publish(owner, adapters["one"]), publish(owner, adapters["two"])
    weights = owner.registry.folder(two) / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert owner.version() == one.name
    assert loaded_adapter(owner.get()) is not None
    assert "damaged" in str(owner.registry.problem())
    assert one.name in str(owner.registry.problem())


@pytest.mark.parametrize("loaded", [False, True])
def test_an_adapter_of_another_model_is_refused(
    owner: ModelOwner, adapters: dict[str, Path], loaded: bool
) -> None:
    base = owner.version()
    if loaded:
        owner.get()
    publish(owner, adapters["foreign"])
    if not loaded:
        owner.version()
        with pytest.raises(SvacError, match="cannot be used"):
            owner.get()
    assert owner.version() == base
    assert loaded_adapter(owner.get()) is None
    assert "another model" in str(owner.registry.problem())


def test_predictions_carry_the_version_that_made_them(
    tmp_path: Path, settings_of_model: Settings, model: Svac, adapters: dict[str, Path], label_studio: Any
) -> None:
    """A worker's jobs, with a promotion and a rollback in between."""
    root = tmp_path / "files"
    root.mkdir()
    write_clip(root / "clip.mp4")
    url = "/data/local-files/?d=clip.mp4"
    label_studio.tasks[7] = {"video": url}
    settings = settings_of_model.model_copy(
        update={
            "data_dir": tmp_path / "data",
            "label_studio_files_root": root,
            "label_studio_url": label_studio.url,
            "label_studio_api_key": SecretStr("ab" * 20),
        }
    )
    database = Database.from_settings(settings)
    worker, owner = create_worker(settings, database, load=lambda _: model)
    worker.start()
    engine = JobEngine(database)

    def predict() -> dict[str, Any]:
        prompts = (ObjectPrompt("obj1", "dog", "the grey square"),)
        payload = PrelabelPayload("38", "7", {"video": url}, CONFIG, "", url, prompts, push=True)
        version = owner.registry.name()  # as the web process asks
        job = engine.wait(
            engine.submit("prelabel", payload.to_json(), payload.job_key(version)).id, timeout=60
        )
        assert job.state is JobState.DONE, job.error
        assert job.result is not None
        kept = PredictionStore(database).get(payload.cache_key(version))
        assert kept is not None
        assert kept.model_version == job.result["model_version"] == version
        return {**job.result, "tracks": [track.to_json() for track in kept.tracks]}

    base = predict()
    one = publish(owner, adapters["one"])
    promoted = predict()
    assert (promoted["model_version"], promoted["cached"]) == (one.name, False)
    assert promoted["tracks"] != base["tracks"]
    owner.registry.roll_back()
    back = predict()
    assert (back["model_version"], back["cached"]) == (base["model_version"], True)
    assert back["tracks"] == base["tracks"]
    assert {sent["model_version"] for sent in label_studio.predictions} <= {base["model_version"], one.name}
    worker.stop()
    owner.version()
    assert loaded_adapter(model) is None
    database.close()


def test_a_worker_elsewhere_serves_what_another_machine_promoted_cut_and_downloaded(
    tmp_path: Path,
    settings_of_model: Settings,
    model: Svac,
    adapters: dict[str, Path],
    label_studio: Any,
    s3: FaultyProxy,
) -> None:
    """Two machines, each with a data folder of its own; one database, one bucket."""
    clip = tmp_path / "clip.mp4"
    write_clip(clip)
    videos = VideoHost(clip.read_bytes())
    label_studio.tasks[7] = {"video": videos.url}
    one, two = (
        settings_of_model.model_copy(
            update={
                "data_dir": tmp_path / name,
                "storage_url": "s3://masks/both",
                "frames_via": "backend",
                "media_url": "https://masks.example",
                "media_hosts": "*,127.0.0.1",
                "label_studio_url": label_studio.url,
                "label_studio_api_key": SecretStr("ab" * 20),
            }
        )
        for name in ("one", "two")
    )
    database = Database.from_settings(one)
    engine = JobEngine(database)
    prompts = (ObjectPrompt("obj1", "dog", "the grey square"),)
    payload = PrelabelPayload("38", "7", {"video": videos.url}, CONFIG, "", videos.url, prompts, push=False)

    def do(settings: Settings, kind: str, work: dict[str, Any]) -> ModelOwner:
        worker, owner = create_worker(settings, database, load=lambda _: model)
        worker.start()
        job = engine.wait(engine.submit(kind, work, f"{kind} {settings.data_dir.name}").id, timeout=100)
        worker.stop()
        assert job.state is JobState.DONE, job.error
        return owner

    cut = FramesPayload("38", "7", {"video": videos.url}, CONFIG, "", videos.url)
    owner = do(one, "frames", cut.to_json())
    version = publish(owner, adapters["one"])
    (tmp_path / "two").mkdir()
    s3.seen.clear()
    other = do(two, "prelabel", payload.to_json())
    kept = PredictionStore(database).get(payload.cache_key(version.name))
    assert kept is not None
    assert kept.model_version == version.name
    fetched = [path.split("/") for verb, path in s3.seen if verb == "GET"]
    assert {"media", "versions"} <= {parts[3] for parts in fetched if len(parts) > 3}  # a list has no name
    brought = {path.name for path in (tmp_path / "two").rglob("*") if path.is_file()}
    assert {WEIGHTS, "adapter.json"} < brought
    assert any(name.endswith(".mp4") for name in brought)
    (first, *_), client = label_studio.tasks[7]["frames"], create_app(two).test_client()
    answer = client.get(first.removeprefix("https://masks.example"))
    assert (answer.status_code, answer.data[:2]) == (200, b"\xff\xd8")
    frame = MediaLinks.from_settings(one).root / "project-38" / "task-7" / "00000.jpg"
    assert answer.data == frame.read_bytes()
    other.registry.roll_back()
    other.version()
    assert loaded_adapter(model) is None
    videos.stop()
    database.close()
