"""Frames of rich scenes with prompts and masks, and what stands where on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lab.train_tiny.oracle import NAMES, TEXTURES, AttributeRow, Said
from svac_backend.svac import astc
from svac_backend.synthetic.rich.description import Camera, Description, Look
from svac_backend.synthetic.rich.kinds import KINDS, allowed
from svac_backend.synthetic.rich.nouns import make_noun
from svac_backend.synthetic.rich.phrases import Phrase, phrases_of
from svac_backend.synthetic.rich.scene import RichConfig, RichScene, make_rich_scene
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED
from svac_backend.synthetic.shapes import COLORS

PLACES = 3  # places that one prompt can name
SMALLEST = 1 / 1500  # share of the frame from which on a thing counts as visible
_PER_FRAME = 5  # things of a frame that are prompted for
# Radii of circles of equal area, in sides of the square.
EXTENTS = (0.045, 0.06, 0.075, 0.09, 0.11, 0.13, 0.16)
_KINDS = tuple(KINDS)
_ALL_TEXTURES = ("plain", *TEXTURES, "grainy")


@dataclass
class CellLabels:
    """What covers each cell of n maps of c cells: -1 nothing, -2 not clear.

    Attributes:
        kind, color, texture, extent: i64 [n, c]; a glyph in its own colours has the colour after the last; the extent
            is the number of `EXTENTS` that the thing's radius is above.
    """

    kind: Tensor
    color: Tensor
    texture: Tensor
    extent: Tensor

    CLASSES = (len(_KINDS), len(COLORS) + 1, len(_ALL_TEXTURES), len(EXTENTS) + 1)


@dataclass
class MaskBatch:
    """n frames and k (frame, prompt) pairs.

    Attributes:
        pixels: f32 [n, 3, S, S]; frame: i64 [k]; said: [k]; points: f32 [k, PLACES, 2] in 0..1, NaN where not said.
        target: f32 [k, S/2, S/2]; present: f32 [k]; seen: on the S/16 x S/16 cells of each frame.
        things: f32 [n, N, S/4, S/4], share of each cell that each of a frame's visible things covers, 0 for no thing.
    """

    pixels: Tensor
    frame: Tensor
    said: Said
    points: Tensor
    target: Tensor
    present: Tensor
    seen: CellLabels
    things: Tensor


def center(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the mask's pixel nearest to its centroid as (x, y) in 0..1."""
    ys, xs = np.nonzero(mask)
    k = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return (xs[k] + 0.5) / mask.shape[1], (ys[k] + 0.5) / mask.shape[0]


def random_pixel(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """Return a random pixel of the mask as (x, y) in 0..1."""
    ys, xs = np.nonzero(mask)
    k = rng.integers(len(xs))
    return (xs[k] + 0.5) / mask.shape[1], (ys[k] + 0.5) / mask.shape[0]


def shares(masks: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Return which share of each of side x side cells masks [..., H, W] cover; H and W are multiples of `side`."""
    *rest, height, width = masks.shape
    cells = masks.reshape(*rest, side, height // side, side, width // side)
    return np.asarray(cells.mean(axis=(-3, -1), dtype=np.float32))


def label(area: NDArray[np.float32], looks: tuple[Look, ...]) -> CellLabels:
    """Say what covers each cell, from the share of each of N things [N, n, c]."""
    best, most, total = area.argmax(axis=0), area.max(axis=0), area.sum(axis=0)
    tables = {
        "kind": [_KINDS.index(look.kind) for look in looks],
        "color": [COLORS.index(look.color) if look.color else len(COLORS) for look in looks],
        "texture": [_ALL_TEXTURES.index(look.texture) for look in looks],
    }
    clear = most > np.maximum(0.22, 0.6 * total)
    extent = np.digitize(np.sqrt(area.mean(axis=2) / np.pi), EXTENTS)  # [N, n]
    found = {name: np.array(table)[best] for name, table in tables.items()}
    found["extent"] = extent[best, np.arange(len(best))[:, None]]
    nothing = np.where(total < 0.04, -1, -2)
    return CellLabels(**{name: torch.from_numpy(np.where(clear, of, nothing)) for name, of in found.items()})


def random_scene(
    rng: np.random.Generator, config: RichConfig, indices: list[int] | None = None, *, words: bool = True
) -> RichScene:
    """Make a training scene of a random seed."""
    return make_rich_scene(int(FIRST_TRAIN_SEED + rng.integers(2**31)), config, indices, words=words)


def crowded(config: RichConfig) -> RichConfig:
    """Return scenes of one frame with many things, each of another kind: what kinds are is learned sooner by them."""
    return replace(config, frames=1, min_objects=9, max_objects=13, mixed=True)


def make_batch(rng: np.random.Generator, config: RichConfig, *, scenes: int, point_share: float) -> MaskBatch:
    """Make one frame of each of `scenes` scenes with its prompts: of things, of several things, and of none.

    Every other scene is a crowded one.
    """
    images, words, owners, points, targets, seen, things = [], [], [], [], [], [], []
    for n in range(scenes):
        look = crowded(config) if n % 2 else config
        scene = random_scene(rng, look, [int(rng.integers(look.frames))], words=False)
        images.append(scene.frames[0])
        masks = scene.masks[:, 0]
        side = config.width // 16
        seen.append(label(shares(masks, side).reshape(len(masks), 1, -1), scene.objects))
        things.append(shares(masks[masks.mean((1, 2)) > SMALLEST], config.width // 4))
        prompts = _prompts(rng, scene.objects, masks, point_share)
        prompts += _standing(rng, scene.description, scene.indices[0], masks)
        for row, where, mask in prompts:
            owners.append(n)
            words.append(row)
            points.append(where)
            targets.append(mask)
    target = torch.from_numpy(np.stack(targets)).float()
    visible = target.mean((1, 2)) > SMALLEST
    return MaskBatch(
        pixels=astc.sam_pixels(np.stack(images)),
        frame=torch.tensor(owners),
        said=Said.of(words),
        points=torch.tensor(np.array(points), dtype=torch.float32),
        target=F.avg_pool2d(target[:, None], 2)[:, 0],
        present=visible.float(),
        seen=CellLabels(
            **{f.name: torch.cat([getattr(s, f.name) for s in seen]) for f in fields(CellLabels)}
        ),
        things=pad_sequence([torch.from_numpy(of) for of in things], batch_first=True),
    )


Prompt = tuple[AttributeRow, NDArray[np.float64], NDArray[np.bool_]]


def _prompts(
    rng: np.random.Generator, looks: tuple[Look, ...], masks: NDArray[np.bool_], point_share: float
) -> list[Prompt]:
    """Return a prompt for each of some visible things, and some that mean several or none."""
    visible = [k for k in range(len(looks)) if masks[k].mean() > SMALLEST]
    chosen = rng.choice(visible, size=_PER_FRAME, replace=False) if len(visible) > _PER_FRAME else visible
    nowhere = np.full((PLACES, 2), np.nan)
    found: list[Prompt] = []
    for k in chosen:
        words = _words(rng, looks[k])
        truth = make_noun(looks, *_order(words)).truth
        exact = any(words) and not (truth == 0).any()
        if rng.random() < point_share or not exact:
            spot = center(masks[k]) if rng.random() < 0.6 else random_pixel(masks[k], rng)
            where = nowhere.copy()
            where[0] = np.clip(np.array(spot) + rng.normal(0, 0.012, 2), 0, 1)
            found.append(((*words, None, False), where, masks[k]))
        else:
            found.append(((*words, None, False), nowhere, masks[truth == 1].any(axis=0)))
    if len(visible) > 1 and rng.random() < 0.4:
        several = rng.choice(visible, size=int(rng.integers(2, min(len(visible), PLACES) + 1)), replace=False)
        where = nowhere.copy()
        where[: len(several)] = [center(masks[k]) for k in several]
        found.append(((None, None, None, None, False), where, masks[several].any(axis=0)))
    empty = np.zeros_like(masks[0])
    if rng.random() < 0.6:
        words = _strange(rng, looks)
        if (make_noun(looks, *_order(words)).truth == -1).all():
            found.append(((*words, None, bool(rng.random() < 0.5)), nowhere, empty))
    if rng.random() < 0.3 or not found:
        # "The red car that turns back", and the red car does not: named, and said not to be there.
        found.append(((*_words(rng, looks[int(rng.integers(len(looks)))]), None, True), nowhere, empty))
    return found


def _standing(
    rng: np.random.Generator, scene: Description, frame: int, masks: NDArray[np.bool_]
) -> list[Prompt]:
    """Return two prompts that say a size and one that says a position, as this frame alone shows them."""
    visible = [k for k in range(len(masks)) if masks[k].mean() > SMALLEST]
    if len(visible) < 2:
        return []
    by_kind: dict[str, dict[str, list[Phrase]]] = {}
    for phrase in standing_phrases(still(scene, frame, visible)):
        by_kind.setdefault(phrase.kind, {}).setdefault(phrase.says, []).append(phrase)
    found: list[Prompt] = []
    rare = [kind for kind in ("several", "absent") if rng.random() < 0.25]
    for kind in ("size", "size", "position", *rare):
        if by_says := by_kind.get(kind):
            of_it = by_says[sorted(by_says)[int(rng.integers(len(by_says)))]]
            phrase = of_it[int(rng.integers(len(of_it)))]
            mask = np.asarray(masks[[visible[k] for k in phrase.targets]].any(axis=0))
            noun = phrase.noun
            row: AttributeRow = (noun.color, noun.name, noun.texture, phrase.says, False)
            found.append((row, np.full((PLACES, 2), np.nan), mask))
    return found


def still(scene: Description, frame: int, things: Sequence[int]) -> Description:
    """Return one frame of a scene as a clip of its own, with these of its things only."""
    tracks = [scene.things[n].track for n in things]
    seen = [replace(k, xy=k.xy[[frame]], radius=k.radius[[frame]], angle=k.angle[[frame]]) for k in tracks]
    camera = Camera(scene.camera.shift[[frame]], scene.camera.zoom[[frame]])
    kept = tuple(replace(scene.things[n], track=track) for n, track in zip(things, seen, strict=True))
    return replace(scene, things=kept, camera=camera)


def standing_phrases(scene: Description) -> list[Phrase]:
    """Return what the sizes and positions of things decide, in themselves and beside the others'."""
    return [
        phrase
        for phrase in phrases_of(scene)
        if not phrase.needs_time and not phrase.anchors and phrase.says not in {"noun", "color"}
    ]


def _order(words: tuple[str | None, str | None, str | None]) -> tuple[str | None, str | None, str | None]:
    """Return colour, texture, name, which is how nouns are made."""
    return words[0], words[2], words[1]


def _words(rng: np.random.Generator, look: Look) -> tuple[str | None, str | None, str | None]:
    """Return colour, name and texture of a thing, each said or not."""
    name = look.kind if rng.random() < 0.75 else KINDS[look.kind].family
    return (
        look.color if rng.random() < 0.55 else None,
        (name or look.kind) if rng.random() < 0.65 else None,
        look.texture if look.texture in TEXTURES and rng.random() < 0.5 else None,
    )


def _strange(rng: np.random.Generator, looks: tuple[Look, ...]) -> tuple[str | None, str | None, str | None]:
    """Return words that are probably true of nothing here."""
    color = str(rng.choice(COLORS)) if rng.random() < 0.7 else None
    name = str(rng.choice(NAMES)) if color is None or rng.random() < 0.5 else None
    if name and rng.random() < 0.4:
        name = looks[int(rng.integers(len(looks)))].kind
    if name and not allowed(color, name):
        name = "shape"  # what is kept from training must not be learned to be absent
    return color, name, None
