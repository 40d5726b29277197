"""Rich scenes as a benchmark: a split in the layout of MeViS, which `svac-backend evaluate` and others' code read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.synthetic.rich.phrases import GROUPS, RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from svac_backend.synthetic.scene import SceneConfig, make_scene

# 90 videos of these with 8 sentences each are 720 sentences, close to 48 of each of the 15 kinds.
VALIDATION = RichConfig(width=256, height=144, frames=40, split="validation", per_kind=4)
SEEDS = range(5000, 5090)
PER_SCENE = 8


def choose(
    expressions: Sequence[RichExpression], taken: Counter[str], limit: int | None = PER_SCENE
) -> list[RichExpression]:
    """Return the sentences of one scene that bring all kinds nearest to the same number.

    Args:
        expressions: of the scene. Those with the name of a kind that training never shows are left out: no model
            could know the word.
        taken: how many of each kind there are already; the new ones are added.
        limit: at most so many; None takes all.
    """
    rest = [e for e in expressions if "kind" not in e.novel]
    chosen: list[RichExpression] = []
    while rest and (limit is None or len(chosen) < limit):
        # Of two rare kinds the one that speaks of something else comes first.
        said = Counter(e.targets for e in chosen)
        best = min(rest, key=lambda e: (taken[e.kind], said[e.targets]))
        rest.remove(best)
        taken[best.kind] += 1
        chosen.append(best)
    return chosen


def extra_fields(expression: RichExpression) -> dict[str, Any]:
    """Return what an expression's entry holds beside MeViS's fields, ready for JSON."""
    return {
        "kind": expression.kind,
        "group": GROUPS[expression.kind],
        "needs_time": expression.needs_time,
        "says": expression.says,
        "novel": list(expression.novel),
    }


_JPEG_QUALITY = 95
Level = Literal["plain", "rich"]


@dataclass(frozen=True)
class _Said:
    """An expression: its text, the objects that it means, and what its entry holds beside MeViS's fields."""

    text: str
    targets: tuple[int, ...]
    extra: dict[str, Any]


@dataclass(frozen=True)
class _Clip:
    """A video: frames u8 [T, H, W, 3], masks bool [N, T, H, W] and its expressions."""

    seed: int
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    said: list[_Said]


def write_mevis(
    folder: str | Path,
    seeds: Iterable[int],
    config: SceneConfig | RichConfig | None = None,
    *,
    expressions: int | None = None,
    level: Level = "plain",
) -> Path:
    """Write `JPEGImages/<video>/<frame>.jpg`, `meta_expressions.json` and `mask_dict.json`.

    Beside MeViS's fields an expression has its `kind`, by which `svac-backend evaluate` groups its figures. Rich
    expressions also have `group`, `needs_time`, `says` and `novel`, see `rich.phrases`; those of absent objects
    have an empty `anno_id`.

    Args:
        folder: the split's folder, e.g. `.../mevis/valid_u`; made when needed.
        seeds: a video each, named `scene-<seed>`; `svac_backend.synthetic.scene` says which seeds serve what.
        config: what the scenes look like; None takes the level's: `SceneConfig()` or `VALIDATION`.
        expressions: at most so many of each scene; None takes all. Rich ones are chosen so that all kinds
            come to about the same number over the split.
        level: `plain`, the scenes of `svac_backend.synthetic.scene`, or `rich`, those of `rich.scene`.

    Returns:
        The folder.

    Raises:
        SvacError: no seed, a negative one, one that occurs twice, a configuration of another level, or a folder
            that can't be written.
    """
    folder = Path(folder)
    videos: dict[str, Any] = {}
    masks: dict[str, list[CocoRle | None]] = {}
    for number, clip in enumerate(_clips(seeds, config, expressions, level)):
        name = f"scene-{clip.seed:07d}"
        if name in videos:
            raise SvacError(f"The seed {clip.seed} is given twice.", "Give every seed once.")
        frames = [f"{i:05d}" for i in range(len(clip.frames))]
        first = len(masks)
        for n, tube in enumerate(clip.masks):
            masks[str(first + n)] = [to_coco(mask) if mask.any() else None for mask in tube]
        videos[name] = {
            "vid_id": number,
            "height": clip.frames.shape[1],
            "width": clip.frames.shape[2],
            "frames": frames,
            "expressions": {
                str(k): {
                    "exp": said.text,
                    "obj_id": list(said.targets),
                    "anno_id": [first + n for n in said.targets],
                    **said.extra,
                }
                for k, said in enumerate(clip.said)
            },
        }
        _write_frames(folder / "JPEGImages" / name, frames, clip.frames, folder)
    if not videos:
        raise SvacError("There is no seed to make a benchmark of.", "Give at least one.")
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}), encoding="utf-8")
    (folder / "mask_dict.json").write_text(json.dumps(masks), encoding="utf-8")
    return folder


def _clips(
    seeds: Iterable[int], config: SceneConfig | RichConfig | None, limit: int | None, level: Level
) -> Iterator[_Clip]:
    config = config or (VALIDATION if level == "rich" else SceneConfig())
    if isinstance(config, RichConfig) != (level == "rich"):
        raise SvacError(
            f"{type(config).__name__} is no configuration of {level} scenes.",
            "Use RichConfig with level='rich', and SceneConfig without.",
        )
    taken: Counter[str] = Counter()
    for seed in seeds:
        if isinstance(config, RichConfig):
            rich = make_rich_scene(seed, config)
            said = [_Said(e.text, e.targets, extra_fields(e)) for e in choose(rich.expressions, taken, limit)]
            yield _Clip(seed, rich.frames, rich.masks, said)
        else:
            scene = make_scene(seed, config)
            said = [_Said(e.text, e.targets, {"kind": e.kind}) for e in scene.expressions[:limit]]
            yield _Clip(seed, scene.frames, scene.masks, said)


def _write_frames(pictures: Path, names: list[str], frames: NDArray[np.uint8], folder: Path) -> None:
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(names, frames, strict=True):
            _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            (pictures / f"{name}.jpg").write_bytes(data.tobytes())
    except OSError as error:
        raise SvacError(
            f"The scenes cannot be written to {folder}: {error.strerror}.",
            "Give a folder that this user may write to, on a disk with space.",
        ) from error
