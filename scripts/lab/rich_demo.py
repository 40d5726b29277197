"""A demo of things that move, for a model that finds them by kind, motion and order.

The quickstart shows plain, coloured shapes: the embedded model finds those.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichScene, describe, make_rich_scene
from svac_backend.synthetic.rich.staging import RichConfig
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import write_mp4

# Words of training, seeds that were not: what the model is for. Without the emoji font there are shapes only.
SCENES = RichConfig(
    width=640,
    height=360,
    frames=32,
    max_objects=5,
    per_kind=4,
    bars=0.0,
    noise=3.0,
    blur=0.0,
    motion_blur=0.0,
)
# Each video is the first scene from here on that offers a prompt of each of these kinds. With the emoji font these are
# trucks and a spider; bells, a turtle and a whale; cars and a sunflower.
STARTS = (10_057, 10_105, 10_184)
WANTED: tuple[tuple[str, ...], ...] = (
    ("color",),
    ("category", "color_category"),
    ("motion", "order", "speed", "presence"),
)
_PLAIN = re.compile(r"the (?!.* in the video)[a-z ]+")
LABEL = "Object"
# Share of a thing that is enough to see it.
_SEEN = 0.2


def make_rich_demo(
    folder: Path, starts: Sequence[int] = STARTS, config: RichConfig = SCENES
) -> list[dict[str, Any]]:
    """Write a video for each start, `moving-00.mp4` ..., its truth beside it, and `manifest.json`.

    The truth is that of `synthetic.video.write_scene` with their `kinds`.

    Returns:
        One dict per video, as `synthetic.video.make_demo`: `video`, `truth` and `prompts`.

    Raises:
        SvacError: no demo seed from a start on offers the prompts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = []
    for number, start in enumerate(starts):
        seed, prompts = next_scene(start, config)
        scene = make_rich_scene(seed, config)
        video, truth = folder / f"moving-{number:02d}.mp4", folder / f"moving-{number:02d}.json"
        write_mp4(scene.frames, video, scene.fps)
        content = {
            "video": video.name,
            "seed": seed,
            "width": config.width,
            "height": config.height,
            "frames": config.frames,
            "fps": config.fps,
            "kinds": [prompt.kind for prompt in prompts],
            "tracks": [track_of(scene, p, f"obj{n}").to_json() for n, p in enumerate(prompts, start=1)],
        }
        truth.write_text(json.dumps(content), encoding="utf-8")
        manifest.append({"video": str(video), "prompts": [p.text for p in prompts], "truth": str(truth)})
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def next_scene(start: int, config: RichConfig = SCENES) -> tuple[int, list[RichExpression]]:
    """Return the first seed from `start` on that offers a prompt of each wanted kind, and these.

    What the first prompt means can be seen all the time.

    Raises:
        SvacError: `start` is not a demo seed, or none from there on does.
    """
    if start not in DEMO_SEEDS:
        raise SvacError(
            f"Seed {start} is not kept for demos.", f"Use {DEMO_SEEDS.start} to {DEMO_SEEDS.stop - 1}."
        )
    for seed in range(start, DEMO_SEEDS.stop):
        scene, expressions = describe(seed, config)
        prompts = prompts_of(expressions)
        if len(prompts) == len(WANTED) and scene.visible()[prompts[0].targets[0]].min() > _SEEN:
            return seed, prompts
    raise SvacError(f"No scene from seed {start} on has the demo's prompts.", "Begin at a smaller seed.")


def prompts_of(expressions: Sequence[RichExpression]) -> list[RichExpression]:
    """Return the shortest plainly worded expression of each wanted kind, each of another single thing."""
    found: list[RichExpression] = []
    for kinds in WANTED:
        said = {target for prompt in found for target in prompt.targets}
        fitting = [
            e
            for e in expressions
            if e.kind in kinds
            and len(e.targets) == 1
            and not said & set(e.targets)
            and _PLAIN.fullmatch(e.text)
        ]
        if not fitting:
            return found
        found.append(min(fitting, key=lambda e: (kinds.index(e.kind), len(e.text), e.text)))
    return found


def track_of(scene: RichScene, expression: RichExpression, object_id: str) -> Track:
    """Return the truth of an expression; frames on which nothing of it is seen score 0 and have no mask."""
    track = Track(object_id=object_id, label=LABEL, expression=expression.text)
    for index, mask in enumerate(scene.target(expression)):
        visible = bool(mask.any())
        track.scores[index] = float(visible)
        if visible:
            track.masks[index] = to_coco(mask)
    return track
