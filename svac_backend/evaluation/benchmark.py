"""The referring-video benchmarks on disk: their videos, frames and expressions.

The layouts are those of the official releases and of the code that trains and tests Sa2VA and SaSaSa2VA.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from svac_backend.errors import SvacError
from svac_backend.video.images import frame_order

Dataset = Literal["mevis", "ref-youtube-vos", "ref-davis17", "revos"]
DATASETS: tuple[Dataset, ...] = ("mevis", "ref-youtube-vos", "ref-davis17", "revos")


@dataclass(frozen=True)
class _Layout:
    """The paths of a data set below its root; `{split}` stands for the split.

    Attributes:
        folders: usual names of the data set's folder, for a root that is the folder above.
        meta: the file with the expressions.
        data: the folder that holds `JPEGImages` and the masks.
        split: the default split.
    """

    folders: tuple[str, ...]
    meta: str
    data: str
    split: str


_LAYOUTS: dict[Dataset, _Layout] = {
    "mevis": _Layout(("mevis", "MeViS"), "{split}/meta_expressions.json", "{split}", "valid_u"),
    "ref-youtube-vos": _Layout(
        ("Ref-Youtube-VOS", "ref-youtube-vos", "rvos"),
        "meta_expressions/{split}/meta_expressions.json",
        "{split}",
        "valid",
    ),
    "ref-davis17": _Layout(
        ("davis17", "Ref-DAVIS17", "ref-davis"),
        "meta_expressions/{split}/meta_expressions.json",
        "{split}",
        "valid",
    ),
    "revos": _Layout(("ReVOS", "revos"), "meta_expressions_{split}_.json", ".", "valid"),
}
_REVOS_TYPES = {0: "referring", 1: "reasoning", 2: "hallucination"}


@dataclass(frozen=True)
class BenchmarkExpression:
    """A referring expression of a benchmark.

    Attributes:
        id: its key within its video, and the name of its folder of predictions.
        text: the sentence.
        anno_ids: keys of its masks, as text; their union is the truth. Not used with palette pictures.
        obj_ids: numbers of its objects in palette pictures.
        type: ReVOS: `referring`, `reasoning` or `hallucination`; our own benchmarks: the kind of expression; else None.
    """

    id: str
    text: str
    anno_ids: tuple[str, ...] = ()
    obj_ids: tuple[int, ...] = ()
    type: str | None = None


@dataclass(frozen=True)
class BenchmarkVideo:
    """A video of a benchmark.

    Attributes:
        name: its name, and that of its folders.
        folder: the folder of its frames.
        frames: names of its frames without suffix, in order.
        expressions: what is asked about it.
    """

    name: str
    folder: Path
    frames: tuple[str, ...]
    expressions: tuple[BenchmarkExpression, ...]


@dataclass(frozen=True)
class Benchmark:
    """One split of a data set.

    Attributes:
        data: the folder that holds `JPEGImages` and the masks.
        videos: sorted by name.
    """

    dataset: Dataset
    split: str
    data: Path
    videos: tuple[BenchmarkVideo, ...]

    @property
    def expression_count(self) -> int:
        """Number of expressions over all videos."""
        return sum(len(video.expressions) for video in self.videos)

    @property
    def submission_folder(self) -> str:
        """Folder within the output that holds a folder per video, as the challenge's server expects it."""
        return "Annotations" if self.dataset == "ref-youtube-vos" else "."

    def limited(self, videos: int | None) -> Benchmark:
        """Return the first so many videos."""
        return self if videos is None else replace(self, videos=self.videos[:videos])


def open_benchmark(dataset: str, root: Path, split: str | None = None) -> Benchmark:
    """Read the videos and expressions of a split.

    Args:
        dataset: one of `DATASETS`.
        root: the data set's folder, or the folder above it.
        split: e.g. `valid_u`, `train`; None takes the one that papers report.

    Raises:
        SvacError: there is no such data set, folder or split, or the expressions can't be read.
    """
    if dataset not in _LAYOUTS:
        raise SvacError(f"There is no data set {dataset!r}.", f"Choose from {', '.join(DATASETS)}.")
    layout = _LAYOUTS[dataset]
    split = _name(split or layout.split, "split", "the command line")
    if not root.is_dir():
        raise SvacError(
            f"There is no folder {root}.", f"Give the folder of the data set {dataset} with --root."
        )
    meta = layout.meta.format(split=split)
    base = next(
        (base for base in (root, *(root / f for f in layout.folders)) if (base / meta).is_file()), None
    )
    if base is None:
        raise SvacError(
            f"The split {split!r} of {dataset} is not in {root}: there is no {meta}.",
            f"Give the folder that holds {meta}, or another split with --split.",
        )
    data = base / layout.data.format(split=split)
    videos = _read_videos(base / meta, data / "JPEGImages")
    return Benchmark(dataset, split, data, videos)


def _read_videos(meta: Path, pictures: Path) -> tuple[BenchmarkVideo, ...]:
    content = read_json(meta)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict) or not videos:
        raise SvacError(f'{meta} has no "videos".', "Download the data set's meta file again.")
    found, counted = [], 0
    for name, video in sorted(videos.items()):
        where = f"video {name} of {meta}"
        frames = video.get("frames") if isinstance(video, dict) else None
        expressions = video.get("expressions") if isinstance(video, dict) else None
        if not isinstance(frames, list) or not frames or not isinstance(expressions, dict):
            raise SvacError(
                f'"frames" or "expressions" is wrong in {where}.', "Download the meta file again."
            )
        read = []
        for key, entry in sorted(expressions.items()):
            read.append(_read_expression(_name(key, "expression", where), entry, where, counted))
            counted += 1
        names = tuple(sorted((_name(frame, "frame", where) for frame in frames), key=frame_order))
        if len(set(names)) < len(names):
            raise SvacError(f"A frame occurs twice in {where}.", "Download the meta file again.")
        found.append(BenchmarkVideo(_name(name, "video", where), pictures / name, names, tuple(read)))
    return tuple(found)


def _read_expression(key: str, entry: Any, where: str, counted: int) -> BenchmarkExpression:
    """Read an expression; without an `anno_id` its place among all is its number, as in the official code."""
    text = entry.get("exp") if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise SvacError(f"Expression {key!r} has no text in {where}.", "Download the meta file again.")
    ids = _listed(entry.get("anno_id", [counted]))
    try:
        objects = tuple(int(value) for value in _listed(entry.get("obj_id", [])))
    except (TypeError, ValueError) as error:
        raise SvacError(f"Expression {key!r} has a wrong obj_id in {where}.", "Download it again.") from error
    number, kind = entry.get("type_id"), entry.get("kind")
    if isinstance(number, int):
        kind = _REVOS_TYPES.get(number)
    kind = kind if isinstance(kind, str) and kind else None
    return BenchmarkExpression(key, text, tuple(map(str, ids)), objects, kind)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _name(value: Any, what: str, where: str) -> str:
    """Return a name, if it can name a file or folder."""
    if not names_a_folder(value):
        raise SvacError(
            f"The {what} {value!r} of {where} cannot name a folder.",
            "Take the meta file of the data set's release.",
        )
    return str(value)


def names_a_folder(value: Any) -> bool:
    """Tell whether a value can name a file or folder: text without a path, since data sets come from strangers."""
    return isinstance(value, str) and bool(re.fullmatch(r"[^./\\\0:][^/\\\0:]{0,199}", value))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `SvacError` where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SvacError(f"{path} cannot be read: {error.strerror}.", "Check the file.") from error
    except (ValueError, RecursionError) as error:
        raise SvacError(f"{path} is not JSON: {error}.", "Download it again.") from error
