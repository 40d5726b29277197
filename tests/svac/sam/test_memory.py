"""Propagation: anchors as Sa2VA-i has them, the original mask decoder, and memory that does not grow."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from svac_backend.errors import SvacError
from svac_backend.svac.astc import plan
from svac_backend.svac.config import PRESETS
from svac_backend.svac.model import Svac
from svac_backend.svac.sam import decoding
from svac_backend.svac.sam.decoding import WindowDecoder
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo

pytestmark = pytest.mark.slow


@pytest.fixture
def anchored() -> Svac:
    """The embedded weights, run the way that has anchor frames and propagates from them."""
    model = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
    return model.run_as("sa2va-i", no_object_masking=False)


@cache
def video(count: int = 14) -> ArrayVideo:
    return ArrayVideo(make_scene(4, SceneConfig(width=96, height=64, frames=count, max_objects=3)).frames)


def masks(model: Svac, source: ArrayVideo, window: int = 16) -> np.ndarray:
    return np.stack(
        [f.masks for f in model.segment(source, ["the white object", "the blue object"], window=window)]
    )


@pytest.mark.parametrize(
    ("count", "anchors"), [(1, [0]), (3, [0, 1, 2]), (14, [0, 3, 6, 9, 13]), (101, [0, 25, 50, 75, 100])]
)
def test_anchors_are_spread_from_the_first_frame_to_the_last(count: int, anchors: list[int]) -> None:
    result = plan(count, PRESETS["sa2va-i"])
    assert list(result.selected) == anchors == sorted(set(np.linspace(0, count - 1, 5, dtype=int).tolist()))
    assert [frame for frame, _ in result.decode] == anchors
    assert (result.propagated is None) == (count <= 5)


@pytest.mark.parametrize("window", [1, 5])
def test_windows_change_no_mask(anchored: Svac, window: int) -> None:
    whole = masks(anchored, video())
    assert whole.any()
    assert np.array_equal(masks(anchored, video(), window), whole)


def test_key_frames_are_decoded_without_memory_and_returned_as_memory_keeps_them(
    anchored: Svac, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits as the same [SEG] gives without any propagation; masks as SAM-2 gives back masks that a person drew."""
    source, size = video(), anchored.config.sam.image_size
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    once, large = decoding.masks_in_one_step, decoding.masks_at_size

    def key_frame(logits: torch.Tensor, height: int, width: int) -> torch.Tensor:
        seen.append((logits, once(logits, height, width)))
        return seen[-1][1]

    monkeypatch.setattr(decoding, "masks_in_one_step", key_frame)
    found = masks(anchored, source)
    without: list[torch.Tensor] = []
    monkeypatch.setattr(decoding, "masks_at_size", lambda low, *to: (without.append(low), large(low, *to))[1])
    anchored.run_as(propagation="memory")
    masks(anchored, ArrayVideo(np.stack([source.frame(i) for i in (0, 3, 6, 9, 13)])))

    def scaled(maps: torch.Tensor, *to: int, antialias: bool = False) -> torch.Tensor:
        return F.interpolate(maps, to, mode="bilinear", align_corners=False, antialias=antialias)

    for place, frame in enumerate((0, 3, 6, 9, 13)):
        logits, drawn = seen[place]
        assert torch.equal(logits, without[place])
        assert torch.equal(drawn, scaled(logits[:, None], 64, 96)[:, 0].sigmoid() > 0.5)
        at_sam = (scaled(drawn[:, None].float(), size, size, antialias=True) >= 0.5).float() * 20 - 10
        kept = scaled(scaled(at_sam, size // 4, size // 4, antialias=True), size, size)
        assert np.array_equal(found[frame], (scaled(kept, 64, 96)[:, 0].sigmoid() > 0.5).numpy())
    assert any(drawn.any() for _, drawn in seen)


def test_the_original_decoder_propagates_and_leaves_the_anchors_alone(anchored: Svac, tmp_path: Path) -> None:
    before = masks(anchored, video())
    ours = anchored.sam.sam_mask_decoder.state_dict()
    same = {f"grounding_encoder.sam2_model.sam_mask_decoder.{k}": v.clone() for k, v in ours.items()}
    # A Sa2VA-i checkpoint holds the tuned decoder under another name.
    same["grounding_encoder.sam2_model.sam_mask_decoder_modified.iou_token.weight"] = torch.zeros(1)
    save_file(same, tmp_path / "same.safetensors")
    assert np.array_equal(masks(anchored.use_original_sam(tmp_path / "same.safetensors"), video()), before)

    torch.manual_seed(7)
    other = {f"sam_mask_decoder.{k}": v + 0.1 * torch.randn_like(v) for k, v in ours.items()}
    (tmp_path / "other").mkdir()
    save_file(other, tmp_path / "other" / "model.safetensors")
    after = masks(anchored.use_original_sam(tmp_path / "other"), video())
    anchors = [0, 3, 6, 9, 13]
    rest = sorted(set(range(14)) - set(anchors))
    assert np.array_equal(after[anchors], before[anchors])
    assert not np.array_equal(after[rest], before[rest])
    assert all(
        torch.equal(value, ours[key]) for key, value in anchored.sam.sam_mask_decoder.state_dict().items()
    )


def test_a_file_without_a_mask_decoder_is_refused(anchored: Svac, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(SvacError, match="no SAM-2 mask decoder"):
        anchored.use_original_sam(tmp_path / "x.safetensors")
    (tmp_path / "y.safetensors").write_bytes(b"no")
    with pytest.raises(SvacError, match="can't be read"):
        anchored.use_original_sam(tmp_path / "y.safetensors")


@pytest.mark.parametrize("preset", ["sa2va", "sa2va-i"])
def test_what_is_remembered_does_not_grow(
    anchored: Svac, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[WindowDecoder] = []
    window = WindowDecoder.window

    def watched(self: WindowDecoder, *args: object) -> object:
        kept[:] = [self]
        return window(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(WindowDecoder, "window", watched)
    anchored.run_as(preset)
    frames = list(anchored.segment(video(60), ["the red circle"], window=8))
    assert len(frames) == 60
    memory = kept[0].memory
    assert memory is not None
    assert len(memory.outputs["cond_frame_outputs"]) == 5
    assert len(memory.outputs["non_cond_frame_outputs"]) <= anchored.sam.max_obj_ptrs_in_encoder
