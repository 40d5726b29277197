"""Names of models, their files, their presets and their versions, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.files import weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "some" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"preset": "svac"}))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 12_000)
    weights.model_version.cache_clear()
    return folder


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ByteDance/Sa2VA-4B", ("ByteDance/Sa2VA-4B", None)),
        ("ByteDance/Sa2VA-4B@v1.0", ("ByteDance/Sa2VA-4B", "v1.0")),
        ("a/b@refs/pr/3", ("a/b", "refs/pr/3")),
        ("svac-tiny", None),
        ("/srv/models/x", None),
        ("./models/x", None),
        ("../x", None),
        ("~/models", None),
        ("a/b/c", None),
        ("", None),
    ],
)
def test_names_of_hub_repositories(name: str, parts: tuple[str, str | None] | None) -> None:
    assert weights.split_hub_name(name) == parts


def test_a_folder_goes_before_a_repository_of_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert weights.split_hub_name("some/model") is None
    assert weights.locate("some/model") == Path("some/model")
    assert weights.locate("svac-tiny").name == "svac-tiny"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "SVAC_MODEL"),
        ("svac-tiny@main", "Unset SVAC_MODEL_REVISION"),
        ("nobody/Nothing", "models download nobody/Nothing"),
        ("nobody/Nothing@abc", "models download nobody/Nothing@abc"),
    ],
)
def test_what_is_not_here_says_what_to_do(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SvacError, match=said):
        weights.locate(name)


def test_a_folder_with_a_revision_is_refused(folder: Path) -> None:
    with pytest.raises(SvacError, match="Unset SVAC_MODEL_REVISION"):
        weights.locate(f"{folder}@main")


def test_the_revision_of_the_settings_is_part_of_the_name() -> None:
    assert Settings(_env_file=None, model="a/b", model_revision="c1").model == "a/b@c1"
    assert Settings(_env_file=None, model="a/b@c2", model_revision="c1").model == "a/b@c2"
    assert Settings(_env_file=None, model="a/b").model == "a/b"


def test_shards_are_those_of_the_index(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-2.safetensors")
    (folder / "model-1.safetensors").write_bytes(b"1")
    (folder / "adapter.safetensors").write_bytes(b"of something else")
    index = folder / weights.INDEX
    index.write_text(
        json.dumps(
            {
                "weight_map": {
                    "a": "model-2.safetensors",
                    "b": "model-1.safetensors",
                    "c": "model-1.safetensors",
                }
            }
        )
    )
    assert [p.name for p in weights.weight_files(folder)] == ["model-1.safetensors", "model-2.safetensors"]
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(SvacError, match=r"lacks 1 of 2 weight files.*model-1"):
        weights.weight_files(folder)
    for text, said in (
        ('{"weight_map": {"a": "../x.safetensors"}}', "no safetensors"),
        ("[]", "no JSON object"),
        ("{", "read"),
    ):
        index.write_text(text)
        with pytest.raises(SvacError, match=said):
            weights.weight_files(folder)


@pytest.mark.parametrize(
    ("config", "name", "preset"),
    [
        ({"preset": "svac"}, "Sa2VA-4B", "svac"),
        ({"architectures": ["SaSaSa2VAChatModel"], "model_type": "sasasa2va_chat"}, "x", "sasasa2va"),
        (
            {
                "architectures": ["Sa2VAChatModel"],
                "auto_map": {"AutoModel": "modeling_sasasa2va_chat.SaSaSa2VAChatModel"},
            },
            "x",
            "sasasa2va",
        ),
        (
            {"architectures": ["Sa2VAChatModel"]},
            "models--QuanzhuNiu--SaSaSa2VA-4B/snapshots/0123",
            "sasasa2va",
        ),
        ({"architectures": ["Sa2VAChatModel"]}, "models--ByteDance--Sa2VA-4B/snapshots/0123", "sa2va"),
        ({"architectures": ["Sa2VAChatModel"]}, "Sa2VA-4B", "sa2va"),
    ],
)
def test_the_preset_of_a_published_model(
    config: dict[str, object], name: str, preset: str, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    assert weights.preset_of(folder) == preset


def test_the_version_names_preset_and_weights(folder: Path) -> None:
    first = weights.model_version(str(folder))
    assert first == weights.model_version(str(folder))
    assert first.startswith("svac-")
    assert len(first) == len("svac-") + 8
    for change in (b"x" + b"\0" * 3_071_999, b"\0" * 3_071_999 + b"x", b"\0" * 3_072_001):
        (folder / "model.safetensors").write_bytes(change)
        weights.model_version.cache_clear()
        assert weights.model_version(str(folder)) != first


def test_a_model_that_comes_later_gets_its_version_then(folder: Path) -> None:
    """The web process asks before the worker has downloaded it; that answer is not kept."""
    (folder / "config.json").rename(folder / "later.json")
    with pytest.raises(SvacError):
        weights.model_version(str(folder))
    (folder / "later.json").rename(folder / "config.json")
    assert weights.model_version(str(folder)).startswith("svac-")


def test_the_version_says_how_the_weights_are_run(folder: Path, tmp_path: Path) -> None:
    own = Settings(_env_file=None, model=str(folder))
    base = weights.model_version(str(folder))
    assert weights.version_of(own) == base
    assert weights.version_of(own.model_copy(update={"preset": "svac"})) == base  # its own way

    sam = tmp_path / "sam.safetensors"
    sam.write_bytes(b"the original")
    changed = own.model_copy(update={"preset": "sa2va-i", "generate": True, "original_sam": sam})
    preset, gen, sam_hash, weights_hash = weights.version_of(changed).rsplit("-", 3)
    assert (preset, gen, weights_hash) == ("sa2va-i", "gen", base[-8:])
    assert sam_hash.startswith("sam")
    assert len(sam_hash) == 11
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"another one")
    assert weights.version_of(changed.model_copy(update={"original_sam": other})) != weights.version_of(
        changed
    )


def test_an_original_sam_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    settings = Settings(_env_file=None, model=str(folder), original_sam=tmp_path / "none.safetensors")
    with pytest.raises(SvacError, match=r"none\.safetensors can't be read"):
        weights.version_of(settings)


def test_empty_variables_leave_the_model_its_own_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docker compose passes a variable that is not set as empty."""
    for name in ("PRESET", "ORIGINAL_SAM"):
        monkeypatch.setenv(f"SVAC_{name}", "")
    settings = Settings(_env_file=None, model=str(folder))
    assert (settings.preset, settings.original_sam) == (None, None)


def test_a_folder_needs_no_client_of_the_hub() -> None:
    code = (
        "import sys; from svac_backend.svac.files.weights import locate; locate('svac-tiny');"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
