"""Segmenting videos of any length and size, streaming, saving and loading, and refusing what makes no sense."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import svac_backend
from svac_backend.errors import SvacError
from svac_backend.svac.config import PRESETS
from svac_backend.svac.model import Svac, dtype_for, pick_device, remaining
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import ArrayVideo, VideoReader

pytestmark = pytest.mark.slow


def _video(frames: int, height: int = 48, width: int = 64) -> ArrayVideo:
    return ArrayVideo(np.random.default_rng(frames).integers(0, 255, (frames, height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 48, 64), (2, 33, 47), (7, 1, 200), (19, 64, 48), (45, 30, 40)]
)
def test_every_length_and_size_gives_one_mask_a_frame(
    model: Svac, frames: int, height: int, width: int
) -> None:
    video = _video(frames, height, width)
    results = list(model.segment(video, ["the red circle", "the blue square"]))
    assert [r.index for r in results] == list(range(frames))
    for result in results:
        assert result.masks.shape == (2, height, width)
        assert result.masks.dtype == np.bool_
        assert result.scores.shape == (2,)
        assert ((result.scores >= 0) & (result.scores <= 1)).all()


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_runs(model: Svac, preset: str, tokenizer_file: Path) -> None:
    other = Svac(model.config.with_preset(preset), tokenizer_file).eval()
    assert len(list(other.segment(_video(9), ["the red circle"]))) == 9


@pytest.mark.parametrize("sampling", ["uniform", "uniform_plus", "wrap_around", "wrap_around_plus"])
def test_every_sampling_mode_runs_on_short_and_long_videos(
    model: Svac, sampling: str, tokenizer_file: Path
) -> None:
    config = replace(model.config, method=replace(model.config.method, sampling=sampling))
    other = Svac(config, tokenizer_file).eval()
    for frames in (3, 20, 23):
        assert len(list(other.segment(_video(frames), ["the red circle"]))) == frames


def test_each_clip_is_decoded_with_its_own_embedding(model: Svac) -> None:
    """CSA: changing one clip's [SEG] embedding changes that clip's masks and no other's."""
    video, objects = _video(20), model._objects
    before = np.stack([r.scores for r in model.segment(video, ["the red circle"])])

    def changed(*args: Any) -> tuple[list[torch.Tensor], list[int]]:
        embeddings, owners = objects(*args)
        for said in embeddings:
            said[:, 2] += 3.0
        return embeddings, owners

    try:
        model._objects = changed  # type: ignore[method-assign]
        after = np.stack([r.scores for r in model.segment(video, ["the red circle"])])
    finally:
        model._objects = objects  # type: ignore[method-assign]
    differs = (before != after).any(1)
    assert differs[10:15].all()
    assert not differs[:10].any()
    assert not differs[15:].any()


def test_progress_says_how_long_it_will_take(model: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(monotonic=count(0, 30).__next__)
    monkeypatch.setattr("svac_backend.svac.model.time", clock)
    told: list[str] = []
    list(model.segment(_video(9), ["the red circle"], window=3, progress=lambda _, text: told.append(text)))
    assert told[1:] == [
        "frame 3 of 9, about 60 seconds left",
        "frame 6 of 9, about 30 seconds left",
        "frame 9 of 9",
    ]
    assert remaining(9.9) == ""
    assert remaining(600) == ", about 10 minutes left"


def test_save_and_load_change_nothing(model: Svac, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    again = Svac.from_pretrained(tmp_path / "m", device="cpu", dtype="float32")
    assert again.config == model.config
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_path_and_an_array_give_what_the_open_video_gives(
    model: Svac, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expressions = tmp_path / "clip.mp4", ["the red circle"]
    write_mp4(make_scene(3, SceneConfig(frames=7)).frames, path, 24.0)
    with VideoReader(path) as reader:
        expected = np.stack([frame.masks for frame in model.segment(reader, expressions)])
        assert len(reader.frame(0)) > 0, "a video that the caller opened stays open"
        frames = np.stack([frame for _, frame in reader.frames(range(7))])
    closed: list[Path] = []
    close = VideoReader.close
    monkeypatch.setattr(VideoReader, "close", lambda self: (closed.append(self.path), close(self))[1])
    for given in (path, str(path), frames):
        found = np.stack([frame.masks for frame in model.segment(given, expressions)])
        np.testing.assert_array_equal(found, expected)
    assert closed == [path, path]
    with pytest.raises(SvacError, match="cannot be read"):
        next(model.segment(tmp_path / "none.mp4", expressions))


def test_the_quick_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, indented = str(svac_backend.__doc__).partition("in Python:\n\n")
    example = dedent(indented)
    assert len([line for line in example.splitlines() if line.strip()]) <= 5
    write_mp4(make_scene(3, SceneConfig(frames=7)).frames, tmp_path / "clip.mp4", 24.0)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["frame"].index == 6
    assert names["frame"].masks.shape == (1, 128, 128)


def test_importing_the_package_imports_no_torch_and_keeps_its_threads_from_spinning() -> None:
    script = "import sys, svac_backend; assert 'torch' not in sys.modules; print(svac_backend.Svac.__name__)"
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    # libgomp says itself, when torch loads it, how its threads wait.
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=own | {"OMP_DISPLAY_ENV": "TRUE"},
    )
    assert done.stdout == "Svac\n"
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    script = "import os, svac_backend; print(os.environ['OMP_WAIT_POLICY'])"
    own |= {"OMP_WAIT_POLICY": "ACTIVE"}
    kept = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=own)
    assert kept.stdout == "ACTIVE\n"


def test_bad_input_is_refused(model: Svac) -> None:
    with pytest.raises(SvacError, match="no expression"):
        list(model.segment(_video(2), []))
    with pytest.raises(SvacError, match="empty"):
        list(model.segment(_video(2), ["  "]))
    with pytest.raises(SvacError, match="reserved"):
        list(model.segment(_video(2), ["the [SEG] dog"]))


def test_a_damaged_or_wrong_checkpoint_is_refused(model: Svac, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    model.save_pretrained(folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SvacError, match="damaged"):
        Svac.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(whole)
    state = load_file(folder / "model.safetensors")
    state.pop("mllm.mlp1.1.weight")
    from svac_backend.svac.files import checkpoints

    checkpoints.write(folder / "model.safetensors", state)
    with pytest.raises(SvacError, match=r"lacks 1 tensor.*mllm\.mlp1"):
        Svac.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SvacError, match="no safetensors"):
        Svac.from_pretrained(folder)


def test_a_missing_model_and_a_missing_device_say_what_to_do() -> None:
    with pytest.raises(SvacError, match="SVAC_MODEL"):
        Svac.from_pretrained("no-such-model")
    with pytest.raises(SvacError, match="SVAC_DEVICE"):
        pick_device("cuda:7" if not torch.cuda.is_available() else "no-such-device")


@pytest.mark.parametrize(
    ("device", "parameters", "processor", "faster", "expected"),
    [
        ("cuda", 7_000_000, "", False, torch.bfloat16),
        ("cpu", 1_000_000_000, "_is_avx512_bf16_supported", True, torch.bfloat16),
        ("cpu", 1_000_000_000, "_is_amx_tile_supported", True, torch.bfloat16),
        ("cpu", 1_000_000_000, "_is_amx_tile_supported", False, torch.float32),
        ("cpu", 1_000_000_000, "", True, torch.float32),
        ("cpu", 20_000_000, "_is_amx_tile_supported", True, torch.float32),
        ("mps", 1_000_000_000, "", True, torch.float32),
    ],
)
def test_a_cpu_takes_bf16_where_it_computes_it_and_that_is_faster(
    device: str,
    parameters: int,
    processor: str,
    faster: bool,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == processor, raising=False)
    monkeypatch.setattr("svac_backend.svac.model.bf16_is_faster", lambda: faster)
    assert dtype_for(torch.device(device), parameters) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_draws_nearly_the_same_masks(dtype: str) -> None:
    # Few frames: half precision is slow on many CPUs.
    scene = make_scene(5, SceneConfig(frames=5))
    whole, half = (Svac.from_pretrained("svac-tiny", device="cpu", dtype=kind) for kind in ("float32", dtype))
    said = [scene.expressions[0].text]
    for preset in ("svac", "sa2va", "sa2va-i"):
        masks = []
        for model in (whole, half):
            frames = model.run_as(preset, template="qwen_chat").segment(ArrayVideo(scene.frames), said)
            masks.append(np.stack([frame.masks[0] for frame in frames]))
        assert masks[0].any()
        assert masks[0].shape == masks[1].shape
        assert (masks[0] != masks[1]).mean() < 0.01
