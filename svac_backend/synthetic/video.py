"""Scenes as files: an MP4 with its truth beside it, and the demo of the quickstart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.expressions import Expression, expressions_of
from svac_backend.synthetic.layout import SceneConfig
from svac_backend.synthetic.scene import DEMO_SEEDS, Scene, make_scene

LABEL = "Object"
_DEMO_PROMPTS = 3
# Every so many demo videos, the first prompt names the shape too.
_SHAPE_EVERY = 3


@dataclass(frozen=True)
class ScenePaths:
    """Where a scene was written: `video` (MP4) and `truth` (JSON)."""

    video: Path
    truth: Path


def write_scene(
    scene: Scene, folder: str | Path, name: str, *, prompts: Sequence[Expression] | None = None
) -> ScenePaths:
    """Write `<name>.mp4` (H.264, yuv420p) and `<name>.json`, its truth.

    The truth holds `video`, `seed`, `width`, `height`, `frames`, `fps`, `objects` (attributes),
    `expressions` (with their target indices) and `tracks`: one `Track` per prompt, ids `obj1` ..., frame
    indices those of the file, 0-based.

    Args:
        prompts: what the tracks are of; None takes one expression per object that has any.

    Raises:
        SvacError: H.264 cannot hold an odd width or height.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = ScenePaths(folder / f"{name}.mp4", folder / f"{name}.json")
    write_mp4(scene.frames, paths.video, scene.fps)
    count, height, width = scene.frames.shape[:3]
    chosen = _one_each(scene.expressions) if prompts is None else prompts
    truth = {
        "video": paths.video.name,
        "seed": scene.seed,
        "width": width,
        "height": height,
        "frames": count,
        "fps": scene.fps,
        "objects": [
            {"color": o.color, "shape": o.shape, "size": o.size, "motion": o.motion, "rgb": list(o.rgb)}
            for o in scene.objects
        ],
        "expressions": [asdict(e) for e in scene.expressions],
        "tracks": [_track(scene, e, f"obj{n + 1}").to_json() for n, e in enumerate(chosen)],
    }
    paths.truth.write_text(json.dumps(truth), encoding="utf-8")
    return paths


def write_mp4(frames: NDArray[np.uint8], path: str | Path, fps: float) -> None:
    """Write frames u8 [T, H, W, 3] RGB as H.264 in yuv420p, without B-frames.

    Raises:
        SvacError: the width or height is odd.
    """
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise SvacError(
            f"A video of {width}x{height} cannot be written as H.264 in yuv420p.",
            "Use an even width and height.",
        )
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast", "bf": "0", "g": "12"}
        for image in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def make_demo(
    folder: str | Path, seed: int, count: int, width: int = 640, height: int = 360, frames: int = 48
) -> list[dict[str, Any]]:
    """Write the videos of the quickstart, `demo-00.mp4` ..., and `manifest.json`.

    Prompts are mostly colour expressions ("the red object"), in every third video also one of colour and
    shape ("the red circle"). Scenes that offer fewer than two such prompts are passed over.

    Args:
        seed: the first seed to try, within `DEMO_SEEDS`.

    Returns:
        One dict per video: `video` and `truth` (paths), `prompts` (list of str, as the truth's tracks).

    Raises:
        SvacError: the seed is no demo seed, or the seeds ran out.
    """
    if seed not in DEMO_SEEDS:
        raise SvacError(
            f"Seed {seed} is not kept for demos.", f"Use {DEMO_SEEDS.start} to {DEMO_SEEDS.stop - 1}."
        )
    config = SceneConfig(width=width, height=height, frames=frames, max_objects=4, noise=3.0, blur=0.0)
    manifest: list[dict[str, Any]] = []
    while len(manifest) < count:
        if seed not in DEMO_SEEDS:
            raise SvacError(
                f"Only {len(manifest)} of {count} demo videos could be made.", "Use a smaller seed or count."
            )
        with_shape = len(manifest) % _SHAPE_EVERY == _SHAPE_EVERY - 1
        # The layout does not depend on what is rendered, so one frame is enough to learn the prompts.
        prompts = _demo_prompts(make_scene(seed, config, indices=(0,)), with_shape=with_shape)
        if len(prompts) >= 2:
            name = f"demo-{len(manifest):02d}"
            paths = write_scene(make_scene(seed, config), folder, name, prompts=prompts)
            manifest.append(
                {"video": str(paths.video), "prompts": [e.text for e in prompts], "truth": str(paths.truth)}
            )
        seed += 1
    (Path(folder) / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def _demo_prompts(scene: Scene, *, with_shape: bool) -> list[Expression]:
    """Return one plainly worded prompt for up to three objects."""
    chosen: dict[int, Expression] = {}
    rng = np.random.default_rng(scene.seed)
    for expression in expressions_of(scene.objects, rng, paraphrases=None):
        target = expression.targets[0]
        kind = "color_shape" if with_shape and target == 0 else "color"
        if expression.kind == kind and target not in chosen:
            chosen[target] = expression
    return list(chosen.values())[:_DEMO_PROMPTS]


def _one_each(expressions: Sequence[Expression]) -> list[Expression]:
    return list({e.targets: e for e in reversed(expressions)}.values())[::-1]


def _track(scene: Scene, expression: Expression, object_id: str) -> Track:
    """Return the truth of an expression; frames on which the object is hidden score 0 and have no mask."""
    track = Track(object_id=object_id, label=LABEL, expression=expression.text)
    union = np.logical_or.reduce(scene.masks[list(expression.targets)])
    for index, mask in enumerate(union):
        visible = bool(mask.any())
        track.scores[index] = float(visible)
        if visible:
            track.masks[index] = to_coco(mask)
    return track
