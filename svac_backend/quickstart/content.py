"""What the quickstart's project holds: videos with prompts; and where it remembers which task is which.

The demo is plain, coloured shapes, or rich: things that move, with sentences of kind, colour, motion and order.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from svac_backend.atomic import atomic_write
from svac_backend.cli.inputs import SHIPPED, prompt_labels
from svac_backend.errors import SvacError
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichScene, describe, make_rich_scene
from svac_backend.synthetic.rich.staging import RichConfig
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import make_demo, write_mp4

# `plain`: coloured shapes, which any svac-tiny finds by colour. `rich`: things that move, said by kind and motion too.
DEMO: Literal["plain", "rich"] = "plain"
DEMO_TITLE = {"plain": "SVAC demo", "rich": "SVAC demo: things that move"}[DEMO]
DEMO_VIDEOS = 3
# Three objects on each frame stay below the 100 brush masks that the editor submits in a few seconds.
DEMO_FRAMES = 32
# The label that the shipped configs have, and colours for those beside it.
SHIPPED_LABEL = '<Label value="object" background="#00A2FF"/>'
COLORS = ("#FFB000", "#DC267F", "#785EF0", "#2CA02C", "#FE6100")
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


@dataclass(frozen=True)
class PromptedVideo:
    """A video, what to segment in it, and for made videos the file with the truth."""

    video: Path
    prompts: tuple[str, ...]
    truth: Path | None = None

    @property
    def key(self) -> str:
        """What a task of this clip is remembered by: another prompt is another task."""
        return json.dumps([str(self.video), *self.prompts])


def demo_clips(folder: Path, demo: Literal["plain", "rich"] = DEMO) -> list[PromptedVideo]:
    """Return the demo's clips; they are made on the first call.

    Args:
        folder: where they are kept; rich ones in a folder of their own below, beside plain ones of an earlier version.
        demo: which ones.
    """
    folder = folder / "rich" if demo == "rich" else folder
    manifest = folder / "manifest.json"
    if manifest.is_file():
        entries = json.loads(manifest.read_text())
    elif demo == "rich":
        entries = make_rich_demo(folder)
    else:
        entries = make_demo(folder, DEMO_SEEDS.start, DEMO_VIDEOS, frames=DEMO_FRAMES)
    return [PromptedVideo(Path(e["video"]), tuple(e["prompts"]), Path(e["truth"])) for e in entries]


def own_clip(video: Path, prompts: Sequence[str]) -> PromptedVideo:
    """Return the clip of a user's own file.

    Raises:
        SvacError: there is no such file, or no prompt.
    """
    if not video.is_file():
        raise SvacError(f"There is no file {video}.", "Give the path of a video.")
    if not any(prompt.strip() for prompt in prompts):
        raise SvacError("There is no prompt.", 'Say what to segment, e.g. --prompt "the white dog".')
    return PromptedVideo(video.resolve(), tuple(prompts))


def labelled(prompts: Sequence[str]) -> list[str]:
    """Return the prompts, each with a label of its own, so that the editor gives each object its own colour.

    The first keeps the config's label `object`; the others become `object 2: ...` unless they name a label.
    """
    return [
        prompt if number == 1 or prompt_labels([prompt]) else f"object {number}: {prompt}"
        for number, prompt in enumerate(prompts, start=1)
    ]


def project_config(kind: str, labels: Sequence[str]) -> str:
    """Return a shipped labelling config whose masks know further labels.

    Args:
        kind: `brush` or `polygon`.
        labels: names beside `object`.

    Raises:
        SvacError: the shipped configs are not there.
    """
    path = SHIPPED / f"{kind}_frames.xml"
    if not path.is_file():
        raise SvacError(f"{path} is missing.", "Get the project's folder again.")
    tags = [
        f'<Label value={quoteattr(label)} background="{color}"/>'
        for label, color in zip(labels, itertools.cycle(COLORS), strict=False)
    ]
    # The first is that of the masks; the second one's boxes are drawn on the video.
    return path.read_text(encoding="utf-8").replace(SHIPPED_LABEL, "\n    ".join([SHIPPED_LABEL, *tags]), 1)


@dataclass
class State:
    """What an earlier run left in the folder.

    Attributes:
        projects: a project's key (see `app`) -> id in Label Studio.
        tasks: a project's key -> (clip's key -> task id).
    """

    path: Path
    projects: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read the file, or start anew where there is none."""
        if not path.is_file():
            return cls(path)
        content = json.loads(path.read_text())
        return cls(path, content["projects"], content["tasks"])

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = asdict(self)
        del content["path"]
        atomic_write(self.path, json.dumps(content, indent=2))


def make_rich_demo(
    folder: Path, starts: Sequence[int] = STARTS, config: RichConfig = SCENES
) -> list[dict[str, Any]]:
    """Write a video for each start, `moving-00.mp4` ..., its truth beside it, and `manifest.json`.

    The truth is that of `synthetic.video.write_scene` as far as `quickstart.check` reads it, with their `kinds`.

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
