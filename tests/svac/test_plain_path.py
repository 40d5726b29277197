"""Prefix reuse, batches, windows and threads change no mask: bit for bit against the plain path, in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from svac_backend.svac import streaming
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.decoding import masks_at_size
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import ArrayVideo, VideoReader
from tests.svac.plain import plain_masks
from tests.svac.test_golden import CASES, GOLDEN, golden_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 26 frames on which no logit is 0 within rounding, which sums in another order would decide."""
    scene = make_scene(1, SceneConfig(width=160, height=96, frames=26, max_objects=3))
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_mp4(scene.frames, path, 12.0)
    return path


@pytest.fixture(scope="module")
def embedded() -> Svac:
    return Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")


EXPRESSIONS = ["the blue object", "brown hexagon", "the hexagon going around in a circle"]


@pytest.fixture(scope="module")
def plain(embedded: Svac, clip: Path) -> list[np.ndarray]:
    """Masks of each expression by the plain path."""
    with VideoReader(clip) as video:
        return [plain_masks(embedded, video, expression) for expression in EXPRESSIONS]


@pytest.mark.parametrize(("window", "held_bytes"), [(16, streaming.HELD_BYTES), (5, 0), (1, 0)])
def test_the_embedded_model_on_a_file(
    embedded: Svac,
    clip: Path,
    plain: list[np.ndarray],
    window: int,
    held_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", held_bytes)
    with VideoReader(clip) as video:
        ours = list(embedded.segment(video, EXPRESSIONS, window=window))
    assert [frame.index for frame in ours] == list(range(26))
    assert all(mask.any() for mask in plain)
    for number in range(3):
        assert np.array_equal(np.stack([frame.masks[number] for frame in ours]), plain[number])


@pytest.mark.parametrize(
    "case", ["sa2va_8f", "sa2va_internvl3_8f", "sa2vai_12f", "sasasa2va_wrap_around_12f"]
)
def test_golden_models(case: str) -> None:
    """Two expressions at once; the answer to the first one holds two [SEG] where each is an object."""
    model, expression = golden_model(case)
    video = ArrayVideo(np.load(GOLDEN / f"{case}.npz")["frames"])
    two = "Sure, it is [SEG] and [SEG]." if model.config.method.num_clips == 1 else None
    ours = list(model.segment(video, [expression, "the blue square."], answers=[two, None], window=3))
    plain = plain_masks(model, video, expression, two)
    if two:
        plain = plain | plain_masks(model, video, expression, two, number=1)
    assert plain.any()
    assert np.array_equal(np.stack([frame.masks[0] for frame in ours]), plain)
    plain = plain_masks(model, video, "the blue square.")
    assert plain.any()
    assert np.array_equal(np.stack([frame.masks[1] for frame in ours]), plain)
    assert case in CASES


def test_frames_that_are_seen_twice_are_averaged(embedded: Svac, clip: Path) -> None:
    """`uniform_plus` on a short video: the published code decodes a frame once a clip and averages the logits."""
    with VideoReader(clip) as whole:
        video = ArrayVideo(np.stack([whole.frame(i) for i in range(7)]))
    try:
        embedded.run_as(sampling="uniform_plus", no_object_masking=False)
        ours = np.stack([frame.masks[0] for frame in embedded.segment(video, ["brown hexagon"])])
        assert np.array_equal(ours, plain_masks(embedded, video, "brown hexagon"))
        assert ours.any()
    finally:
        embedded.run_as(sampling="uniform", no_object_masking=True)


@pytest.mark.parametrize(
    ("height", "width"), [(720, 1280), (1080, 607), (33, 47), (1, 200), (128, 128), (331, 517), (64, 64)]
)
def test_masks_are_computed_where_they_are_and_nowhere_else(height: int, width: int) -> None:
    """The box has exactly the pixels of the whole frame, wherever it is, and where a logit is nearly 0."""
    generator = torch.Generator().manual_seed(height)
    places = [(0, 0, 1), (31, 31, 1), (31, 0, 1), (5, 20, 4), (25, 2, 7), (0, 0, 32)]
    for scale in (6.0, 1e-6, 400.0):
        for row, column, side in places:
            logits = -torch.rand(2, 32, 32, generator=generator) * 4
            patch = torch.randn(2, side, side, generator=generator) * scale
            logits[:, row : row + side, column : column + side] = patch
            large = F.interpolate(logits[:, None], size=(128, 128), mode="bilinear", align_corners=False)
            full = F.interpolate(large, size=(height, width), mode="bilinear", align_corners=False)
            whole = full[:, 0].sigmoid() > 0.5
            assert torch.equal(masks_at_size(logits, 128, height, width), whole)
    assert not masks_at_size(torch.full((1, 32, 32), -1.0), 128, height, width).any()
    assert masks_at_size(torch.full((1, 32, 32), 1.0), 128, height, width).all()
