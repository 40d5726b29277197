"""Our way to run a model against the published one, side by side: two processes that take turns on the same file."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.table import Table

from lab.benchmarks import model_ways as ways
from lab.shapes import FAMILIES, config_of, random_model, small_config
from svac_backend.errors import SvacError
from svac_backend.svac.model import Svac, pick_device
from svac_backend.synthetic.scene import DEMO_SEEDS, SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4

Way = Literal["published", "ours"]
WAYS: tuple[Way, ...] = ("published", "ours")

# Full shapes, run as SaSaSa2VA; and a small one of each family, as the family runs.
FULL = {"1b": "ByteDance/Sa2VA-1B", "4b": "QuanzhuNiu/SaSaSa2VA-4B"}
SIZES = ("tiny", *FULL, *FAMILIES)
PARAMETERS = {"1b": 1.2e9, "4b": 4.0e9}
# Beside the weights: activations of a window, the published way's pixels and logits of the whole video.
WORKING_BYTES = {"1b": 8e9, "4b": 10e9}
_SMALL_PARAMETERS, _SMALL_WORKING_BYTES = 12e6, 2e9


@dataclass(frozen=True)
class TimedRun:
    """One run of one way.

    Attributes:
        ms: wall clock of the whole, in milliseconds.
        stages: milliseconds of each stage.
        peak_mb: largest memory of the process so far: of the GPU where one is used, else resident.
    """

    ms: float
    stages: dict[str, float]
    peak_mb: float


@dataclass(frozen=True)
class WayComparison:
    """Both ways on the same expressions, in turns.

    The median run of each stands for it: what the kernel takes to give memory differs severalfold from run to run, and
    the fastest run is the one that got it for nothing.

    Attributes:
        expressions: how many.
        runs: of each way, in ascending order of time.
    """

    expressions: int
    runs: dict[Way, list[TimedRun]]

    def median(self, way: Way) -> TimedRun:
        """Return the median run; of an even number the slower one of the middle."""
        runs = self.runs[way]
        return runs[len(runs) // 2]

    @property
    def ratio(self) -> float:
        """How many times faster ours is, median against median."""
        return self.median("published").ms / self.median("ours").ms

    def __str__(self) -> str:
        fastest = self.runs["published"][0].ms / self.runs["ours"][0].ms
        spans = "; ".join(
            f"{way} {runs[0].ms:.0f} to {runs[-1].ms:.0f} ms" for way, runs in self.runs.items()
        )
        return (
            f"{self.expressions} expression(s): ours is {self.ratio:.1f} times faster, median against median "
            f"(fastest against fastest {fastest:.1f}; {spans})."
        )


def check_memory(size: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse sizes that don't fit.

    Raises:
        SvacError: two models with what they work on need more memory than is free.
    """
    weights = PARAMETERS.get(size, _SMALL_PARAMETERS) * dtype.itemsize
    needed = 2 * (weights + WORKING_BYTES.get(size, _SMALL_WORKING_BYTES))
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > free:
        raise SvacError(
            f"The size {size} needs about {needed / 1e9:.0f} GB on {device} (two models run side by side); "
            f"{free / 1e9:.0f} GB are free.",
            "Run it on a GPU with more memory, or use --size tiny.",
        )


def build(size: str, device: torch.device, dtype: torch.dtype) -> Svac:
    """Return the embedded model, or full or small shapes with random weights."""
    if size == "tiny":
        return Svac.from_pretrained("svac-tiny", device=str(device), dtype=str(dtype).removeprefix("torch."))
    if size in FULL:
        return random_model(config_of(FULL[size]).with_preset("sasasa2va"), device, dtype)
    return random_model(small_config(size), device, dtype)


def make_clip(folder: Path, frames: int, width: int, height: int) -> tuple[Path, list[str]]:
    """Write a synthetic clip; returns it and expressions of what is in it, at least five."""
    for seed in DEMO_SEEDS:
        scene = make_scene(
            seed, SceneConfig(width=width, height=height, frames=frames, min_objects=4, noise=2.0, blur=0.0)
        )
        texts = sorted({e.text for e in scene.expressions if e.targets})
        if len(texts) >= 5:
            break
    path = folder / "clip.mp4"
    write_mp4(scene.frames, path, 24.0)
    step = len(texts) // 5
    return path, texts[::step][:5]


def compare(
    path: Path, expressions: Sequence[str], counts: Sequence[int], *, size: str, device: str, rounds: int
) -> tuple[list[WayComparison], int]:
    """Run both ways in turns; returns the runs and how many mask pixels differ."""
    target = pick_device(device)
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    check_memory(size, target, dtype)
    results = []
    with ExitStack() as stack:
        contenders = {way: stack.enter_context(_contender(way, size, str(target), dtype)) for way in WAYS}
        for count in counts:
            chosen = [expressions[i % len(expressions)] for i in range(count)]
            runs: dict[Way, list[TimedRun]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way, connection in contenders.items():
                    runs[way].append(_ask(connection, path, chosen))
            for found in runs.values():
                found.sort(key=lambda run: run.ms)
            results.append(WayComparison(count, runs))
        # Last, since masks that are kept would count as memory.
        packed = [_ask_masks(connection, path, expressions) for connection in contenders.values()]
        different = sum(int(np.unpackbits(a ^ b).sum()) for a, b in zip(*packed, strict=True))
    return results, different


@contextmanager
def _contender(way: Way, size: str, device: str, dtype: torch.dtype) -> Iterator[Connection]:
    """Start a process that runs one way, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, way, size, device, dtype), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join(timeout=30)


def _ask(connection: Connection, path: Path, expressions: Sequence[str]) -> TimedRun:
    answer = _answer(connection, (path, list(expressions), False))
    assert isinstance(answer, TimedRun)
    return answer


def _ask_masks(connection: Connection, path: Path, expressions: Sequence[str]) -> list[np.ndarray]:
    """Return the masks of each expression, as packed bits."""
    answer = _answer(connection, (path, list(expressions), True))
    assert isinstance(answer, list)
    return answer


def _answer(connection: Connection, question: tuple[Path, list[str], bool]) -> object:
    connection.send(question)
    try:
        answer = connection.recv()
    except EOFError:
        answer = SvacError(
            "A process of the benchmark died.", "Look at what it printed; memory may be short."
        )
    if isinstance(answer, SvacError):
        raise answer
    return answer


def _serve(connection: Connection, way: Way, size: str, device: str, dtype: torch.dtype) -> None:
    """Answer until the other end is closed. The first question is also answered once without being timed."""
    model = build(size, torch.device(device), dtype)
    run = ways.published if way == "published" else ways.ours
    warm = False
    while True:
        try:
            path, expressions, wants_masks = connection.recv()
        except EOFError:
            return
        try:
            if wants_masks:
                packed: list[list[np.ndarray]] = [[] for _ in expressions]
                for number, masks in run(model, path, expressions, ways.Clock(model.device)):
                    packed[number].extend(np.packbits(mask) for mask in masks)
                connection.send([np.concatenate(part) for part in packed])
                continue
            if not warm:
                deque(run(model, path, expressions[:1], ways.Clock(model.device)), maxlen=0)
                warm = True
            clock = ways.Clock(model.device)
            start = time.perf_counter()
            deque(run(model, path, expressions, clock), maxlen=0)  # masks are dropped as they come
            ms = (time.perf_counter() - start) * 1000
        except SvacError as error:
            connection.send(error)
            return
        connection.send(TimedRun(ms, clock.ms, _peak_mb(model.device)))


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def table(results: Sequence[WayComparison], frames: int, title: str) -> Table:
    """Return what was measured, one column per way and number of expressions."""
    shown = Table(title=title)
    shown.add_column("way, expressions", no_wrap=True)
    for result in results:
        for way in WAYS:
            shown.add_column(f"{way}, {result.expressions}", justify="right", no_wrap=True)
        shown.add_column("ratio", justify="right")

    def row(name: str, value: str, of: Callable[[TimedRun], float], *, invert: bool = False) -> None:
        cells = [name]
        for result in results:
            old, new = (of(result.median(way)) for way in WAYS)
            ratio = new / old if invert else old / new
            cells += [format(old, value), format(new, value), f"{ratio:.1f}"]
        shown.add_row(*cells)

    for stage in ways.STAGES:
        row(f"{stage}, ms", ".0f", lambda run, stage=stage: run.stages[stage])
    row("in all, ms", ".0f", lambda run: run.ms)
    row("frames/s", ".1f", lambda run: frames * 1000 / run.ms, invert=True)
    row("peak memory, MB", ".0f", lambda run: run.peak_mb)
    return shown


def machine(device: torch.device) -> str:
    """Name the device, and how busy the machine is."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, load {load}"
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "CPU",
    )
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, load {load}"


def run(
    *, size: str, frames: int, width: int, height: int, device: str, rounds: int
) -> tuple[Table, list[str]]:
    """Run the benchmark; returns the table, and the lines that go below it."""
    target = pick_device(device)
    with tempfile.TemporaryDirectory() as folder:
        path, expressions = make_clip(Path(folder), frames, width, height)
        results, different = compare(path, expressions, (1, 5), size=size, device=device, rounds=rounds)
    title = f"{size}, {frames} frames of {width}x{height}, median of {rounds}"
    pixels = len(expressions) * frames * width * height
    lines = [
        f"Device: {machine(target)}.",
        *map(str, results),
        f"{different} of {pixels} mask pixels differ between the two ways.",
    ]
    return table(results, frames, title), lines
