"""Runs the model over a benchmark, in one process or several; each process loads the model once.

This module does not import torch; the processes that load the model do.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_all_start_methods, get_context
from typing import TYPE_CHECKING

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkVideo
from svac_backend.evaluation.predictions import Manifest, PredictionRun, Predictions, VideoWriter
from svac_backend.settings import Settings
from svac_backend.svac.files.hub import locate_or_download
from svac_backend.svac.files.weights import version_of
from svac_backend.video.images import ImageFolderVideo, find_frames

if TYPE_CHECKING:
    from svac_backend.svac.model import Svac

Progress = Callable[[float], None]


def manifest_of(benchmark: Benchmark, settings: Settings) -> Manifest:
    """Return the manifest of the model that is about to predict; one from the hub is downloaded first.

    Raises:
        SvacError: there is no such model.
    """
    folder = locate_or_download(settings.model)
    version = version_of(settings)
    config = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()[:8]
    preset = version.rsplit("-", 1)[0]
    return Manifest(benchmark.dataset, benchmark.split, settings.model, version, preset, config)


def predict(
    benchmark: Benchmark,
    predictions: Predictions,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> PredictionRun:
    """Predict every expression that has no prediction yet.

    All expressions of a video go through the model together, so that its frames are encoded once.

    Args:
        benchmark: what to predict.
        predictions: the folder for the masks; it is claimed for this model.
        settings: the model, its device and threads.
        workers: processes; always one on a GPU, which they would have to share.
        progress: called with a fraction 0..1.

    Raises:
        SvacError: frames are missing or damaged, there is no model, the folder holds another model's predictions, or
            the disk is full.
    """
    manifest = manifest_of(benchmark, settings)
    predictions.claim(manifest)
    videos, skipped = [], 0
    for video in benchmark.videos:
        find_frames(video.folder, video.frames)  # before hours of work
        missing = tuple(e for e in video.expressions if not predictions.is_complete(video, e))
        skipped += len(video.expressions) - len(missing)
        if missing:
            videos.append(replace(video, expressions=missing))
    if not videos:
        return PredictionRun(0, 0, skipped, 0.0, 0)
    # The longest first, or the last process may work alone on a long one.
    videos.sort(key=lambda video: -len(video.frames))
    workers = min(workers, len(videos))
    if workers > 1 and _on_gpu(settings):
        workers = 1
    total, done, started = sum(len(video.frames) for video in videos), 0.0, 0.0
    if workers > 1:
        outcomes = _in_processes(videos, predictions, settings, workers)
    else:
        outcomes = _here(videos, predictions, settings)
    for frames in outcomes:
        if frames is None:
            started = time.monotonic()
            continue
        done += frames
        if progress:
            progress(done / total)
    count = sum(len(video.expressions) for video in videos)
    run = PredictionRun(total, count, skipped, time.monotonic() - started, workers)
    predictions.sign(replace(manifest, run=run))
    return run


def _here(
    videos: Sequence[BenchmarkVideo], predictions: Predictions, settings: Settings
) -> Iterator[int | None]:
    """Yield None once the model is loaded, then 1 for every frame."""
    from svac_backend.pipeline import load_model

    model = load_model(settings)
    yield None
    for video in videos:
        for _ in _predict(model, video, predictions):
            yield 1


def _in_processes(
    videos: Sequence[BenchmarkVideo], predictions: Predictions, settings: Settings, workers: int
) -> Iterator[int | None]:
    """Yield None at the start, then the number of frames of each finished video."""
    threads = settings.threads or max(1, (os.cpu_count() or 1) // workers)
    shared = settings.model_copy(update={"threads": threads})
    yield None
    # A server that imports once what all of them need, and forks them; where there is none, each imports for itself.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload(["svac_backend.pipeline"])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = [pool.submit(_work, video, predictions, shared) for video in videos]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool as error:
            raise SvacError(
                "A process that ran the model died, most likely because memory ran out.",
                "Run the same command with fewer --workers; it resumes where it was.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_model: Svac | None = None


def _work(video: BenchmarkVideo, predictions: Predictions, settings: Settings) -> int:
    """Predict a video and return its number of frames; before its first video the process loads the model."""
    from svac_backend.pipeline import load_model

    global _model
    if _model is None:
        _model = load_model(settings)
    return sum(1 for _ in _predict(_model, video, predictions))


def _predict(model: Svac, video: BenchmarkVideo, predictions: Predictions) -> Iterator[int]:
    """Predict a video and yield each frame's index when it is written."""
    frames = ImageFolderVideo(video.folder, video.frames)
    with VideoWriter(predictions, video) as writer:
        for found in model.segment(frames, [expression.text for expression in video.expressions]):
            writer.write(found.masks)
            yield found.index


def _on_gpu(settings: Settings) -> bool:
    from svac_backend.svac.model import pick_device

    return pick_device(settings.device).type != "cpu"
