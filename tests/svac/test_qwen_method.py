"""ASTC, CSA and several [SEG] over Qwen-VL, and that nothing that makes it fast changes a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from svac_backend.errors import SvacError
from svac_backend.svac import streaming
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.language.qwen_pixels import fit, image_sizes, patch_rows, rotary_positions
from svac_backend.svac.language.qwen_vl import NORMALISATION
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo
from svac_backend.video.source import VideoSource
from tests.svac.plain import plain_masks
from tests.svac.qwen_models import KINDS, qwen_model

pytestmark = pytest.mark.slow

EXPRESSIONS = ["the red circle", "is there a ball on the left?"]


FRAMES = make_scene(3, SceneConfig(width=96, height=64, frames=9, max_objects=3)).frames


@pytest.fixture
def video() -> ArrayVideo:
    return ArrayVideo(FRAMES)


def clips_model(kind: str) -> Svac:
    """Three clips of four frames, in a grid that is not square."""
    return qwen_model(kind, "svac", num_clips=3, frames_per_clip=4, grid=(2, 3), no_object_masking=False)


@torch.inference_mode()
def plain_embeddings(model: Svac, video: VideoSource, expression: str) -> torch.Tensor:
    """transformers' own whole Qwen-VL over the whole text at once: its positions, its deepstack, no cache; [N, d]."""
    method, vision, mllm = model.config.method, model.config.vision, model.mllm
    clips = plan(len(video), method)
    size = (video.info.height, video.info.width)
    unit = vision.patch_size * vision.merge
    images = [
        fit(image, size, unit, method.image_pixels)
        for number in range(clips.num_clips)
        for image in clip_images(
            [video.frame(i) for i in clips.clip(number)], method.grid, compress=method.astc
        )
    ]
    grid = torch.tensor([[1, *(side // vision.patch_size for side in images[0].shape[:2])]] * len(images))
    tokens = [int(g.prod()) // vision.merge**2 for g in grid]
    chat = model.chat.build(expression, tokens, clips.num_clips)
    ids = torch.cat([chat.prefix, chat.suffix])
    kind: Any = (Qwen3VLModel, Qwen3VLConfig)
    if vision.kind == "qwen2_5_vl":
        kind = (Qwen2_5_VLModel, Qwen2_5_VLConfig)
    whole = kind[0](
        kind[1](
            text_config=mllm.language_model.config.to_dict(),
            vision_config=mllm.vision_model.config.to_dict(),
            image_token_id=model.chat.context_id,
        )
    ).eval()
    whole.visual.load_state_dict(mllm.vision_model.state_dict())
    whole.language_model.load_state_dict(mllm.language_model.model.state_dict())
    if vision.kind == "qwen3_vl":
        whole.language_model.norm = torch.nn.Identity()
    states = whole(
        input_ids=ids[None],
        pixel_values=torch.cat(
            [
                patch_rows(image, vision.patch_size, vision.merge, *NORMALISATION[vision.kind])
                for image in images
            ]
        ),
        image_grid_thw=grid,
        mm_token_type_ids=(ids == model.chat.context_id).long()[None],
        use_cache=False,
    ).last_hidden_state[0]
    return mllm.project(states[len(chat.prefix) + chat.seg])


@pytest.mark.parametrize("kind", KINDS)
def test_clips_and_composites_are_those_of_the_plain_path(
    kind: str, video: ArrayVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expressions share the images' cache; windows, batches and threads differ; no mask pixel does."""
    model = clips_model(kind)
    plain = [plain_embeddings(model, video, expression) for expression in EXPRESSIONS]
    assert not torch.allclose(plain[0], plain[1], atol=1e-2)
    found = model.seg_embeddings(video, plan(len(video), model.config.method), EXPRESSIONS)
    assert found.shape == (2, 3, 256)
    assert torch.allclose(found, torch.stack(plain), atol=1e-4)
    expected = [
        plain_masks(model, video, text, embeddings=seg) for text, seg in zip(EXPRESSIONS, plain, strict=True)
    ]
    assert all(masks.any() for masks in expected)
    for window, held_bytes in ((16, streaming.HELD_BYTES), (2, 0)):
        monkeypatch.setattr(streaming, "HELD_BYTES", held_bytes)
        ours = list(model.segment(video, EXPRESSIONS, window=window))
        assert [frame.index for frame in ours] == list(range(9))
        for number, masks in enumerate(expected):
            assert np.array_equal(np.stack([frame.masks[number] for frame in ours]), masks)


@pytest.mark.parametrize("kind", KINDS)
def test_a_composite_costs_as_much_as_a_frame(kind: str, video: ArrayVideo) -> None:
    """Two images a clip, all of one size, whatever N, m and the grid are, and however long the video is."""
    model = clips_model(kind)
    for frames in (video, ArrayVideo(np.concatenate([FRAMES] * 5))):
        clips = plan(len(frames), model.config.method)
        images = streaming.FrameFeed(frames, clips, model.config).clip_pixels()
        assert len(images) == 3 * 2
        assert len({image.shape for image in images}) == 1
    shown: list[int] = []
    model.mllm.vision_model.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
    seen = model.mllm.visual(images)
    rows, columns = seen.grids[0]
    unit = model.config.vision.patch_size * model.config.vision.merge
    assert images[0].shape == (rows * unit, columns * unit, 3)
    least, most = model.config.method.image_pixels
    assert least <= images[0].shape[0] * images[0].shape[1] <= most
    assert seen.counts == (rows * columns,) * 6
    assert shown == [rows * columns * model.config.vision.merge**2] * 6  # never more than one at a time
    assert len(seen.tokens) == 6 * rows * columns
    assert [level.shape for level in seen.deepstack] == [seen.tokens.shape] * (3 if kind == "qwen3vl" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_two_seg_in_one_answer_are_two_objects_forced_or_written(kind: str) -> None:
    """Token by token behind the images' cache, or in one pass: the same states at the same positions."""
    model = qwen_model(kind, "sa2va-small-images", frames_per_clip=2)
    video = ArrayVideo(FRAMES[:4])
    answer = "Sure, it is [SEG] and [SEG].<|im_end|>"
    frames = list(model.segment(video, [EXPRESSIONS[0]], answers=[answer], unite=False))
    first, second = (np.stack([frame.masks[k] for frame in frames]) for k in (0, 1))
    assert first.any()
    assert second.any()
    assert not np.array_equal(first, second)

    clips = plan(len(video), model.config.method)
    forced = model.seg_embeddings(video, clips, [EXPRESSIONS[0]], [answer])
    assert forced.shape == (2, 1, 256)
    ids = model.chat.ids(answer).tolist()
    head = Scripted(ids * 2, model.config.language.vocab_size)
    model.mllm.language_model.lm_head = head
    model.run_as(generate=True)
    written = model.seg_embeddings(video, clips, [EXPRESSIONS[0], EXPRESSIONS[0]])
    assert head.asked == 2 * len(ids)
    assert torch.allclose(written, torch.cat([forced, forced]), atol=1e-4)


class Scripted(torch.nn.Module):
    """A language model's head that says what it is told to."""

    def __init__(self, ids: list[int], vocabulary: int) -> None:
        super().__init__()
        self.ids, self.vocabulary, self.asked = ids, vocabulary, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(self.vocabulary)
        logits[self.ids[self.asked]] = 1
        self.asked += 1
        return logits


def test_a_question_is_asked_as_in_the_authors_evaluation() -> None:
    model = qwen_model("qwen25vl")
    chat = model.chat.build("Which one is red?", [2, 1], 1)
    text = model.chat.tokenizer.decode(torch.cat([chat.prefix, chat.suffix]))
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "<|vision_start|><|image_pad|><|image_pad|><|vision_end|><|vision_start|><|image_pad|><|vision_end|>"
        "\n Which one is red? Please respond with a segmentation mask.<|im_end|>\n<|im_start|>assistant\n"
        "Sure, it is [SEG].<|im_end|>"
    )
    with pytest.raises(SvacError, match="reserved"):
        model.chat.build("<|vision_start|> the red one", [2], 1)


def test_a_preset_says_how_large_images_are() -> None:
    """The authors' inference and training have bounds of their own."""
    model = qwen_model("qwen3vl")
    assert model.config.preset == "sa2va"
    sizes = {}
    for preset in ("sa2va", "sa2va-small-images", "svac"):
        bounds = model.run_as(preset).config.method.image_pixels
        sizes[preset] = image_sizes(720, 1280, 32, bounds)
    assert sizes["sa2va"] == ((728, 1288), (736, 1280))
    assert sizes["sa2va-small-images"] == sizes["svac"] == ((728, 1288), (448, 832))
    assert model.run_as("sa2va-small-images").config.method.propagation == "memory"


def test_a_frame_that_is_too_elongated_is_refused() -> None:
    model = qwen_model("qwen25vl")
    thin = ArrayVideo(np.zeros((2, 2, 402, 3), np.uint8))
    with pytest.raises(SvacError, match="402x2 pixels is too elongated"):
        list(model.segment(thin, ["a line"]))


def test_positions_go_on_behind_the_longer_side_of_an_image() -> None:
    ids = torch.tensor([1, 9, 9, 9, 9, 9, 9, 2, 9, 9, 3, 4])
    places, following = rotary_positions(ids, 9, [(2, 3), (1, 2)])
    assert places.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5, 5, 7, 8],
        [0, 1, 1, 1, 2, 2, 2, 4, 5, 5, 7, 8],
        [0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8],
    ]
    assert following == 9
