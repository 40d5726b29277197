"""Scenes as a benchmark: a split in the layout of MeViS, which `svac-backend evaluate` and others' code read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2

from svac_backend.errors import SvacError
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.synthetic.scene import SceneConfig, make_scene

_JPEG_QUALITY = 95


def write_mevis(
    folder: str | Path,
    seeds: Iterable[int],
    config: SceneConfig | None = None,
    *,
    expressions: int | None = None,
) -> Path:
    """Write `JPEGImages/<video>/<frame>.jpg`, `meta_expressions.json` and `mask_dict.json`.

    Beside MeViS's fields an expression has its `kind`, by which `svac-backend evaluate` groups its figures.

    Args:
        folder: the split's folder, e.g. `.../mevis/valid_u`; made when needed.
        seeds: a video each, named `scene-<seed>`; `svac_backend.synthetic.scene` says which seeds serve what.
        config: what the scenes look like; None takes the defaults.
        expressions: at most so many of each scene; None takes all.

    Returns:
        The folder.

    Raises:
        SvacError: no seed, a negative one, one that occurs twice, or a folder that can't be written.
    """
    folder, config = Path(folder), config or SceneConfig()
    videos: dict[str, Any] = {}
    masks: dict[str, list[CocoRle | None]] = {}
    for number, seed in enumerate(seeds):
        scene = make_scene(seed, config)
        name = f"scene-{seed:07d}"
        if name in videos:
            raise SvacError(f"The seed {seed} is given twice.", "Give every seed once.")
        frames = [f"{i:05d}" for i in range(len(scene.frames))]
        first = len(masks)
        for n, tube in enumerate(scene.masks):
            masks[str(first + n)] = [to_coco(mask) if mask.any() else None for mask in tube]
        videos[name] = {
            "vid_id": number,
            "height": config.height,
            "width": config.width,
            "frames": frames,
            "expressions": {
                str(k): {
                    "exp": e.text,
                    "obj_id": list(e.targets),
                    "anno_id": [first + n for n in e.targets],
                    "kind": e.kind,
                }
                for k, e in enumerate(scene.expressions[:expressions])
            },
        }
        pictures = folder / "JPEGImages" / name
        try:
            pictures.mkdir(parents=True, exist_ok=True)
            for frame, picture in zip(frames, scene.frames, strict=True):
                _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                (pictures / f"{frame}.jpg").write_bytes(data.tobytes())
        except OSError as error:
            raise SvacError(
                f"The scenes cannot be written to {folder}: {error.strerror}.",
                "Give a folder that this user may write to, on a disk with space.",
            ) from error
    if not videos:
        raise SvacError("There is no seed to make a benchmark of.", "Give at least one.")
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}), encoding="utf-8")
    (folder / "mask_dict.json").write_text(json.dumps(masks), encoding="utf-8")
    return folder
