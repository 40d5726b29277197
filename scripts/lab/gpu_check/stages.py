"""What is checked, stage by stage. Each runs in a process of its own and returns a JSON object of figures.

Every stage also runs on a CPU with small shapes (`dry`), by the same code.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.benchmarks import model_ways as ways
from lab.benchmarks.gpu_memory import memory_need
from lab.shapes import config_of, random_model, small_config
from svac_backend.errors import SvacError
from svac_backend.learning.examples import Batches, Example
from svac_backend.learning.options import options_for
from svac_backend.learning.train import train
from svac_backend.learning.videos import ClipCache, VideoRef
from svac_backend.masks.rle import to_coco
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.model import Svac
from svac_backend.svac.parts import free_bytes
from svac_backend.svac.sam import grounding
from svac_backend.svac.sam.grounding import frames_at_a_time
from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4
from svac_backend.video.reader import ArrayVideo

ROOT = Path(__file__).parents[3]
GB = 1e9
# Shapes whose speed is measured, and the small ones that stand for them in a dry run.
SPEED = {
    "ByteDance/Sa2VA-4B": "sa2va",
    "ByteDance/Sa2VA-Qwen3-VL-4B": "qwen3-vl",
    "ByteDance/Sa2VA-1B": "sa2va",
    "kumuji/Sa2VA-i-4B": "sa2va-i",
    "QuanzhuNiu/SaSaSa2VA-4B": "sasasa2va",
    "ByteDance/Sa2VA-Qwen3-VL-2B": "qwen3-vl",
    "ByteDance/Sa2VA-Qwen2_5-VL-3B": "qwen2.5-vl",
    "ByteDance/Sa2VA-InternVL3-2B": "internvl3",
}
LONG = ("ByteDance/Sa2VA-4B", "ByteDance/Sa2VA-Qwen3-VL-4B")
TRAINED = ("ByteDance/Sa2VA-1B", "ByteDance/Sa2VA-4B")
EXPRESSIONS = [
    "the red circle",
    "the blue square",
    "the green star",
    "the largest one",
    "the one on the left",
]


@dataclass(frozen=True)
class Run:
    """How a stage runs.

    Attributes:
        device: where.
        dry: small shapes and short clips, to see on a CPU that everything runs.
    """

    device: torch.device
    dry: bool

    @property
    def dtype(self) -> torch.dtype:
        """bf16 on a GPU."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def frames(self) -> int:
        """Length of a clip."""
        return 8 if self.dry else 100

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a clip."""
        return (128, 72) if self.dry else (1280, 720)

    def config(self, name: str) -> SvacConfig:
        """Return a published model's configuration, or the small one of its family."""
        return small_config(SPEED[name]) if self.dry else config_of(name)

    def model(self, name: str) -> Svac:
        """Build it with random weights."""
        return random_model(self.config(name), self.device, self.dtype)

    def clip(self, frames: int) -> np.ndarray:
        """Return frames u8 [T, H, W, 3] of moving objects; a long clip repeats a short one."""
        width, height = self.size
        scene = make_scene(3, SceneConfig(width=width, height=height, frames=min(frames, self.frames)))
        return np.concatenate([scene.frames] * -(-frames // len(scene.frames)))[:frames]

    def peak(self) -> float | None:
        """Return the most memory that torch held on the GPU since `fresh`, in GB."""
        if self.device.type != "cuda":
            return None
        return round(torch.cuda.max_memory_allocated(self.device) / GB, 3)

    def fresh(self) -> None:
        """Forget what was measured, and give unused memory back."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def timed(self, into: dict[str, Any], name: str) -> Iterator[None]:
        """Write seconds under a name."""
        begun = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        into[name] = round(time.perf_counter() - begun, 3)


def machine(run: Run) -> dict[str, Any]:
    """Say what it runs on."""
    import transformers

    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    found |= {"python": sys.version.split()[0], "device": str(run.device), "cuda": torch.version.cuda}
    if run.device.type == "cuda":
        properties = torch.cuda.get_device_properties(run.device)
        found |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / GB, 1)}
        found["free_gb"] = round(torch.cuda.mem_get_info(run.device)[0] / GB, 1)
    return found


def paths(run: Run) -> dict[str, Any]:
    """Run every path of the model, prompts of all kinds and training, and compare masks with the CPU's."""
    command = [sys.executable, "-m", "tests.svac.every_path"]
    if run.device.type == "cuda":
        command += ["--device", "cuda"]
    if run.dry:
        command += ["sa2va-i: segment", "training: qwen3vl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = {one["path"]: one["problem"][-1500:] for one in results if one["problem"]}
    if done.returncode or not results:
        failed["the process"] = done.stderr[-1500:]
    return {"passed": len(results) - len(failed), "failed": failed}


def precision(run: Run) -> dict[str, Any]:
    """Compare bf16 and fp16 with fp32: IoU of the golden cases' masks, all frames and pixels of each."""
    from tests.svac.qwen_models import qwen_model
    from tests.svac.test_golden import GOLDEN, golden_model

    cases = ["sa2va_8f", "sa2vai_12f"] if run.dry else [
        "sa2va_8f",
        "sa2va_internvl3_8f",
        "sa2vai_12f",
        "sasasa2va_uniform_23f",
        "sa2va_qwen3vl_8f",
        "sa2va_qwen25vl_8f",
    ]  # fmt: skip
    found: dict[str, Any] = {}
    for case in cases:
        video = ArrayVideo(np.load(GOLDEN / f"{case}.npz")["frames"])
        masks = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            if "qwen" in case:
                model, expression = qwen_model(case.split("_")[1]), "the red circle"
            else:
                model, expression = golden_model(case)
            model = model.to(run.device)
            for parameter in model.parameters():  # buffers keep theirs, as when weights are loaded
                parameter.data = parameter.data.to(dtype)
            name = str(dtype).removeprefix("torch.")
            masks[name] = np.stack([frame.masks[0] for frame in model.segment(video, [expression])])
        true = masks.pop("float32")
        found[case] = {
            name: round(float((true & other).sum() / max((true | other).sum(), 1)), 5)
            for name, other in masks.items()
        }
    worst = min(min(one.values()) for one in found.values())
    return {"iou": found, "worst": worst, "at_least": 0.99, "reached": worst >= 0.99}


def speed(run: Run, name: str) -> dict[str, Any]:
    """Run one shape both ways on one clip, for one expression and, our way, for five."""
    found: dict[str, Any] = {}
    run.fresh()
    with run.timed(found, "build_s"):
        model = run.model(name)
    found["weights_gb"] = round(sum(p.numel() * p.element_size() for p in model.parameters()) / GB, 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_mp4(run.clip(run.frames), path, 24.0)
        short = Path(folder) / "short.mp4"
        write_mp4(run.clip(6), short, 24.0)
        for way, count in (("ours", 1), ("ours", 5), ("published", 1)):
            function = ways.ours if way == "ours" else ways.published
            # Kernels are chosen, and memory is taken, at the first run.
            deque(function(model, short, EXPRESSIONS[:1], ways.Clock(run.device)), maxlen=0)
            run.fresh()
            clock = ways.Clock(run.device)
            begun = time.perf_counter()
            deque(function(model, path, EXPRESSIONS[:count], clock), maxlen=0)
            seconds = time.perf_counter() - begun
            found[f"{way}_{count}"] = {
                "seconds": round(seconds, 3),
                "frames_per_s": round(run.frames / seconds, 1),
                "peak_gb": run.peak(),
                "ms": {stage: round(ms, 1) for stage, ms in clock.ms.items()},
            }
    found["times_faster"] = round(found["published_1"]["seconds"] / found["ours_1"]["seconds"], 2)
    return found


def long_video(run: Run, name: str) -> dict[str, Any]:
    """Segment ten times as many frames: the same memory, and seconds that grow with the frames."""
    model = run.model(name)
    found: dict[str, Any] = {}
    for frames in (run.frames, 10 * run.frames):
        video = ArrayVideo(run.clip(frames))
        run.fresh()
        with run.timed(found, f"seconds_{frames}"):
            deque(model.segment(video, EXPRESSIONS[:1]), maxlen=0)
        found[f"peak_gb_{frames}"] = run.peak()
    return found


def compiled(run: Run) -> dict[str, Any]:
    """Compare `SVAC_COMPILE` off and on, and on with CUDA graphs; the first run, which compiles, counts apart."""
    found: dict[str, Any] = {}
    video = ArrayVideo(run.clip(run.frames))
    for name, graphs in (("off", None), ("compiled", False), ("cuda graphs", True)):
        model = run.model("ByteDance/Sa2VA-1B")
        if graphs is not None:
            model.compile_encoders(graphs=graphs)
        here: dict[str, Any] = {}
        for step in ("first_s", "second_s"):
            run.fresh()
            with run.timed(here, step):
                deque(model.segment(video, EXPRESSIONS[:1]), maxlen=0)
        found[name] = here | {"peak_gb": run.peak()}
        del model
    return found


def little_memory(run: Run) -> dict[str, Any]:
    """Take memory away: windows get smaller, masks stay; then take nearly all, and a clear failure is the answer."""
    model = run.model("ByteDance/Sa2VA-1B")
    video = ArrayVideo(run.clip(min(run.frames, 32)))
    size = model.config.sam.image_size
    found: dict[str, Any] = {"free_gb": (free_bytes(run.device) or 0) / GB}
    found["window"] = frames_at_a_time(size, run.device, free_bytes(run.device))
    tried: list[int] = []
    encode = grounding.encode_frames

    def limited(most: int | None) -> Callable[..., Any]:
        def run_it(sam: Any, pixels: torch.Tensor, **options: Any) -> Any:
            tried.append(len(pixels))
            if most is not None and len(pixels) > most:
                raise torch.OutOfMemoryError("injected: CUDA out of memory.")
            return encode(sam, pixels, **options)

        return run_it

    masks = []
    try:
        for most in (None, 2):
            tried.clear()
            grounding.encode_frames = limited(most)
            masks.append(np.stack([f.masks for f in model.segment(video, EXPRESSIONS[:1])]))
        found |= {"injected_windows": list(dict.fromkeys(tried)), "smallest": min(tried)}
        found["pixels_different"] = int((masks[0] != masks[1]).sum())
        grounding.encode_frames = limited(0)
        found["failure"] = _failure(model, video)
    finally:
        grounding.encode_frames = encode
    if run.device.type == "cuda":  # in earnest: the process may take little more than it has
        run.fresh()
        total = torch.cuda.get_device_properties(run.device).total_memory
        for spare in (1.0 * GB, 0.02 * GB):
            held = torch.cuda.memory_reserved(run.device)
            torch.cuda.set_per_process_memory_fraction(min(1.0, (held + spare) / total), run.device)
            found[f"spare_{spare / GB:.2f}_gb"] = _failure(model, video) or "segmented"
        torch.cuda.set_per_process_memory_fraction(1.0, run.device)
    return found


def _failure(model: Svac, video: ArrayVideo) -> str:
    try:
        deque(model.segment(video, EXPRESSIONS[:1]), maxlen=0)
    except SvacError as error:
        return str(error)
    return ""


def training(run: Run, name: str) -> dict[str, Any]:
    """Fine-tune 30 steps with the published options; the memory beside the one that docs/learn.md computes."""
    steps = 2 if run.dry else 30
    config = run.config(name)
    options = options_for(config).changed(steps=steps)
    found: dict[str, Any] = {"steps": steps, "computed_gb": round(memory_need(config, options).total / GB, 2)}
    model = run.model(name)
    frames = run.clip(8 if run.dry else 20)
    masks = {}
    for index in range(len(frames)):
        mask = np.zeros(frames.shape[1:3], np.bool_)
        mask[10:40, 10 + index : 50 + index] = True
        masks[index] = to_coco(mask)
    video = VideoRef("clip", lambda: ArrayVideo(frames))
    example = Example(video, "the red circle", masks, frozenset(masks), frozenset())
    examples = [replace(example, expression=text) for text in EXPRESSIONS[:2]]
    with tempfile.TemporaryDirectory() as folder:
        data = Batches(examples, [], ClipCache(config, Path(folder) / "cache"), batch=options.batch)
        run.fresh()
        with run.timed(found, "seconds"):
            result = train(model, data, Path(folder) / "run", options)
        lines = [json.loads(line) for line in result.curves.read_text().splitlines()]
    found |= {"peak_gb": run.peak(), "loss": [lines[0]["loss"], lines[-1]["loss"]], "ended": result.ended}
    return found


def two_processes(run: Run) -> dict[str, Any]:
    """Let two processes share the device: the same masks as alone, and how long both take."""
    command = [sys.executable, "-m", "lab.gpu_check", "--stage", "one process", "--device", str(run.device)]
    command += ["--dry-run"] if run.dry else []
    found: dict[str, Any] = {}
    with run.timed(found, "alone_s"):
        alone = _answers([command])
    with run.timed(found, "together_s"):
        both = _answers([command, command])
    return found | {
        "alone": alone[0],
        "together": both,
        "same_masks": len({a["masks"] for a in alone + both}) == 1,
    }


def one_process(run: Run) -> dict[str, Any]:
    """Segment a clip; its masks as a hash."""
    import hashlib

    model = run.model("ByteDance/Sa2VA-1B")
    found: dict[str, Any] = {}
    digest = hashlib.sha256()
    with run.timed(found, "seconds"):
        for frame in model.segment(ArrayVideo(run.clip(run.frames)), EXPRESSIONS[:1]):
            digest.update(np.packbits(frame.masks).tobytes())
    return found | {"peak_gb": run.peak(), "masks": digest.hexdigest()[:16]}


def _answers(commands: Sequence[list[str]]) -> list[dict[str, Any]]:
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for command in commands]
    answers = []
    for process in started:
        out, _ = process.communicate()
        if process.returncode:
            raise SvacError("A process of the check died.", "Look at what it printed above.")
        answers.append(json.loads(out.splitlines()[-1])["result"])
    return answers


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        run: what it does.
        budget: seconds that it may take.
    """

    run: Callable[[Run], dict[str, Any]]
    budget: float


def _of(function: Callable[[Run, str], dict[str, Any]], name: str) -> Callable[[Run], dict[str, Any]]:
    return lambda run: function(run, name)


# In the order of what matters most: whatever time is left at the end, what came before has a result.
STAGES: dict[str, Stage] = {
    "machine": Stage(machine, 30),
    "paths": Stage(paths, 90),
    "precision": Stage(precision, 60),
    **{f"speed: {name}": Stage(_of(speed, name), 60) for name in list(SPEED)[:2]},
    **{f"long: {name}": Stage(_of(long_video, name), 60) for name in LONG},
    **{f"training: {name}": Stage(_of(training, name), 60) for name in TRAINED},
    "little memory": Stage(little_memory, 40),
    "two processes": Stage(two_processes, 60),
    "compiled": Stage(compiled, 90),
    **{f"speed: {name}": Stage(_of(speed, name), 60) for name in list(SPEED)[2:]},
}
PARTS = {"one process": Stage(one_process, 60)}
