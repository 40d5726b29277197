"""A [SEG] is compared with cells; where two SAM-2s take [SEG]s, the one that is surer on the anchor frames draws."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.tracks import FrameMasks
from svac_backend.svac import astc, streaming
from svac_backend.svac.config import SamConfig
from svac_backend.svac.cpu import resampling
from svac_backend.svac.cpu.parallel import Workers
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.decoding import masks_at_size, surest, united
from svac_backend.svac.sam.grounding import build_sam, decode, decode_seg, encode_frames, without_memory
from svac_backend.svac.sam.matching import SegMatching
from svac_backend.video.reader import ArrayVideo
from tests.small import CONFIG

pytestmark = pytest.mark.slow

HINTS = SamConfig(
    image_size=64,
    d_model=64,
    memory_layers=1,
    trunk="mobilenet_v2",
    match_dim=12,
    seg_dim=16,
    original_decoder=True,
)
EXPRESSIONS = ["the dog", "the red car", "the person on the left"]


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    torch.manual_seed(0)
    made = Svac(replace(CONFIG, hints=HINTS), tokenizer_file).eval()
    assert made.hint_sam is not None
    with torch.no_grad():  # random decoders say nothing: these draw something
        for sam in (made.sam, made.hint_sam):
            for decoder in (sam.sam_mask_decoder, getattr(sam, "original_mask_decoder", None)):
                if decoder is not None:
                    decoder.pred_obj_score_head.layers[-1].bias.fill_(2.0)
    return made


@pytest.fixture
def video() -> ArrayVideo:
    rng = np.random.default_rng(3)
    return ArrayVideo(rng.integers(0, 256, (11, 40, 56, 3)).astype(np.uint8))


def sure(model: Svac, how: float) -> SegMatching:
    """Let the second SAM-2 be so sure of everything, by a constant logit."""
    assert model.hint_sam is not None
    matching = model.hint_sam.seg_matching
    assert isinstance(matching, SegMatching)
    with torch.no_grad():
        matching.bias.weight.zero_()
        matching.bias.bias.fill_(how)
    return matching


def masks_of(model: Svac, video: ArrayVideo) -> NDArray[np.bool_]:
    return np.stack([frame.masks for frame in model.segment(video, EXPRESSIONS, window=4)])


def test_a_seg_finds_the_cells_that_answer_it() -> None:
    matching = SegMatching([4, 4], 8, 6)
    cells = torch.zeros(2, 6, 5, 5)
    cells[0, :3, 1:3, 2:4] = 8.0
    seg = torch.randn(1, 8).expand(2, -1)
    with torch.no_grad():
        matching.query.weight.zero_()
        matching.query.bias[:] = torch.tensor([1.0, 1, 1, 0, 0, 0])
        matching.bias.weight.zero_()
        matching.bias.bias.fill_(-1.5)
        found = matching(cells, seg)
        there = matching.existence(found) > 0
    assert torch.equal(found[0] > 0, cells[0, 0] > 0)
    assert there.tolist() == [True, False]


def test_cells_know_where_they_are() -> None:
    torch.manual_seed(1)
    matching = SegMatching([4, 4], 8, 6)
    with torch.no_grad():
        cells = matching.cells(torch.zeros(1, 4, 6, 6), torch.zeros(1, 4, 3, 3))
    assert cells.shape == (1, 6, 6, 6)
    assert not torch.allclose(cells[..., 2, 0], cells[..., 2, 5], atol=1e-4)
    assert not torch.allclose(cells[..., 0, 2], cells[..., 5, 2], atol=1e-4)


def test_without_cells_the_decoder_is_given_the_seg() -> None:
    torch.manual_seed(0)
    sam = build_sam(CONFIG.sam).eval()
    seg = torch.randn(2, CONFIG.sam.d_model)
    with torch.no_grad():
        features = encode_frames(sam, torch.randn(2, 3, CONFIG.sam.image_size, CONFIG.sam.image_size))
        ours = decode_seg(sam, features, seg, no_object_masking=True)
        plain = decode(sam, without_memory(sam, features), features.high, seg, no_object_masking=True)
    assert torch.equal(ours.logits, plain.logits)


def test_who_is_not_sure_changes_nothing(model: Svac, video: ArrayVideo) -> None:
    sure(model, -30.0)
    before = Svac(CONFIG, model.tokenizer_file).eval()
    kept = model.state_dict()
    before.load_state_dict({name: kept[name] for name in before.state_dict()})
    ours = masks_of(model, video)
    assert ours.any()
    assert np.array_equal(ours, masks_of(before, video))


@pytest.mark.parametrize("held_bytes", [streaming.HELD_BYTES, 0])
def test_who_is_sure_draws_every_frame(
    model: Svac, video: ArrayVideo, held_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure(model, 4.0)
    monkeypatch.setattr(streaming, "HELD_BYTES", held_bytes)
    ours = masks_of(model, video)
    sam, frames = model.hint_sam, np.stack([frame for _, frame in video.frames(range(len(video)))])
    assert sam is not None
    with torch.no_grad():
        small = np.stack([resampling.resize(frame, HINTS.image_size) for frame in frames])
        features = encode_frames(sam, astc.sam_pixels(small))
        clips = dict(astc.plan(len(video), model.config.method).decode)
        said = seg_of_second(model, video)  # [3, N, C]
        for number in range(len(EXPRESSIONS)):
            seg = torch.stack([said[number, clips[i]] for i in range(len(video))])
            out = decode_seg(sam, features, seg, no_object_masking=True)
            plain = masks_at_size(out.logits, HINTS.image_size, 40, 56).numpy()
            assert (ours[:, number] == plain).mean() > 0.999


def seg_of_second(model: Svac, video: ArrayVideo) -> Tensor:
    feed = streaming.FrameFeed(video, astc.plan(len(video), model.config.method), model.config)
    assert model.hint_mllm is not None
    return model._objects(feed, EXPRESSIONS, None, Workers(1), [model.mllm, model.hint_mllm])[0][1]


def test_what_a_person_shows_goes_to_the_original_decoder(model: Svac, video: ArrayVideo) -> None:
    hints = [{2: FrameHint(clicks=(Click(20.0, 18.0, True),))}]

    def shown() -> list[NDArray[np.bool_]]:
        return [mask for _, _, mask, _ in sorted(model.propagate(video, hints), key=lambda made: made[1])]

    assert model.hint_sam is not None
    before, decoder = shown(), model.hint_sam.sam_mask_decoder
    kept = {name: value.clone() for name, value in decoder.state_dict().items()}
    with torch.no_grad():
        for value in decoder.parameters():
            value.zero_()
    assert all(np.array_equal(one, other) for one, other in zip(before, shown(), strict=True))
    decoder.load_state_dict(kept)


def test_each_object_goes_to_whoever_is_surest_of_it() -> None:
    scores = [torch.tensor([0.9, 0.2, 0.5]), torch.tensor([0.1, 0.8, 0.5])]
    assert surest(scores) == [[0, 2], [1]]
    assert surest(scores, 0.6) == [[0], [1]]


def test_what_nobody_is_sure_of_is_not_drawn(model: Svac, video: ArrayVideo) -> None:
    sure(model, 4.0)
    assert masks_of(model, video).any()
    kept, model.config = model.config, replace(model.config, absent_below=1.0)
    try:
        found = list(model.segment(video, EXPRESSIONS))
    finally:
        model.config = kept
    assert [frame.index for frame in found] == list(range(len(video)))
    assert not any(frame.masks.any() or frame.scores.any() for frame in found)


def test_streams_are_united_frame_by_frame() -> None:
    closed = []

    def stream(row: int) -> Generator[FrameMasks]:
        try:
            for index in range(3):
                masks, scores = np.zeros((2, 4, 4), np.bool_), np.zeros(2, np.float32)
                masks[row, index], scores[row] = True, 0.25 * (row + 1)
                yield FrameMasks(index=index, masks=masks, scores=scores)
        finally:
            closed.append(row)

    frames = list(united([stream(0), stream(1)]))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert all(frame.masks[:, n].all() for n, frame in enumerate(frames))
    assert frames[1].scores.tolist() == [0.25, 0.5]
    early = united([stream(0), stream(1)])
    next(early)
    early.close()
    assert sorted(closed) == [0, 0, 1, 1]


def test_a_saved_model_takes_them_all_again(model: Svac, video: ArrayVideo, tmp_path: Path) -> None:
    sure(model, 4.0)
    model.save_pretrained(tmp_path)
    again = Svac.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert again.config == model.config
    assert np.array_equal(masks_of(again, video), masks_of(model, video))
