"""Downloading from a hub on 127.0.0.1 by huggingface_hub's own client: what is taken, resumed, pinned and refused."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files import hub
from svac_backend.svac.files.weights import locate, model_version, snapshot
from svac_backend.svac.model import Svac
from tests.svac.fake_hub import FakeHub, fake_hub

pytestmark = pytest.mark.integration

NAME = "someone/Svac-small"


@pytest.fixture(scope="session")
def published(model: Svac, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's files: a model, and what must never be downloaded."""
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "modeling_sa2va_chat.py").write_text("raise SystemExit('remote code ran')")
    (folder / "README.md").write_text("# A model")
    return folder


@pytest.fixture
def server(published: Path, tmp_path: Path) -> Iterator[FakeHub]:
    model_version.cache_clear()
    with fake_hub(tmp_path / "cache") as found:
        found.add(NAME, published)
        # Beside the model's own files there may be conversions of it.
        found.repositories[NAME]["main"]["onnx/extra.safetensors"] = b"of another program"
        yield found


def test_a_repository_is_downloaded_once_and_loads(server: FakeHub, model: Svac) -> None:
    loaded = Svac.from_pretrained(NAME, device="cpu")
    state = model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in loaded.state_dict().items())
    assert sorted(set(server.asked("GET"))) == ["config.json", "model.safetensors", "tokenizer.json"]
    folder = snapshot(NAME)
    assert folder is not None
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(server.asked("GET")))
    # From here on the network is not asked.
    server.requests.clear()
    assert hub.locate_or_download(NAME) == folder == locate(NAME)
    assert model_version(NAME).startswith("svac-")
    Svac.from_pretrained(NAME, device="cpu")
    assert server.requests == []


def test_before_the_download_the_version_is_an_error_that_says_what_to_do(server: FakeHub) -> None:
    with pytest.raises(SvacError, match=f"not downloaded yet.*models download {NAME}"):
        model_version(NAME)
    assert server.requests == []
    hub.download(NAME)
    assert model_version(NAME).startswith("svac-")


def test_progress_and_the_log_tell_how_far_it_is(server: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[int, int]] = []
    folder = hub.download(NAME, progress=lambda done, total: told.append((done, total)))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert told[-1] == (size, size)
    assert told == sorted(told)
    hub.remove(NAME)
    with caplog.at_level(logging.INFO, logger="svac_backend.svac.files.hub"):
        hub.download(NAME)
    assert f"downloading {NAME}: {size / 1e9:.2f} GB to" in caplog.messages[0]
    assert "100 % of" in caplog.messages[-1]


def test_a_connection_that_breaks_is_resumed_where_it_broke(
    server: FakeHub, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits between its tries
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1_000_000)
    server.cut_after = 11_500_000
    folder = hub.download(NAME)
    asked = [h for m, path, h in server.requests if m == "GET" and path.endswith("model.safetensors")]
    starts = [{k.lower(): v for k, v in headers.items()}.get("range") for headers in asked]
    assert starts == [None, "bytes=11000000-", "bytes=22000000-"]
    assert (folder / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()


def test_what_is_complete_is_kept_when_a_download_fails(
    server: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.cut_after = 1_000_000  # less than the client keeps of a broken answer
    with pytest.raises(SvacError, match=f"{NAME} can't be downloaded: peer closed connection"):
        hub.download(NAME)
    assert snapshot(NAME) is None
    with pytest.raises(SvacError, match="not downloaded yet"):
        locate(NAME)
    server.cut_after = None
    server.requests.clear()
    assert hub.download(NAME) == locate(NAME)
    assert set(server.asked("GET")) == {"model.safetensors"}


def test_a_pinned_revision_stays_what_it_was(server: FakeHub, model: Svac, tmp_path: Path) -> None:
    first = server.repositories[NAME]["main"]
    commit = FakeHub.commit(first)
    server.repositories[NAME]["v1"] = first
    other = tmp_path / "other"
    model.save_pretrained(other, torch.bfloat16)
    server.add(NAME, other)
    pinned = hub.download(NAME, "v1")
    assert pinned.name == commit
    assert (pinned / "model.safetensors").read_bytes() == first["model.safetensors"]
    newest = hub.download(NAME)
    assert newest != pinned
    assert model_version(f"{NAME}@v1") != model_version(NAME)
    assert locate(f"{NAME}@{commit}") == pinned
    settings = Settings(_env_file=None, model=NAME, model_revision="v1")
    assert model_version(settings.model) == model_version(f"{NAME}@v1")
    assert Svac.from_pretrained(NAME, revision="v1", device="cpu").config == model.config


def test_what_can_not_be_downloaded_says_why(
    server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SvacError, match=r"no model nobody/Nothing on.*SVAC_MODEL"):
        hub.download("nobody/Nothing")
    with pytest.raises(SvacError, match=r"no revision 'v9'.*SVAC_MODEL_REVISION"):
        hub.download(NAME, "v9")
    server.gated.add(NAME)
    with pytest.raises(SvacError, match=r"asked for access.*HF_TOKEN"):
        hub.download(NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_friend")
    assert hub.download(NAME).is_dir()
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    server.add("someone/Pickled", pickled)
    with pytest.raises(SvacError, match="no weights in the safetensors format"):
        hub.download("someone/Pickled")
    assert not [name for name in server.asked("GET") if name.endswith((".bin", ".py"))]


def test_a_full_disk_is_seen_before_the_download(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**9))
    with pytest.raises(SvacError, match=r"needs 0\.0 GB, and .* has 1\.0 GB free.*HF_HOME"):
        hub.download(NAME)
    assert server.asked("GET") == []


def test_offline_and_unreachable(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(SvacError, match=r"HF_HUB_OFFLINE is set.*Unset HF_HUB_OFFLINE"):
            hub.download(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(SvacError, match=r"(?i)refused.*reaches http://127\.0\.0\.1:9"):
            hub.download(NAME)
    folder = hub.download(NAME)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert hub.locate_or_download(NAME) == folder


def test_what_was_downloaded_is_listed_checked_and_removed(server: FakeHub) -> None:
    assert hub.downloaded() == []
    folder = hub.download(NAME)
    (one,) = hub.downloaded()
    assert (one.repository, one.refs, one.folder) == (NAME, ("main",), folder)
    assert one.size == sum(path.stat().st_size for path in folder.iterdir())
    assert all(hub.is_intact(path) for path in folder.iterdir())
    blob = (folder / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-5] ^= 1
    blob.write_bytes(data)
    assert hub.is_intact(folder / "model.safetensors") is False
    config = (folder / "config.json").resolve()
    config.write_text(config.read_text() + " ")
    assert hub.is_intact(folder / "config.json") is False
    assert hub.is_intact(blob) is None  # no link of the cache: its hash is not known
    assert hub.remove(NAME) >= one.size
    assert hub.downloaded() == []
    assert snapshot(NAME) is None
    with pytest.raises(SvacError, match="models list"):
        hub.remove(NAME)


def test_nothing_of_it_imports_torch() -> None:
    code = (
        "import sys; import svac_backend.svac.files.hub as h; h.snapshot('nobody/nothing'); h.downloaded();"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
