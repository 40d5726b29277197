"""What a variant costs: the vision part's time, the language model's prefill, and its peak memory."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.reproduction.seeing import Viewer
from lab.reproduction.variants import Variant
from svac_backend.svac.config import LanguageConfig
from svac_backend.svac.language.mllm import Seen
from svac_backend.svac.model import Svac

# A prefill that takes longer is timed once only.
_LONG_S = 2.0


@dataclass(frozen=True)
class Cost:
    """Of one sentence about one video.

    Attributes:
        vision_ms: vision tower, projector, and pooling or merging.
        prefill_ms: the language model over images, question and answer.
        peak_mb: what that prefill takes beyond what was held before; None where it can't be measured.
    """

    vision_ms: float
    prefill_ms: float
    peak_mb: float | None


@torch.inference_mode()
def measure_cost(model: Svac, variant: Variant, frames: NDArray[np.uint8]) -> Cost:
    """Measure a variant on the frames that it sees, u8 [k, H, W, 3]; the best of two rounds."""
    viewer = Viewer(model, variant)
    pixels, prompts = viewer.pixels(frames), viewer.prompts(["the object"])

    def prefill(visual: Tensor) -> None:
        model.mllm.seg_states(Seen.alike(visual), prompts, viewer.builder.context_id)

    visual = viewer.tokens(pixels)
    vision = _seconds(model.device, lambda: viewer.tokens(pixels))
    first = 0.0

    def once() -> None:
        nonlocal first
        first = _seconds(model.device, lambda: prefill(visual))

    peak = peak_mb(model.device, once)
    best = first if first > _LONG_S else min(first, _seconds(model.device, lambda: prefill(visual)))
    return Cost(round(1000 * vision, 2), round(1000 * best, 2), None if peak is None else round(peak, 2))


def prefill_work(config: LanguageConfig, tokens: int) -> float:
    """Return about how many multiplications a prefill of so many tokens takes, times 2."""
    wide, deep = config.hidden_size, config.num_hidden_layers
    share = config.num_key_value_heads / config.num_attention_heads
    weights = wide * wide * (2 + 2 * share) + 3 * wide * config.intermediate_size
    return deep * (2 * tokens * weights + 2 * tokens**2 * wide)


def peak_mb(device: torch.device, work: Callable[[], None]) -> float | None:
    """Run `work`; return by how much memory grew meanwhile, in MB (2^20 bytes): of the GPU, or resident on Linux."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    reset = Path("/proc/self/clear_refs")
    try:
        # What the allocator holds back would hide what is asked for next. Writing 5 resets the peak (proc(5)).
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        reset.write_text("5")
    except (OSError, AttributeError):
        print("The peak of memory can't be reset here; it is left out.", file=sys.stderr)
        work()
        return None
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """Return a figure of this process in KiB."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {name}.")
    return int(found[1])


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
