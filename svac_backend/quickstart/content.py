"""What the quickstart's project holds, videos with prompts, and the file that remembers which task is which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.synthetic.video import make_demo

DEMO_TITLE = "SVAC demo"
DEMO_VIDEOS = 3
# Three objects on each frame stay below the 100 brush masks that the editor submits in a few seconds.
DEMO_FRAMES = 32


@dataclass(frozen=True)
class PromptedVideo:
    """A video, the prompts that say what to segment in it, and for a generated video the file with the truth."""

    video: Path
    prompts: tuple[str, ...]
    truth: Path | None = None

    @property
    def key(self) -> str:
        """The key of this clip's task in `State`: another prompt is another task."""
        return json.dumps([str(self.video), *self.prompts])


def demo_clips(folder: Path) -> list[PromptedVideo]:
    """Return the demo's clips: coloured shapes. The first call writes them into the folder."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        entries = json.loads(manifest.read_text())
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


@dataclass
class State:
    """What an earlier run left in the folder.

    Attributes:
        projects: a project's key (see `Quickstart.key`) -> id in Label Studio.
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
