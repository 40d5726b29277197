"""`svac-backend models`, against a hub on 127.0.0.1 and the real cache of huggingface_hub."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from svac_backend.cli import models
from svac_backend.errors import SvacError
from svac_backend.jobs.worker import ModelOwner
from svac_backend.server.app import create_app
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.svac.files import hub
from svac_backend.svac.files.weights import EMBEDDED, model_version, snapshot
from svac_backend.svac.model import Svac
from tests.svac.fake_hub import FakeHub, fake_hub

pytestmark = pytest.mark.integration

NAME = "someone/Svac-small"
EMBEDDED_SIZE = f"{(EMBEDDED['svac-tiny'] / 'model.safetensors').stat().st_size / 1e6:.1f} MB"


@pytest.fixture
def server(random_model: Path, tmp_path: Path) -> Iterator[FakeHub]:
    model_version.cache_clear()
    with fake_hub(tmp_path / "cache") as found:
        found.add(NAME, random_model)
        yield found


def out(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_list_download_verify_remove(
    server: FakeHub, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    models.show(settings)
    before = out(capsys)
    assert f"svac-tiny svac {EMBEDDED_SIZE} embedded" in before
    assert f"* {settings.model} standin 0.0 MB folder" in before
    # The hub here has none of the published models, and says so.
    assert (
        "Only the hub knows sizes and licences of models that are not here. There is no model ByteDance"
        in before
    )
    assert NAME not in before

    models.download(NAME)
    told = out(capsys)
    assert f"{NAME} is in" in told
    assert f"version {model_version(NAME)}" in told

    models.show(settings.model_copy(update={"model": NAME}))
    found = hub.downloaded()[0]
    size = sum(path.stat().st_size for path in found.folder.rglob("*") if path.is_file()) / 1e6
    assert size > 20
    assert f"* {NAME} svac {size:.1f} MB downloaded, {found.commit[:12]}" in out(capsys)

    models.verify(NAME)
    told = out(capsys)
    assert f"{NAME} is whole: 516 tensors" in told
    assert "3 of 3 files have the hub's hash" in told
    assert model_version(NAME) in told

    models.remove(NAME, yes=True)
    assert f"{size:.1f} MB are free again" in out(capsys)
    with pytest.raises(SvacError, match="not downloaded yet"):
        models.verify(NAME)


def test_list_says_what_the_hub_says_now(
    server: FakeHub, random_model: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "ByteDance/Sa2VA-4B"
    server.add(name, random_model)
    server.repositories[name]["main"]["modeling_sa2va_chat.py"] = b"never downloaded" * 1_000_000
    server.about[name] = {
        "safetensors": {"parameters": {"BF16": 300_000_000, "F32": 3_641_809_714}, "total": 3_941_809_714},
        "cardData": {"license": "apache-2.0"},
    }
    models.show(settings)
    row = next(line for line in capsys.readouterr().out.splitlines() if f" {name} " in line)
    size = sum(path.stat().st_size for path in random_model.iterdir()) / 1e6
    # On a CPU in f32: four bytes for each parameter, and two gigabytes.
    needed = f"{(3_941_809_714 * 4 + 2e9) / 1e9:.0f} GB" if not torch.cuda.is_available() else "10 GB"
    known = f"{name} sa2va 3.9 B {size:.1f} MB F32, BF16 apache-2.0 {needed} 13 GB 46.4 / 73.7 [a]"
    assert known in " ".join(row.split())
    assert row.split()[-3:] in (["yes", "not", "downloaded"], ["no", "not", "downloaded"])


def test_list_without_a_hub_shows_what_is_known_without_it(
    server: FakeHub, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    models.show(settings)
    shown = out(capsys)
    assert "ByteDance/Sa2VA-26B sa2va 25.8 B" in shown
    assert "can't be looked up: " in shown
    assert "Check that this machine reaches http://127.0.0.1:9" in shown


def test_check_runs_a_clip_and_says_where(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    models.check(settings.model_copy(update={"device": "cpu"}), "svac-tiny")
    told = out(capsys)
    assert "svac-tiny runs: preset svac, float32 on cpu." in told
    assert "No GPU was used; peak" in told
    found = re.search(r"a mask on (\d+) of 12 frames, mean IoU with the truth (0\.\d\d)", told)
    assert found is not None
    assert int(found[1]) == 12
    assert float(found[2]) > 0.7


def test_check_says_what_is_wrong(
    server: FakeHub, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SvacError, match=r"not downloaded yet.*models download"):
        models.check(settings, "ByteDance/Sa2VA-4B")
    with pytest.raises(SvacError, match=r"can't use the device 'cuda:77'"):
        models.check(settings.model_copy(update={"device": "cuda:77"}), "svac-tiny")
    # Weights that overflow: what they say is no mask.
    folder = tmp_path / "broken"
    model = Svac.from_pretrained("svac-tiny", device="cpu")
    with torch.no_grad():
        model.sam.sam_mask_decoder.iou_prediction_head.layers[-1].bias.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(SvacError, match="NaN or infinity in auto on cpu"):
        models.check(settings, str(folder))


def test_verify_finds_what_is_wrong(server: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hub.download(NAME)
    config = folder / "config.json"
    text = config.read_text()
    blob = (folder / "model.safetensors").resolve()
    with blob.open("r+b") as file:
        file.seek(-9, 2)
        file.write(b"\xff")
    with pytest.raises(SvacError, match=rf"its hash differs.*models remove {NAME}"):
        models.verify(NAME)
    # Not one of the cache's links: the hash is not known, but a wrong size or shape is seen.
    config.unlink()
    config.write_text(text.replace('"intermediate_size": 384', '"intermediate_size": 320'))
    blob.rename(blob.with_name("other"))
    (folder / "model.safetensors").unlink()
    blob.with_name("other").rename(folder / "model.safetensors")
    with pytest.raises(SvacError, match="another shape"):
        models.verify(str(folder))
    config.write_text(text)
    models.verify(str(folder))
    assert "1 of 3 files have the hub's hash" in out(capsys)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(SvacError, match="damaged"):
        models.verify(str(folder))


def test_the_embedded_model_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    models.verify("svac-tiny")
    assert f"svac-tiny is whole: 985 tensors, {EMBEDDED_SIZE}" in out(capsys)


def test_only_what_was_downloaded_is_removed(
    server: FakeHub, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("svac-tiny", settings.model):
        with pytest.raises(SvacError, match="cannot be removed"):
            models.remove(name, yes=True)
        models.download(name)
        assert "nothing to download" in out(capsys)
    hub.download(NAME)
    monkeypatch.setattr("typer.confirm", lambda _: False)
    models.remove(NAME)
    assert "Nothing was removed" in out(capsys)
    assert snapshot(NAME)


def test_the_worker_downloads_at_start_and_the_web_process_says_what_is_missing_until_then(
    server: FakeHub, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.model_copy(update={"model": NAME})
    client = create_app(settings).test_client()
    call = {"tasks": [{"id": 1, "data": {}}], "project": "1.1", "label_config": "<View/>"}
    answer = client.post("/predict", json=call)
    assert answer.status_code == 503
    assert "not downloaded yet" in answer.get_json()["error"]
    assert f"models download {NAME}" in answer.get_json()["hint"]
    assert client.get("/health").get_json()["status"] == "UP"
    with caplog.at_level(logging.INFO):
        assert ModelOwner(settings, Database.from_settings(settings)).get().config.preset == "svac"
    assert any("100 % of" in line for line in caplog.messages)
    assert client.get("/health").get_json()["model_version"] == model_version(NAME)
    assert client.post("/predict", json=call).status_code != 503


def test_the_console_script_downloads_from_the_endpoint_of_the_environment(
    server: FakeHub, tmp_path: Path
) -> None:
    """As a user has it: HF_ENDPOINT and HF_HOME, SVAC_MODEL and SVAC_MODEL_REVISION, in a process of its own."""
    server.repositories[NAME]["v1"] = server.repositories[NAME]["main"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("SVAC_", "HF_"))},
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "home"),
        "SVAC_MODEL": NAME,
        "SVAC_MODEL_REVISION": "v1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from svac_backend.cli.app import app; app()", "models", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    missing = run("verify")
    assert missing.returncode == 1
    assert f"models download {NAME}@v1" in missing.stderr
    assert run("download").returncode == 0
    listed = run("list")
    assert f"{NAME}@v1" in listed.stdout
    assert next(line for line in listed.stdout.splitlines() if NAME in line).startswith("*")
