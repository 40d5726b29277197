"""Tiny data sets in the official layouts, of synthetic scenes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from lab.mevis import write_mevis
from PIL import Image

from svac_backend.evaluation.predictions import encode_mask
from svac_backend.masks.rle import to_coco
from svac_backend.synthetic.scene import Scene, SceneConfig, make_scene

CONFIG = SceneConfig(width=64, height=48, frames=4, min_objects=2, max_objects=3, drift=0.0)
SEEDS = (1, 2)


def scenes() -> dict[str, Scene]:
    return {f"scene-{seed:07d}": make_scene(seed, CONFIG) for seed in SEEDS}


def mevis(root: Path, split: str = "valid_u", expressions: int | None = 3) -> Path:
    """MeViS as it is released; expression `two` means two objects, `nothing` none."""
    folder = write_mevis(root / "mevis" / split, SEEDS, CONFIG, expressions=expressions)
    meta = json.loads((folder / "meta_expressions.json").read_text())
    for name, video in meta["videos"].items():
        first = min(i for e in video["expressions"].values() for i in e["anno_id"])
        first -= make_scene(int(name[-7:]), CONFIG).expressions[0].targets[0]
        video["expressions"]["two"] = {"exp": "the two", "anno_id": [first, first + 1], "obj_id": [0, 1]}
        for expression in video["expressions"].values():
            expression.pop("kind", None)
    (folder / "meta_expressions.json").write_text(json.dumps(meta))
    return root


def by_split(root: Path, split: str, *, annotations: bool = True) -> Path:
    """Ref-DAVIS17 and Ref-YouTube-VOS: expressions by split, an `obj_id` each, palette pictures."""
    videos: dict[str, Any] = {}
    for name, scene in scenes().items():
        frames = [f"{5 * i:05d}" for i in range(len(scene.frames))]
        expressions = {
            str(k): {"exp": e.text, "obj_id": str(e.targets[0] + 1)}
            for k, e in enumerate(scene.expressions[:2])
        }
        videos[name] = {"frames": frames, "expressions": expressions}
        pictures = root / split / "JPEGImages" / name
        pictures.mkdir(parents=True)
        for frame, picture in zip(frames, scene.frames, strict=True):
            Image.fromarray(picture).save(pictures / f"{frame}.jpg", quality=95)
        if annotations:
            folder = root / split / "Annotations" / name
            folder.mkdir(parents=True)
            for i, frame in enumerate(frames):
                palette_picture(scene, i).save(folder / f"{frame}.png")
    write_json(
        root / "meta_expressions" / split / "meta_expressions.json",
        {"videos": dict(reversed(videos.items()))},
    )
    return root


def palette_picture(scene: Scene, i: int) -> Image.Image:
    """A frame's objects, 1 and up, in DAVIS' colours: index and grey value differ."""
    numbers = np.zeros(scene.masks.shape[2:], np.uint8)
    for n, mask in enumerate(scene.masks[:, i]):
        numbers[mask] = n + 1
    picture = Image.fromarray(numbers, mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


def counted_masks(root: Path, split: str) -> Path:
    """`mask_dict.pkl`: masks counted over sorted videos and sorted expressions, in place of palette pictures."""
    meta = json.loads((root / "meta_expressions" / split / "meta_expressions.json").read_text())
    masks: dict[str, Any] = {}
    for name in sorted(meta["videos"]):
        for key in sorted(meta["videos"][name]["expressions"]):
            target = int(meta["videos"][name]["expressions"][key]["obj_id"]) - 1
            tube = scenes()[name].masks[target]
            masks[str(len(masks))] = [dict(to_coco(mask)) if mask.any() else None for mask in tube]
    path = root / split / "mask_dict.pkl"
    path.write_bytes(pickle.dumps(masks))
    return path


def revos(root: Path) -> Path:
    """ReVOS: one folder for all splits, a type per expression, and the foreground."""
    folder = root / "ReVOS"
    videos, masks, foreground = {}, {}, {}
    for name, scene in scenes().items():
        frames = [f"{i:05d}" for i in range(len(scene.frames))]
        first = len(masks)
        for n, tube in enumerate(scene.masks):
            masks[str(first + n)] = [to_coco(mask) if mask.any() else None for mask in tube]
        foreground[name] = {"masks_rle": [to_coco(mask) for mask in scene.masks.any(axis=0)]}
        videos[name] = {
            "frames": frames,
            "expressions": {
                "0": {"exp": "the first one", "anno_id": [first], "type_id": 0},
                "1": {"exp": "which one is second?", "anno_id": [first + 1], "type_id": 1},
                "2": {"exp": "the unicorn", "anno_id": [], "type_id": 2},
            },
        }
        pictures = folder / "JPEGImages" / name
        pictures.mkdir(parents=True)
        for frame, picture in zip(frames, scene.frames, strict=True):
            Image.fromarray(picture).save(pictures / f"{frame}.jpg")
    write_json(folder / "meta_expressions_valid_.json", {"videos": videos})
    write_json(folder / "mask_dict.json", masks)
    write_json(folder / "mask_dict_foreground.json", foreground)
    return root


def write_predictions(folder: Path, video: str, expression: str, frames: Any, masks: np.ndarray) -> None:
    """Write masks, bool [T, H, W], as another program would."""
    target = folder / video / expression
    target.mkdir(parents=True, exist_ok=True)
    for frame, mask in zip(frames, masks, strict=True):
        (target / f"{frame}.png").write_bytes(encode_mask(mask))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
