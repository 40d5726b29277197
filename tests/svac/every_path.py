"""Every path of the model on another device than the CPU, in a process of its own; masks are compared with the CPU's.

By default that device is `elsewhere`, which refuses to mix with the CPU (`test_elsewhere`); `--device cuda` is a real
one (`scripts/gpu_check.sh`). Prints a line of JSON for each path: its name, and what went wrong or null.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from svac_backend.learning.adapters import load_adapter, unload_adapter
from svac_backend.learning.examples import Batches
from svac_backend.learning.options import TrainOptions
from svac_backend.learning.train import train
from svac_backend.learning.videos import ClipCache
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.language.templates import ChatTemplate
from svac_backend.svac.model import Svac
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.video.reader import ArrayVideo
from tests.learning.made import SMALL, squares
from tests.svac.qwen_models import QWEN_TOKENIZER, qwen_config, qwen_model
from tests.svac.test_golden import golden_model

SCENE = make_scene(3, SceneConfig(width=64, height=48, frames=8, max_objects=2))
EXPRESSIONS = ["the red circle", "the blue square"]
OPTIONS = TrainOptions(
    steps=2, batch=2, accumulate=2, replay_share=0, lr=1e-2, rank=4, alpha=8, checkpoint_every=1, keep=0.5
)
DEVICE = "elsewhere"

Masks = list[np.ndarray]


def both_ways(model: Svac, run: Callable[[Svac], Masks]) -> None:
    """Run a model here and elsewhere, loaded there from its files. Raises where masks differ."""
    here = run(model)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder))
        moved = Svac.from_pretrained(folder, device=DEVICE, dtype="float32")
        moved.config = model.config
        moved.chat = moved._chat()
        for name, tensor in [*moved.named_parameters(), *moved.named_buffers()]:
            assert tensor.device.type == DEVICE, f"{name} is on {tensor.device}"
        there = run(moved)
    assert moved.device.type == DEVICE
    for a, b in zip(here, there, strict=True):
        assert a.shape == b.shape
        # Sums in another order decide where a logit is 0 within rounding.
        assert (a != b).mean() < 0.002, f"{(a != b).sum()} of {a.size} pixels differ"
    assert any(mask.any() for mask in here), "no mask has a pixel: nothing was compared"


def segmented(model: Svac, **options: Any) -> Masks:
    """Segment a clip; two expressions, which share the images' cache."""
    return [
        frame.masks for frame in model.segment(ArrayVideo(SCENE.frames), EXPRESSIONS, window=3, **options)
    ]


def golden(case: str, **method: Any) -> None:
    """Segment with a golden case's weights, in windows, also with two [SEG] in one answer."""
    model = golden_model(case)[0].run_as(**method)
    both_ways(model, segmented)
    if model.config.method.num_clips == 1:
        two = ["Sure, it is [SEG] and [SEG].", None]
        both_ways(model, lambda one: segmented(one, answers=two, unite=False))


def written(model: Svac) -> None:
    """Let the language model write its answer; what it says does not matter, random weights say nothing."""
    model.run_as(generate=True, max_answer_tokens=3)
    seg = torch.tensor([model.chat.seg_id])
    over = ChatTemplate.is_over

    class Head(torch.nn.Module):
        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(hidden)
            return logits.index_fill(-1, seg.to(logits.device), 1e6)  # [SEG] is said each time

    def run(one: Svac) -> Masks:
        language = one.mllm.language_model
        language.lm_head = Head(language.lm_head)
        found = segmented(one)
        language.lm_head = language.lm_head.head
        return found

    try:
        ChatTemplate.is_over = lambda *_: False  # type: ignore[method-assign]
        both_ways(model, run)
    finally:
        ChatTemplate.is_over = over  # type: ignore[method-assign]


def qwen(kind: str, preset: str, **method: Any) -> Svac:
    """A tiny Qwen model whose images have few tokens."""
    return qwen_model(kind, preset, image_pixels=(4 * 32 * 32, 9 * 32 * 32), **method)


def propagated(model: Svac) -> Masks:
    """Propagate what was shown by masks, clicks and a box, forwards and backwards, and where something is not."""
    shape = SCENE.frames.shape[1:3]
    square = np.zeros(shape, np.bool_)
    square[10:30, 12:40] = True
    nothing = to_coco(np.zeros(shape, np.bool_))
    hints = [
        {2: FrameHint(mask=to_coco(square)), 4: FrameHint(mask=nothing), 5: FrameHint(mask=to_coco(square))},
        {3: FrameHint(clicks=(Click(30, 20, True), Click(2, 2, False)))},
        {6: FrameHint(box=(10, 8, 40, 30)), 0: FrameHint(mask=to_coco(square))},
    ]
    masks = np.zeros((len(hints), len(SCENE.frames), *shape), np.bool_)
    video = ArrayVideo(SCENE.frames)
    for number, frame, mask, _ in model.propagate(video, hints, frames=range(0, 8), window=3):
        masks[number, frame] = mask
    return list(masks)


def original_sam() -> None:
    """Propagate with another mask decoder, from a file."""
    model = golden_model("sa2va_8f")[0].run_as("sa2va-i")
    with tempfile.TemporaryDirectory() as folder:
        golden_model("sa2vai_3f")[0].save_pretrained(Path(folder))

        def run(one: Svac) -> Masks:
            return segmented(one.use_original_sam(Path(folder)))

        both_ways(model, run)


def trained(config: SvacConfig, tokenizer: Path) -> None:
    """Two steps of fine-tuning, a resumed run, and serving with the adapter."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Svac(config, tokenizer).save_pretrained(folder / "model")
        model = Svac.from_pretrained(folder / "model", device=DEVICE, dtype="float32")
        # accelerate looks for the devices that it knows, and would take the CPU.
        PartialState().device = torch.device(DEVICE, 0)
        examples = [squares(k) for k in range(2)] + [squares(2, absent=(1, 2))]
        data = Batches(examples, [], ClipCache(config, folder / "cache"), batch=2)
        stopped = train(model, data, folder / "run", OPTIONS, should_stop=lambda: True)
        assert stopped.ended == "stopped"
        result = train(model, data, folder / "run", replace(OPTIONS))
        assert result.adapter is not None
        load_adapter(model, result.adapter)
        for parameter in model.parameters():
            assert parameter.device.type == DEVICE
        segmented(model)
        unload_adapter(model)


def small(family: str) -> SvacConfig:
    """The small model's configuration as one of a published family."""
    sam = replace(SMALL.sam, d_model=64, memory_dim=32, original_decoder=family == "sa2va-i")
    config = replace(SMALL, family=family, sam=sam).with_preset(family)
    return replace(config, method=replace(config.method, template="qwen_chat"))


def small_qwen(kind: str) -> SvacConfig:
    """A tiny Qwen model with a small SAM-2."""
    method = replace(SMALL.method, image_pixels=(4 * 28 * 28, 8 * 28 * 28))
    return replace(qwen_config(kind), preset="svac", sam=SMALL.sam, method=method)


def embedded() -> Svac:
    return Svac.from_pretrained("svac-tiny", device="cpu", dtype="float32")


def tokenizer() -> Path:
    return embedded().tokenizer_file


PATHS: dict[str, Callable[[], None]] = {
    "embedded: segment": lambda: both_ways(embedded(), segmented),
    "embedded: propagate": lambda: both_ways(embedded(), propagated),
    "sa2va: segment": lambda: golden("sa2va_8f"),
    "sa2va: propagate": lambda: both_ways(golden_model("sa2va_8f")[0], propagated),
    "sa2va: written answer": lambda: written(golden_model("sa2va_8f")[0]),
    "sa2va-i: segment": lambda: golden("sa2vai_12f"),
    "sa2va-i: propagate": lambda: both_ways(golden_model("sa2vai_12f")[0], propagated),
    "sa2va: original SAM-2": original_sam,
    "sasasa2va: segment": lambda: golden("sasasa2va_uniform_23f"),
    "sasasa2va: wrapped": lambda: golden("sasasa2va_wrap_around_12f"),
    "sasasa2va: InternLM2": lambda: golden("sasasa2va_internlm2_qknorm_6f", sampling="uniform_plus"),
    "qwen3vl: segment": lambda: both_ways(qwen("qwen3vl", "sa2va", frames_per_clip=2), segmented),
    "qwen25vl: segment": lambda: both_ways(qwen("qwen25vl", "sa2va", frames_per_clip=2), segmented),
    "qwen3vl: clips": lambda: both_ways(
        qwen("qwen3vl", "svac", num_clips=2, frames_per_clip=4, grid=(2, 2)), segmented
    ),
    "qwen3vl: written answer": lambda: written(qwen("qwen3vl", "sa2va", frames_per_clip=2)),
    "training: svac": lambda: trained(SMALL, tokenizer()),
    "training: sa2va-i": lambda: trained(small("sa2va-i"), tokenizer()),
    "training: qwen3vl": lambda: trained(small_qwen("qwen3vl"), QWEN_TOKENIZER),
    "training: qwen25vl": lambda: trained(small_qwen("qwen25vl"), QWEN_TOKENIZER),
}


def main() -> None:
    """Run the paths of the names that are given; all without any."""
    global DEVICE
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--device", default=DEVICE)
    asked = parser.parse_args()
    DEVICE, names = asked.device, asked.names
    if DEVICE == "elsewhere":
        import_module("tests.svac.elsewhere")
    else:  # masks are compared with the CPU's: no rounding but fp32's
        torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    for name, run in PATHS.items():
        if names and name not in names:
            continue
        problem = None
        try:
            run()
        except Exception:  # noqa: BLE001 (the answer is what went wrong)
            problem = traceback.format_exc()
        print(json.dumps({"path": name, "problem": problem}), flush=True)  # noqa: T201 (its answer)


if __name__ == "__main__":
    main()
