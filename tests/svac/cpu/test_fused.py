"""Fused operations give what sam2's modules give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from svac_backend.svac.config import SamConfig
from svac_backend.svac.cpu import fused
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import (
    Decoded,
    FrameFeatures,
    build_sam,
    decode,
    encode_frames,
    without_memory,
)

# Windows that don't fit the maps.
ODD = SamConfig(
    image_size=160,
    embed_dim=16,
    num_heads=1,
    stages=(1, 2, 3, 1),
    global_att_blocks=(4,),
    window_spec=(8, 4, 7, 3),
    window_pos_embed_bkg_spatial_size=(7, 7),
    d_model=64,
)


@pytest.fixture(scope="module")
def embedded() -> Svac:
    return Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")


def frames(count: int, size: int) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def maps(features: FrameFeatures) -> tuple[Tensor, ...]:
    return features.low, *features.high, features.position


def decoded(sam: torch.nn.Module, features: FrameFeatures, *, fuse: bool, masking: bool = True) -> Decoded:
    count, channels = features.low.shape[:2]
    language = torch.randn(count, channels, generator=torch.Generator().manual_seed(7))
    return decode(
        sam, without_memory(sam, features), features.high, language, no_object_masking=masking, fuse=fuse
    )


@pytest.mark.parametrize("which", ["embedded", "odd"])
@torch.inference_mode()
def test_encoder_and_decoder_agree_with_sam2(embedded: Svac, which: str) -> None:
    torch.manual_seed(0)
    sam = embedded.sam if which == "embedded" else build_sam(ODD).eval()
    pixels = frames(8, sam.image_size)
    assert fused.available(pixels)
    assert fused.foldable(sam)
    ours, theirs = encode_frames(sam, pixels), encode_frames(sam, pixels, fuse=False)
    for one, other in zip(maps(ours), maps(theirs), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=2e-5)
    ours_found, theirs_found = decoded(sam, ours, fuse=True), decoded(sam, theirs, fuse=False)
    for name in ("logits", "iou", "existence", "token", "all_logits", "all_ious"):
        one, other = getattr(ours_found, name), getattr(theirs_found, name)
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-4), name


@torch.inference_mode()
def test_points_and_masks_are_prompts_too(embedded: Svac) -> None:
    features = encode_frames(embedded.sam, frames(2, 192))
    points = (torch.tensor([[[30.0, 40.0]], [[100.0, 90.0]]]), torch.ones(2, 1, dtype=torch.int32))
    mask = torch.randn(2, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    for prompt in ({"points": points}, {"mask": mask}):
        ours, theirs = (
            decode(
                embedded.sam, features.low, features.high, None, no_object_masking=False, fuse=fuse, **prompt
            )
            for fuse in (True, False)
        )
        assert torch.allclose(ours.all_logits, theirs.all_logits, atol=1e-4)


@torch.inference_mode()
def test_a_frame_comes_out_the_same_alone_and_in_company(embedded: Svac) -> None:
    """To the bit: else windows and batches would change masks. Eight frames are more than are encoded together."""
    pixels = frames(8, 192)
    assert len(pixels) * 48**2 > fused._CELLS
    together = encode_frames(embedded.sam, pixels)
    found = decoded(embedded.sam, together, fuse=True, masking=False)
    for number in (7, 0):
        alone = encode_frames(embedded.sam, pixels[number : number + 1])
        for one, many in zip(maps(alone), maps(together), strict=True):
            assert torch.equal(one[0], many[number])
    one_found = decoded(embedded.sam, alone, fuse=True, masking=False)
    assert torch.equal(one_found.all_logits[0], found.all_logits[0])


def test_training_runs_sam2_itself(embedded: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "encode", None)
    monkeypatch.setattr(fused, "predict", None)
    with torch.enable_grad():
        features = encode_frames(embedded.sam, frames(1, 192))
        assert not fused.available(features.low)
        decoded(embedded.sam, features, fuse=True)


def test_another_neck_runs_as_it_is(embedded: Svac, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.sam.image_encoder.neck, "fpn_top_down_levels", [1, 2, 3])
    assert not fused.foldable(embedded.sam)
    with torch.inference_mode():
        pixels = frames(1, 192)
        ours, theirs = encode_frames(embedded.sam, pixels), encode_frames(embedded.sam, pixels, fuse=False)
        assert torch.equal(ours.low, theirs.low)


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_linear_layers_agree_with_torch(activation: str) -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 40), torch.randn(3, 5, 24)
    plain = layer(x)
    expected = {"none": plain, "relu": plain.relu(), "gelu": torch.nn.functional.gelu(plain)}[activation]
    assert torch.allclose(fused.linear(layer, x, activation), expected, atol=1e-6)
    other = torch.randn(3, 5, 40)
    assert torch.allclose(fused.linear(layer, x, add=other), plain + other, atol=1e-6)


def test_frames_in_a_row_are_taken_as_a_view(embedded: Svac) -> None:
    with torch.inference_mode():
        features = encode_frames(embedded.sam, frames(4, 192))
        row, mixed = features.take([1, 2]), features.take([2, 0, 2])
    assert row.low.data_ptr() == features.low[1].data_ptr()
    assert torch.equal(row.high[0], features.high[0][1:3])
    assert torch.equal(mixed.low, features.low[[2, 0, 2]])
