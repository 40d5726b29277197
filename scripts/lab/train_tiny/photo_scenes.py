"""What the stages on sentences learn from: photographs with sentences, seen once by encoders that rest, and kept.

A scene is one picture for SAM-2: composed of several photographs, or a photograph as it is. A clip is what the language
model is given of a video. Both are made once for a work folder; the steps draw from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lab.train_tiny.mask_batch import SMALLEST, random_scene
from lab.train_tiny.photo_nouns import Classify, View, view_of
from lab.train_tiny.photo_words import Sentence, Speaker, varied
from lab.train_tiny.photographs import Photograph
from lab.train_tiny.pseudo_videos import compose
from svac_backend.atomic import atomic_path
from svac_backend.learning.rehearsal import SCENES, sentences_of
from svac_backend.svac import astc
from svac_backend.svac.astc import clip_images, plan
from svac_backend.svac.language.mllm import Mllm, Seen
from svac_backend.svac.language.templates import ChatTemplate
from svac_backend.svac.model import Svac

T = TypeVar("T")
# Scenes or clips of one file: what a kill can cost.
_PART = 50
_ARTICLES = frozenset({"the", "a", "an"})


@dataclass
class Scene:
    """A picture, E different sentences about it, and what the trunk makes of it.

    Attributes:
        image: u8 [S, S, 3].
        fine, coarse: f16 [C, S/16, S/16] and [C', S/32, S/32], the trunk's maps.
        texts: the sentences; kinds: of what kind each is.
        target: u8 [E, S/4, S/4], share of each cell that what is meant covers, of 255.
        things: u8 [K, S/4, S/4], the same of each thing that is seen.
    """

    image: Tensor
    fine: Tensor
    coarse: Tensor
    texts: list[str]
    kinds: list[str]
    target: Tensor
    things: Tensor

    @property
    def visible(self) -> Tensor:
        """Whether anything is seen of what each sentence means, bool [E]."""
        return self.target.flatten(1).float().mean(1) > 255 * SMALLEST


@dataclass
class Clip:
    """What the language model is given of a video, and of a generated one E sentences.

    Attributes:
        tokens: f32 [K, H], the visual tokens of all images.
        texts: E sentences, or none.
    """

    tokens: Tensor
    texts: list[str]


@dataclass
class SceneBatch:
    """n pictures with k sentences about them all; see `Scene`.

    Attributes:
        images: u8 [n, S, S, 3].
        fine, coarse: f32 [n, ...].
        texts: k; owner: i64 [k], their pictures.
        target: f32 [k, S/4, S/4]; visible: f32 [k].
        things: f32 [n, K, S/4, S/4], 0 for no thing.
    """

    images: NDArray[np.uint8]
    fine: Tensor
    coarse: Tensor
    texts: list[str]
    owner: Tensor
    target: Tensor
    visible: Tensor
    things: Tensor


def composed_scene(
    rng: np.random.Generator, photos: Sequence[Photograph], sam: SAM2Base, *, sentences: int = 16
) -> Scene:
    """Compose a picture of photographs, about which something can be said."""
    while True:
        scene = compose(rng, photos, length=2, whole=True)
        images, masks = scene.paint(sam.image_size, [0])
        if said := Speaker(scene.labels, scene.unmarked, images, masks).say(rng, sentences):
            return _scene(sam, images[0], masks[:, 0], said)


def natural_scene(
    rng: np.random.Generator, photo: Photograph, sam: SAM2Base, *, sentences: int = 16
) -> Scene:
    """Show a photograph as it is, whole, as a frame of a video is shown to SAM-2."""
    image, regions = photo.read()
    size = sam.image_size
    image = astc.resize(image, size)
    shares = F.interpolate(torch.from_numpy(regions)[:, None].float(), size=(size, size), mode="area")
    masks = (shares > 0.5).numpy()
    return _scene(
        sam, image, masks[:, 0], Speaker(photo.labels, photo.unmarked, image[None], masks).say(rng, sentences)
    )


@torch.no_grad()
def _scene(
    sam: SAM2Base, image: NDArray[np.uint8], masks: NDArray[np.bool_], said: Sequence[Sentence]
) -> Scene:
    different = {sentence.text: sentence for sentence in said}.values()
    meant = np.zeros((len(different), *masks.shape[1:]), np.bool_)
    for row, sentence in zip(meant, different, strict=True):
        row[:] = masks[list(sentence.regions)].any(0)
    maps = sam.image_encoder.trunk(astc.sam_pixels(image[None]))
    return Scene(
        image=torch.from_numpy(image.copy()),
        fine=maps[2][0].half(),
        coarse=maps[3][0].half(),
        texts=[s.text for s in different],
        kinds=[s.kind for s in different],
        target=_quartered(meant),
        things=_quartered(masks[masks.mean((1, 2)) > SMALLEST]),
    )


def _quartered(masks: NDArray[np.bool_]) -> Tensor:
    """Return masks bool [k, S, S] as shares u8 [k, S/4, S/4] of 255."""
    height, width = masks.shape[1:]
    if not len(masks):
        return torch.zeros(0, height // 4, width // 4, dtype=torch.uint8)
    return (255 * F.avg_pool2d(torch.from_numpy(masks).float()[:, None], 4)[:, 0]).round().to(torch.uint8)


def plain_words(text: str) -> list[str]:
    """Return the words of a sentence without articles and stops."""
    return [word for word in text.lower().replace(".", "").replace(",", "").split() if word not in _ARTICLES]


def rarity(scenes: Sequence[Scene]) -> list[NDArray[np.float64]]:
    """Return how often each sentence of each scene shall be drawn: more often where it has a rare word."""
    counts = Counter(word for s in scenes for text in s.texts for word in set(plain_words(text)))
    rarest = [np.array([min(counts[w] for w in plain_words(t)) for t in s.texts], float) for s in scenes]
    middle = np.median(np.concatenate(rarest))
    return [np.clip(np.sqrt(middle / np.maximum(row, 3)), 0.4, 4.0) for row in rarest]


def draw(
    rng: np.random.Generator,
    scenes: Sequence[Scene],
    weights: Sequence[NDArray[np.float64]],
    *,
    count: int,
    sentences: int,
    mirrored: bool = False,
    visible: bool = False,
) -> SceneBatch:
    """Draw a batch, with sentences in other words now and then.

    Args:
        weights: of each scene's sentences (`rarity`); a scene counts by the greatest of them.
        count: n at most; sentences: of each scene, at most.
        mirrored: left is right, and sentences that say either are left out.
        visible: of what is seen, as far as there is enough.
    """
    most = np.array([row.max() for row in weights])
    chosen: list[Scene] = []
    texts: list[str] = []
    target, owner, seen = [], [], []
    for n in rng.choice(len(scenes), count, p=most / most.sum()):
        scene, weight = scenes[n], weights[n].copy()
        if mirrored:
            weight *= [
                not {"left", "right", "leftmost", "rightmost"} & set(plain_words(t)) for t in scene.texts
            ]
        if visible:
            weight *= np.where(scene.visible, 1.0, 1e-6)
        if not weight.any():
            continue
        few = min(sentences, int((weight > 0).sum()))
        rows = rng.choice(len(weight), few, replace=False, p=weight / weight.sum())
        owner += [len(chosen)] * few
        chosen.append(scene)
        texts += [varied(rng, scene.texts[k]) for k in rows]
        target.append(scene.target[rows].float() / 255)
        seen.append(scene.visible[rows].float())
    maps = [torch.stack([getattr(s, name) for s in chosen]).float() for name in ("fine", "coarse")]
    things = pad_sequence([s.things.float() / 255 for s in chosen], batch_first=True)
    images, drawn = torch.stack([s.image for s in chosen]).numpy(), torch.cat(target)
    if mirrored:
        images = np.ascontiguousarray(images[:, :, ::-1])
        (*maps, things, drawn) = (part.flip(-1) for part in (*maps, things, drawn))
    return SceneBatch(images, maps[0], maps[1], texts, torch.tensor(owner), drawn, torch.cat(seen), things)


@torch.no_grad()
def clip_of(model: Svac, frames: Sequence[NDArray[np.uint8]]) -> Clip:
    """Return what the language model is given of a video of frames u8 [S, S, 3], of the vision tower's size."""
    method, size = model.config.method, model.config.vision.image_size
    clips = plan(len(frames), method)
    images = [
        astc.resize(image, size)
        for number in range(clips.num_clips)
        for image in clip_images([frames[i] for i in clips.clip(number)], method.grid, compress=method.astc)
    ]
    return Clip(model.mllm.visual(images).tokens, [])


def photo_clip(rng: np.random.Generator, photos: Sequence[Photograph], model: Svac) -> Clip:
    """Make a clip of composed photographs."""
    method = model.config.method
    length = method.num_clips * method.frames_per_clip
    scene = compose(rng, photos, length=length, paces=(0.06, 0.25, 0.5), whole=True)
    return clip_of(model, [*scene.paint(model.config.vision.image_size)[0]])


@torch.no_grad()
def generated_clip(rng: np.random.Generator, model: Svac, *, sentences: int = 24) -> Clip:
    """Make a clip of a generated scene with sentences about it."""
    scene = random_scene(rng, SCENES)
    clip = clip_of(model, [*scene.frames])
    clip.texts = [said.text for said in sentences_of(scene.expressions, sentences, rng, easy=0.4)]
    return clip


def said_of(mllm: Mllm, chat: ChatTemplate, clip: Clip, texts: Sequence[str]) -> Tensor:
    """Return each sentence's [SEG]s, [E, N, C]; gradients go through the sentences, not the images."""
    config = mllm.config
    images = config.method.num_clips * config.method.images_per_clip
    chats = [chat.build(text, images, config.method.num_clips) for text in texts]
    with torch.no_grad():
        reading = mllm.begin(chats[0].prefix, Seen(clip.tokens, ()), chat.context_id)
    reading.cache.batch_repeat_interleave(len(texts))
    # Padded at the right, where earlier tokens do not see it.
    ids = pad_sequence([c.suffix for c in chats], batch_first=True)
    language = mllm.language_model
    states: Tensor = language.model(
        inputs_embeds=language.get_input_embeddings()(ids), past_key_values=reading.cache, use_cache=True
    ).last_hidden_state
    at = torch.stack([c.seg for c in chats])
    return mllm.project(states.gather(1, at[..., None].expand(-1, -1, states.shape[-1])))


def kept(
    folder: Path,
    name: str,
    kind: type[T],
    numbers: Iterable[int],
    make: Callable[[np.random.Generator, int], T],
) -> list[T]:
    """Return what `make` makes of a generator and each number, from the folder where it was made before."""
    rows: list[T] = []
    every = [*numbers]
    for start in range(0, len(every), _PART):
        part = every[start : start + _PART]
        path = folder / f"{name}-{part[0]:05d}-{len(part)}.pt"
        if not path.is_file():
            made = [make(np.random.default_rng([11, number]), number) for number in part]
            with atomic_path(path) as file:
                torch.save([{f.name: getattr(row, f.name) for f in fields(kind)} for row in made], file)  # type: ignore[arg-type]
        rows += [kind(**row) for row in torch.load(path, map_location="cpu", weights_only=True)]
    return rows


@dataclass
class Material:
    """What the stages learn from, and what they are judged by.

    Attributes:
        scenes: composed ones, of the photographs that train.
        clips: of such photographs; generated: of generated scenes.
        composed, natural: scenes of photographs kept apart; stills: the clip of each of `natural`.
        clips_apart, generated_apart: clips that train nothing.
        views: photographs as a teacher sees them; none without one.
    """

    scenes: list[Scene]
    clips: list[Clip]
    generated: list[Clip]
    composed: list[Scene]
    natural: list[Scene]
    stills: list[Clip]
    clips_apart: list[Clip]
    generated_apart: list[Clip]
    views: list[View] = field(default_factory=list)
    weights: list[NDArray[np.float64]] = field(init=False)
    phrases: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.weights = rarity(self.scenes)
        self.phrases = sorted({text for scene in self.scenes for text in scene.texts})

    @property
    def judged(self) -> dict[str, list[Scene]]:
        """The scenes that are kept apart, by name."""
        return {"composed": self.composed, "natural": self.natural}


def material(
    model: Svac,
    folder: Path,
    photos: Sequence[Photograph],
    held: Sequence[Photograph],
    *,
    scenes: int = 3800,
    clips: int = 260,
    generated: int = 140,
    judged: int = 60,
    views: int = 4000,
    classify: Classify | None = None,
) -> Material:
    """Make what the stages learn from, or read what was made before, with a model that has learned none of them.

    Args:
        folder: where it is kept.
        photos: that train; held: photographs kept apart.
        scenes, clips, generated: how many of each.
        judged: of each kind of scenes that are kept apart; an eighth of it of clips.
        views: how many a teacher sees; classify: the teacher, or None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sam, apart = model.hint_sam, 10**6
    assert sam is not None
    few = max(1, judged // 8)
    shown = [held[k] for k in np.random.default_rng(8).permutation(len(held))[:judged]]
    natural = kept(
        folder, "natural", Scene, range(len(shown)), lambda rng, n: natural_scene(rng, shown[n], sam)
    )
    natural = [scene for scene in natural if scene.texts]

    def scene(rng: np.random.Generator, n: int) -> Scene:
        return composed_scene(rng, photos if n < apart else held, sam)

    def clip(rng: np.random.Generator, n: int) -> Clip:
        return photo_clip(rng, photos if n < apart else held, model)

    def made(rng: np.random.Generator, _: int) -> Clip:
        return generated_clip(rng, model)

    def view(rng: np.random.Generator, _: int) -> View:
        assert classify is not None
        return view_of(rng, photos, sam, classify)

    length = model.config.method.num_clips * model.config.method.frames_per_clip
    size = model.config.vision.image_size
    return Material(
        scenes=kept(folder, "scenes", Scene, range(scenes), scene),
        clips=kept(folder, "clips", Clip, range(clips), clip),
        generated=kept(folder, "generated", Clip, range(generated), made),
        composed=kept(folder, "composed", Scene, range(apart, apart + judged), scene),
        natural=natural,
        stills=[clip_of(model, [astc.resize(s.image.numpy(), size)] * length) for s in natural],
        clips_apart=kept(folder, "clips", Clip, range(apart, apart + few), clip),
        generated_apart=kept(folder, "generated", Clip, range(apart, apart + few), made),
        views=kept(folder, "views", View, range(views), view) if classify else [],
    )
