"""Predictions on disk, in the challenges' format: `<video>/<expression>/<frame>.png`, 8 bit, 0 and 255.

An expression's folder appears only once it is complete, so that a stopped run can resume. A manifest beside the
predictions says which model made them.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.atomic import atomic_path, atomic_write
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import Benchmark, BenchmarkExpression, BenchmarkVideo, read_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PredictionRun:
    """How predictions were made.

    Attributes:
        frames: frames that the model saw, each once for all expressions of its video.
        expressions: expressions that were predicted.
        skipped: expressions that had been predicted before.
        seconds: wall-clock time; for one process without loading the model, for several including their start.
        workers: processes.
    """

    frames: int
    expressions: int
    skipped: int
    seconds: float
    workers: int


@dataclass(frozen=True)
class Manifest:
    """Which model predicted what.

    Attributes:
        dataset, split: what was predicted.
        model: name or folder of the model.
        model_version: its version, with a hash of its weights.
        preset: its method, e.g. `svac`.
        config: hash of its config.json: models with equal weights and preset may still sample or propagate differently.
        run: the last run that predicted something; None before the first has ended.
    """

    dataset: str
    split: str
    model: str
    model_version: str
    preset: str
    config: str
    run: PredictionRun | None = None

    @property
    def maker(self) -> str:
        """What must agree within one folder: everything but the model's path, which may change."""
        return f"{self.model_version} (preset {self.preset}, config {self.config}) on {self.dataset} {self.split}"


class Predictions:
    """The predictions of one benchmark in one folder."""

    def __init__(self, folder: Path, benchmark: Benchmark) -> None:
        self.folder = folder
        self.masks = folder / benchmark.submission_folder

    @classmethod
    def found_in(cls, folder: Path, benchmark: Benchmark) -> Predictions:
        """Return the predictions in a folder; other code may have put them into `Annotations`.

        Raises:
            SvacError: there is no such folder.
        """
        if not folder.is_dir():
            raise SvacError(
                f"There is no folder {folder}.", "Give the folder of the predictions with --predictions."
            )
        found = cls(folder, benchmark)
        found.masks = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
        return found

    def of(self, video: str, expression: str) -> Path:
        """Return the folder of an expression."""
        return self.masks / video / expression

    def is_complete(self, video: BenchmarkVideo, expression: BenchmarkExpression) -> bool:
        """Tell whether every frame of an expression has a prediction."""
        try:
            found = {file.name for file in self.of(video.name, expression.id).iterdir()}
        except (FileNotFoundError, NotADirectoryError):
            return False
        return found.issuperset(f"{frame}.png" for frame in video.frames)

    def manifest(self) -> Manifest | None:
        """Return the manifest; None where there is none, as with predictions of other code."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            run = PredictionRun(**content.pop("run")) if content.get("run") else None
            return Manifest(**content, run=run)
        except (AttributeError, TypeError) as error:
            raise SvacError(
                f"{path} is not a manifest of predictions.", "Use another folder with --out."
            ) from error

    def claim(self, manifest: Manifest) -> None:
        """Take the folder for a model's predictions, to begin or to continue.

        Raises:
            SvacError: it holds another model's predictions, or can't be written.
        """
        with writing(self.folder):
            self.masks.mkdir(parents=True, exist_ok=True)
            others = [path for path in self.folder.iterdir() if path.name[0] != "." and path != self.masks]
            found = self.manifest()
            if found is None and others:
                raise SvacError(
                    f"{self.folder} holds files but no {MANIFEST}, so the model that made them is not known.",
                    "Use a new or an empty folder with --out, or score what is there with --predictions.",
                )
            if found is not None and found.maker != manifest.maker:
                raise SvacError(
                    f"{self.folder} holds predictions of {found.maker}, not of {manifest.maker}.",
                    "Use another folder with --out, or delete this one.",
                )
            if found is None:
                self.sign(manifest)

    def sign(self, manifest: Manifest) -> None:
        """Write the manifest."""
        with writing(self.folder):
            atomic_write(self.folder / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from writing here. Raises `SvacError` if one is writing already."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise SvacError(
                    f"Another evaluation is writing to {self.folder}.", "Wait for it, or use another --out."
                ) from error
            yield

    def zip(self, benchmark: Benchmark) -> Path:
        """Write `submission.zip`, whole or not at all; return its path.

        Raises:
            SvacError: an expression has no complete prediction, or the disk is full.
        """
        target = self.folder / "submission.zip"
        with (
            writing(self.folder),
            atomic_path(target) as part,
            zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive,
        ):
            for video in benchmark.videos:
                for expression in video.expressions:
                    if not self.is_complete(video, expression):
                        raise SvacError(
                            f"Expression {expression.id} of the video {video.name} has no prediction.",
                            "Run the same command without --predictions to predict the rest.",
                        )
                    for frame in video.frames:
                        file = self.of(video.name, expression.id) / f"{frame}.png"
                        archive.write(file, file.relative_to(self.folder))
        return target


class VideoWriter:
    """Writes the masks of a video's expressions; they appear together, once all frames are written.

    A context manager; when its body raises, nothing is left behind. Raises `SvacError` if the folder can't be written.
    """

    def __init__(self, predictions: Predictions, video: BenchmarkVideo) -> None:
        self._video = video
        self._targets = [predictions.of(video.name, expression.id) for expression in video.expressions]
        self._parts = [target.with_name(f".{target.name}.part") for target in self._targets]
        self._written = 0

    def __enter__(self) -> VideoWriter:
        with writing(self._parts[0].parent):
            for part in self._parts:
                if part.exists():  # of a run that was killed
                    shutil.rmtree(part)
                part.mkdir(parents=True)
        return self

    def write(self, masks: NDArray[np.bool_]) -> None:
        """Write the masks of the next frame, bool [E, H, W]."""
        name = f"{self._video.frames[self._written]}.png"
        with writing(self._parts[0].parent):
            for part, mask in zip(self._parts, masks, strict=True):
                (part / name).write_bytes(encode_mask(mask))
        self._written += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._written == len(self._video.frames):
            with writing(self._parts[0].parent):
                for part, target in zip(self._parts, self._targets, strict=True):
                    if target.exists():  # incomplete, or it would have been skipped
                        shutil.rmtree(target)
                    part.replace(target)
            return
        for part in self._parts:
            shutil.rmtree(part, ignore_errors=True)
        if kind is None:
            raise SvacError(
                f"The model gave masks of {self._written} of {len(self._video.frames)} frames of {self._video.name}.",
                "Please report this bug.",
            )


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask, bool [H, W], as an 8-bit grey PNG of 0 and 255."""
    # Speed matters more than size: masks are small anyway.
    done, data = cv2.imencode(".png", mask.view(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise SvacError("A mask could not be written as PNG.", "Check the installation of OpenCV.")
    return data.tobytes()


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return a predicted mask, bool [H, W]: every pixel that is not black.

    Raises:
        SvacError: it is missing or damaged.
    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SvacError(
            f"The prediction {path} cannot be read: {error.strerror}.",
            "An expression's folder must hold a PNG for every frame: predict it again, or remove the folder.",
        ) from error
    picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if picture is None:
        raise SvacError(f"The prediction {path} is not a picture.", "Remove its folder and predict it again.")
    return np.asarray(picture > 0)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into a `SvacError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise SvacError(
            f"The results cannot be written to {folder}: {error.strerror or error}.",
            "Give a folder that this user may write to, on a disk with space: --out DIR.",
        ) from error
