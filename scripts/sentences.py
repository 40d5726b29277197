#!/usr/bin/env python3
"""Ten sentences that a visitor would type, on generated clips that were not trained on, as one picture.

python scripts/sentences.py picture                 # writes data/sentences/ten-sentences.jpg and prints the scores
python scripts/sentences.py picture --publish       # and docs/images/ten-sentences.jpg with its section of README.md
python scripts/sentences.py demo                    # what the model does with the rich demo and its next scenes

The rule, which looks at scenes and never at what a model does with them: sentence k (0 to 9) takes the first seed from
11000 + 500 k on, within the seeds that are kept for demos, whose scene makes the sentence true of as many things as it
speaks of (none for the absent one), and doubtful of none, as the generator judges it. The scenes are those of the
benchmark (`rich.benchmark.VALIDATION`), painted larger. Four frames are shown of each: those at 1/8, 3/8, 5/8, 7/8.
"""

from __future__ import annotations

import os

# Threads that spin while they wait starve whatever else runs on the machine; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from lab.mevis import VALIDATION
from lab.rich_demo import SCENES, STARTS, next_scene
from numpy.typing import NDArray
from rich.console import Console

from svac_backend.errors import SvacError
from svac_backend.masks.metrics import j_and_f
from svac_backend.masks.render import text_picture
from svac_backend.svac.files.weights import model_version
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.description import Description, Look
from svac_backend.synthetic.rich.nouns import make_noun
from svac_backend.synthetic.rich.phrases import phrases_of
from svac_backend.synthetic.rich.scene import RichScene, describe, make_rich_scene
from svac_backend.synthetic.scene import DEMO_SEEDS
from svac_backend.video.reader import ArrayVideo

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "ten-sentences.jpg"
BEGIN, END = "<!-- ten sentences: written by scripts/sentences.py -->", "<!-- end of ten sentences -->"
BEFORE = "## Limits\n"
FIRST_SEED, STEP = 11_000, 500
CLIPS = replace(VALIDATION, width=320, height=180)
SHOWN = (1 / 8, 3 / 8, 5 / 8, 7 / 8)
# J&F from which a sentence counts as found, and as found in part.
FOUND, IN_PART = 70.0, 40.0
GREEN, AMBER, RED = (0, 122, 90), (150, 95, 0), (176, 40, 20)
WHITE, BLACK, MARK = (255, 255, 255), (0, 0, 0), (255, 0, 200)
GAP, TEXT, HATCH = 6, 17, 9

app = typer.Typer(add_completion=False, no_args_is_help=True)
Meant = tuple[int, ...] | None


def noun_truth(scene: Description, name: str, color: str | None = None) -> NDArray[np.int8]:
    """Return of which things a noun is true: 1, 0 (doubtful), -1."""
    return make_noun(tuple(thing.look for thing in scene.things), color, None, name).truth


def noun(name: str, color: str | None = None, *, count: int = 1) -> Callable[[Description], Meant]:
    """Return what finds the things that a noun means: exactly `count` of them, and no doubtful one."""

    def find(scene: Description) -> Meant:
        truth = noun_truth(scene, name, color)
        meant = tuple(int(n) for n in np.flatnonzero(truth == 1))
        return meant if len(meant) == count and (truth != 0).all() else None

    return find


def said(says: str, name: str | None = None, *, beside: str | None = None) -> Callable[[Description], Meant]:
    """Return what finds the one thing, called `name` or anything, of which `says` is true; `beside`: to what kind."""

    def find(scene: Description) -> Meant:
        kinds = [thing.look.kind for thing in scene.things]
        if beside is not None and kinds.count(beside) != 1:
            return None
        if name is not None and noun(name, count=1)(scene) is not None:  # the noun alone would do
            return None
        if (
            name is not None
            and (make_noun(tuple(t.look for t in scene.things), None, None, name).truth < 0).all()
        ):
            return None
        for phrase in phrases_of(scene):
            words = (phrase.noun.color, phrase.noun.texture, phrase.noun.name)
            near = beside is None or [kinds[x] for x in phrase.anchors] == [beside]
            if phrase.says == says and words == (None, None, name) and len(phrase.targets) == 1 and near:
                return phrase.targets
        return None

    return find


SENTENCES: tuple[tuple[str, Callable[[Description], Meant], str], ...] = (
    ("the dog", noun("dog"), ""),
    ("the red car", noun("car", "red"), ""),
    ("the thing that moves left", said("move left"), ""),
    ("the two balloons", noun("balloon", count=2), ""),
    ("the animal that comes in first", said("first to enter", "animal"), ""),
    ("the biggest animal", said("largest", "animal"), ""),
    ("the fastest one", said("fastest"), ""),
    ("the thing to the left of the star", said("left of", beside="star"), ""),
    ("the elephant", noun("elephant", count=0), "there is none"),
    ("the lion", noun("lion"), "a word and a picture that training never had"),
)


@dataclass(frozen=True)
class Outcome:
    """What the model did with a sentence.

    Attributes:
        text, note: the sentence, and what is to be known of it.
        scene: the clip, with what is meant in `meant`.
        masks: bool [T, H, W], of the model.
        score: J&F, 0..100.
        verdict, color: in words, and the colour of these.
    """

    text: str
    note: str
    scene: RichScene
    meant: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    score: float
    verdict: str
    color: tuple[int, int, int]


def clip_of(number: int) -> tuple[int, tuple[int, ...]]:
    """Return the seed of a sentence's clip and what the sentence means there; see the module."""
    text, find, _ = SENTENCES[number]
    for seed in range(FIRST_SEED + STEP * number, DEMO_SEEDS.stop):
        meant = find(describe(seed, CLIPS, words=False)[0])
        if meant is not None:
            return seed, meant
    raise SvacError(
        f"No scene has {text!r}.", "Install fonts-noto-color-emoji: without it there are shapes only."
    )


def look_into(model: Svac, number: int) -> Outcome:
    """Run the model on a sentence's clip and judge what it did."""
    seed, targets = clip_of(number)
    scene = make_rich_scene(seed, CLIPS)
    text, _, note = SENTENCES[number]
    masks = np.stack([frame.masks[0] for frame in model.segment(ArrayVideo(scene.frames, scene.fps), [text])])
    meant = np.asarray(scene.masks[list(targets)].any(axis=0))
    score = 100 * j_and_f(masks, meant).j_and_f
    verdict, color = judged(scene, targets, masks, score)
    return Outcome(text, note, scene, meant, masks, score, verdict, color)


def judged(
    scene: RichScene, targets: tuple[int, ...], masks: NDArray[np.bool_], score: float
) -> tuple[str, tuple[int, int, int]]:
    """Return what happened, in words, and a colour."""
    drawn = int(masks.any(axis=(1, 2)).sum())
    if not targets:
        if not drawn:
            return "right: nothing is marked", GREEN
        return f"wrong: {taken(scene, targets, masks)} marked on {drawn} of {len(masks)} frames", RED
    if score >= FOUND:
        return "right", GREEN
    if score >= IN_PART:
        return "right in part", AMBER
    if not drawn:
        return "wrong: nothing is marked", RED
    return f"wrong: {taken(scene, targets, masks)} marked", RED


def taken(scene: RichScene, targets: tuple[int, ...], masks: NDArray[np.bool_]) -> str:
    """Return the thing that most of the masks lies on, in words."""
    shares = [float((masks & thing).sum()) / max(1, int(masks.sum())) for thing in scene.masks]
    for n in targets:
        shares[n] = 0.0
    best = int(np.argmax(shares))
    return f"the {named(scene.objects[best])} is" if shares[best] > 0.3 else "something else is"


def named(look: Look) -> str:
    """Return a thing's name."""
    texture = "" if look.texture in ("plain", "grainy") else look.texture
    return " ".join(word for word in (texture, look.color or "", look.kind) if word)


def row_of(number: int, outcome: Outcome) -> NDArray[np.uint8]:
    """Return a caption and the frames below it, u8 [h, w, 3]."""
    frames = []
    for share in SHOWN:
        i = int(share * len(outcome.masks))
        picture = marked(outcome.scene.frames[i], outcome.masks[i])
        frames.append(outlined(picture, outcome.meant[i], ((BLACK, 3), (WHITE, 1))))
    space = np.full((CLIPS.height, GAP, 3), 255, np.uint8)
    parts = [part for frame in frames for part in (frame, space)][:-1]
    pictures = np.concatenate(parts, axis=1)
    note = f" ({outcome.note})" if outcome.note else ""
    left = text_picture(f"{number + 1}.  “{outcome.text}”{note}", TEXT, WHITE)
    right = text_picture(f"{outcome.verdict} · J&F {outcome.score:.0f}", TEXT, outcome.color)
    strip = np.full((max(left.shape[0], right.shape[0]) + 4, pictures.shape[1], 3), 255, np.uint8)
    strip[2 : 2 + left.shape[0], : left.shape[1]] = left
    strip[2 : 2 + right.shape[0], strip.shape[1] - right.shape[1] :] = right
    return np.concatenate([strip, pictures, np.full((GAP, pictures.shape[1], 3), 255, np.uint8)])


def marked(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Hatch and outline a mask: a fill would hide the colours that sentences speak of."""
    rows, columns = np.indices(mask.shape)
    drawn = picture.copy()
    drawn[mask & ((rows + columns) % HATCH < 2)] = MARK
    return outlined(drawn, mask, ((MARK, 3),))


def outlined(
    picture: NDArray[np.uint8], mask: NDArray[np.bool_], lines: tuple[tuple[tuple[int, int, int], int], ...]
) -> NDArray[np.uint8]:
    """Draw lines of some colours and widths around a mask."""
    drawn = picture.copy()
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for color, width in lines:
        cv2.drawContours(drawn, contours, -1, color, width)
    return drawn


def section(outcomes: list[Outcome], version: str) -> str:
    """Return the part of the README that shows the picture."""
    right = sum(outcome.color == GREEN for outcome in outcomes)
    part = sum(outcome.color == AMBER for outcome in outcomes)
    listed = "; ".join(f"“{o.text}” ({o.verdict})" for o in outcomes)
    return f"""{BEGIN}
## Ten sentences

![Ten sentences on generated clips with the masks that the model drew: {listed}](docs/images/ten-sentences.jpg)

*What `svac-tiny` (`{version}`) does with ten sentences that a visitor may type, on clips that it was not trained on:
{right} right, {part} right in part, {len(outcomes) - right - part} wrong. Pink is its mask, the white line the
truth. The clips were chosen by a rule that looks at no result (`scripts/sentences.py`).*
{END}
"""


def published(readme: str, text: str) -> str:
    """Return the README with the section in place of an older one, else before the limits."""
    if BEGIN in readme:
        before, rest = readme.split(BEGIN, 1)
        return before + text.rstrip("\n") + rest.split(END, 1)[1]
    if BEFORE not in readme:
        raise SvacError(f"README.md has no {BEFORE.strip()!r}.", "Put the section in by hand.")
    return readme.replace(BEFORE, f"{text}\n{BEFORE}", 1)


@app.command()
def picture(
    model: Annotated[str, typer.Option(help="svac-tiny, or a folder with a model.")] = "svac-tiny",
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("data/sentences"),
    device: str = "auto",
    publish: Annotated[bool, typer.Option(help="Also into docs/images and README.md.")] = False,
) -> None:
    """Make the picture of ten sentences."""
    loaded = Svac.from_pretrained(model, device=device, dtype="float32")
    outcomes = []
    for number in range(len(SENTENCES)):
        outcomes.append(look_into(loaded, number))
        done = outcomes[-1]
        print(f"{done.text:34} seed {done.scene.seed}  J&F {done.score:5.1f}  {done.verdict}")
    sheet = np.concatenate([row_of(number, outcome) for number, outcome in enumerate(outcomes)])
    sheet = cv2.copyMakeBorder(sheet, GAP, 0, GAP, GAP, cv2.BORDER_CONSTANT, value=WHITE)
    _, data = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    out.mkdir(parents=True, exist_ok=True)
    for path in [out / PICTURE.name] + ([PICTURE] if publish else []):
        path.write_bytes(data.tobytes())
        print(f"{path}: {sheet.shape[1]}x{sheet.shape[0]}, {len(data) // 1000} kB")
    if publish:
        readme = ROOT / "README.md"
        readme.write_text(published(readme.read_text(), section(outcomes, model_version(model))))


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="svac-tiny, or a folder with a model.")] = "svac-tiny",
    scenes: Annotated[int, typer.Option(help="Scenes from each start of the demo on.")] = 4,
    device: str = "auto",
) -> None:
    """Show J of each prompt of the rich demo, and of the scenes that would come next."""
    loaded = Svac.from_pretrained(model, device=device, dtype="float32")
    for start in STARTS:
        seed = start
        for _ in range(scenes):
            seed, prompts = next_scene(seed)
            scene = make_rich_scene(seed, SCENES)
            video = ArrayVideo(scene.frames, scene.fps)
            masks = np.stack([f.masks for f in loaded.segment(video, [p.text for p in prompts])], axis=1)
            found = [
                f"{p.kind} “{p.text}” {100 * j_and_f(mask, scene.target(p)).j:.0f}"
                for p, mask in zip(prompts, masks, strict=True)
            ]
            print(f"start {start} seed {seed}: {'; '.join(found)}")
            seed += 1


if __name__ == "__main__":
    try:
        app()
    except SvacError as error:
        Console(stderr=True).print(f"{error.message}\n{error.hint}", markup=False)
        sys.exit(1)
