"""The trunk is configuration: SAM-2's own Hiera, as ever, or MobileNetV2 beside the same FPN."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam2_base import SAM2Base

from svac_backend.masks.hints import FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.svac.config import SamConfig, SvacConfig
from svac_backend.svac.cpu import fused
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import FrameFeatures, build_sam, encode_frames
from svac_backend.svac.sam.mobilenet import MobileNetV2
from svac_backend.svac.sam.tracking import Propagation
from svac_backend.video.reader import ArrayVideo
from tests.small import CONFIG


def small(**changes: object) -> SamConfig:
    return replace(SamConfig(image_size=64, d_model=64, memory_layers=1, trunk="mobilenet_v2"), **changes)


def test_a_configuration_without_a_trunk_is_hiera(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    SvacConfig().save(path)
    told = json.loads(path.read_text())
    del told["sam"]["trunk"], told["sam"]["match_dim"]
    path.write_text(json.dumps(told))
    config = SvacConfig.load(path)
    assert config == SvacConfig()
    tiny = replace(
        config.sam, image_size=64, embed_dim=16, num_heads=1, stages=(1, 1, 1, 1), global_att_blocks=(2,)
    )
    sam = build_sam(replace(tiny, d_model=64))
    assert isinstance(sam.image_encoder.trunk, Hiera)
    assert not any(name.startswith("matching.") for name in sam.state_dict())
    assert fused.foldable(sam)


def test_mobilenet_gives_the_fpn_maps_of_four_strides() -> None:
    maps = MobileNetV2()(torch.zeros(2, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [
        (2, 24, 16, 24),
        (2, 32, 8, 12),
        (2, 96, 4, 6),
        (2, 320, 2, 3),
    ]
    # Of 2,223,872 before the classifier: without the last convolution, and one bias for each two of a batch norm.
    assert sum(parameter.numel() for parameter in MobileNetV2().parameters()) == 1_795_936


def test_fused_convolutions_are_the_same() -> None:
    torch.manual_seed(0)
    trunk, pixels = MobileNetV2(), 3 * torch.randn(2, 3, 64, 96)
    plain = trunk(pixels)  # with gradients, for which there is no fused operation
    with torch.no_grad():
        quick = trunk(pixels)
        assert fused.available(pixels)
    for a, b in zip(plain, quick, strict=True):
        assert torch.allclose(a, b, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("match_dim", [0, 12])
def test_features_have_the_shapes_that_the_decoder_knows(match_dim: int) -> None:
    sam = build_sam(small(match_dim=match_dim)).eval()
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        features = encode_frames(sam, pixels)
        plain = sam.forward_image(pixels)
        alone = encode_frames(sam, pixels[1:2])
    assert features.low.shape == (3, 64, 4, 4)
    assert [level.shape[1:] for level in features.high] == [(8, 16, 16), (16, 8, 8)]
    assert torch.allclose(features.low, plain["backbone_fpn"][-1], atol=1e-5)
    assert not fused.foldable(sam)
    if not match_dim:
        assert features.match is None
        return
    assert features.match is not None
    assert features.match.shape == (3, match_dim, 8, 8)
    assert torch.allclose(features.match.norm(dim=1), torch.ones(()))
    taken, listed = features.take([1]), features.take(torch.tensor([1, 0]))
    assert taken.match is not None
    assert listed.match is not None
    assert alone.match is not None
    assert torch.allclose(taken.match, alone.match, atol=1e-5)
    assert torch.equal(listed.match[1], features.match[0])
    joined = FrameFeatures.joined([taken, listed])
    assert joined.match is not None
    assert joined.match.shape[0] == 3


def test_a_model_on_mobilenet_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    tiny = Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")
    sam = replace(tiny.config.sam, trunk="mobilenet_v2", match_dim=12, image_size=64)
    torch.manual_seed(0)
    made = Svac(replace(tiny.config, sam=sam), tiny.tokenizer_file).eval()
    made.save_pretrained(tmp_path / "model")
    loaded = Svac.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    assert loaded.config == made.config
    kept, found = made.sam.state_dict(), loaded.sam.state_dict()
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)
    assert any(name.startswith("matching.") for name in kept)


def test_what_a_person_shows_goes_through_a_sam_of_its_own(tokenizer_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    plain = Svac(CONFIG, tokenizer_file).eval()
    both = Svac(replace(CONFIG, hints=small(match_dim=12)), tokenizer_file).eval()
    both.load_state_dict(plain.state_dict(), strict=False)
    both.save_pretrained(tmp_path)
    loaded = Svac.from_pretrained(tmp_path, device="cpu")
    assert loaded.config == both.config
    video = ArrayVideo(np.random.default_rng(0).integers(0, 255, (5, 40, 60, 3), np.uint8))
    shown = np.zeros((40, 60), np.bool_)
    shown[10:30, 20:40] = True
    hints = [{0: FrameHint(mask=to_coco(shown))}]

    def carried(model: Svac, sam: SAM2Base) -> bool:
        """Say whether the model propagates as this SAM-2 does."""
        found, wanted = (
            {frame: score for _, frame, _, score in run}
            for run in (model.propagate(video, hints), Propagation(sam, video, hints).run())
        )
        return found == wanted

    with torch.inference_mode():
        assert loaded.hint_sam is not None
        assert carried(loaded, loaded.hint_sam)
        assert not carried(loaded, loaded.sam)
        assert carried(plain, plain.sam)
        words = [list(model.segment(video, ["the dog"])) for model in (plain, loaded)]
    assert all(np.array_equal(a.masks, b.masks) for a, b in zip(*words, strict=True))
