"""Nouns for what no mask shows: a classifier of ImageNet's classes says where on a photograph they might be.

Masks know the names of some 140 things. A classifier that looks at each cell of a photograph says how much it looks
like a camel, even where it is a dog. A linear map from the trunk's coarse maps to what it says also holds for things
that are on none of the photographs; a deeper one, trained on the same, does not. So the cells that a [SEG] is compared
with begin with that map (`begin`), and are kept near it while they learn masks (`NounLesson`).

The teacher is MobileNetV2 as TensorFlow Lite's quantised file (Apache-2.0), run by the package `ai-edge-litert`. Its
answers are labels to learn from; neither the file nor values made from it are part of a model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from lab.train_tiny.photographs import Photograph
from svac_backend.errors import SvacError
from svac_backend.svac import astc
from svac_backend.svac.sam.matching import SegMatching

# What people call things, and the numbers of ImageNet's classes that it means, as ranges; counted from 0.
_TABLE = """
fish: 0-1,389,391-397; goldfish: 1; shark: 2-4; stingray: 5-6; rooster: 7; hen: 8; chicken: 7-8; ostrich: 9
bird: 7-24,80-100,127-146; owl: 24; eagle: 22; vulture: 23; parrot: 87-90; peacock: 84; hummingbird: 94; duck: 97-98
goose: 99; swan/black swan: 100; stork: 127-128; flamingo: 130; heron: 131-132; crane: 134,517; pelican: 144
penguin: 145; frog: 30-32; turtle: 33-37; tortoise: 37; lizard: 38-48; crocodile: 49-50; dinosaur: 51; snake: 52-68
scorpion: 71; spider: 72-77; kangaroo: 104; koala: 105; jellyfish: 107; snail: 113; crab: 118-121; lobster: 122-123
whale: 147-148; dolphin: 148; seal: 150; dog/puppy: 151-268; wolf: 269-272; fox: 277-280; cat/kitten: 281-285
leopard: 288-290; lion: 291; tiger: 292; cheetah: 293; bear: 294-297; polar bear: 296; ladybug: 301; beetle: 302-307
fly: 308; bee: 309; ant: 310; grasshopper: 311; dragonfly: 319-320; butterfly: 321-326; starfish: 327
rabbit: 330-332; hamster: 333; hedgehog: 334; squirrel: 335; guinea pig: 338; horse: 339; zebra: 340; pig: 341-342
hippo: 344; cow: 345-346; ox: 345; buffalo: 346-347; sheep: 348-349; ram: 348; goat: 349-350; antelope/deer: 351-353
camel: 354; llama: 355; otter: 360; orangutan: 365; gorilla: 366; chimpanzee: 367; monkey: 368-382
elephant: 101,385-386; red panda: 387; panda: 388; accordion: 401; guitar: 402,546; ship: 403,510,628
airplane/plane/jet: 404,895; airship: 405; ambulance: 407; trash can: 412; rifle: 413,764; backpack: 414
balloon: 417; banjo: 420; barbell: 422; barrel: 427,756; wheelbarrow: 428; baseball: 429; basketball: 430
bathtub: 435,876; station wagon: 436; lighthouse: 437; bottle: 440,720,737,898,901,907; wine bottle: 907; beer: 441
bicycle/bike: 444,671; bikini: 445; binoculars: 447; bookcase: 453; broom: 462; bucket: 463; train: 466,547,820,829
taxi: 468; candle: 470; cannon: 471; canoe/kayak: 472; sweater: 474,841; box: 478; wheel: 479; castle: 483
catamaran: 484; cello: 486; phone: 487,528; cell phone: 487; church: 497; coffee mug/mug: 504; cup: 504,968
keyboard: 508; convertible: 511; hat: 515,808; helmet: 518,560; crib: 520; desk: 526; computer: 527,620,664
diaper: 529; watch: 531; table/dining table: 532; dishwasher: 534; sled: 450,537; drum: 541; dumbbell: 543; fan: 545
fire truck: 555; chair: 559,765; forklift: 561; fountain: 562; pan: 567; garbage truck: 569; go-kart: 573
golf cart: 575; golf ball: 574; gown: 578; piano: 579,881; hammer: 587; harp: 594; horse cart/carriage: 603
rickshaw: 612; jeans: 608; jeep: 609; jersey: 610; joystick: 613; kimono: 614; lab coat: 617; lamp: 619,846
laptop: 620; lawn mower: 621; limousine: 627; mailbox: 637; mask: 643; microphone: 650; microwave: 651
miniskirt: 655; skirt: 655,689; minibus: 654; minivan: 656; van: 656,675,734; moped: 665; scooter/motor scooter: 670
motorcycle/motorbike: 665,670; mountain bike: 671; tent: 672; computer mouse: 673; paddle: 693; parachute: 701
bench: 703; parking meter: 704; fence: 489,716,912; pickup truck: 717; pillow: 721; vase: 883; pitcher: 725
pot: 738; printer: 742; purse/handbag: 748; race car/racing car: 751; tennis racket/racket: 752
refrigerator/fridge: 760; remote control/remote: 761; shoes: 630,770,774; sneaker: 770; sandal: 774; saxophone: 776
school bus: 779; sailboat: 484,780,871,914; boat: 472,484,554,576,625,780,814,914; screwdriver: 784
sewing machine: 786; shopping cart: 791; shovel: 792; ski/skis/skier: 795; sleeping bag: 797; snowmobile: 802
snowplow: 803; soccer ball: 805; football: 768,805; sock: 806; speedboat: 814; sports car: 817; stove/oven: 827
tram: 829; couch/sofa: 831; submarine: 833; suit: 834; sunglasses: 836-837; sweatshirt: 841; swing: 843; tank: 847
teapot: 849; teddy bear: 850; television/tv: 664,851; tennis ball: 852; toaster: 859; toilet: 861; tractor: 866
truck: 555,569,675,717,864,867; trailer: 757,867; tray: 868; trench coat: 869; coat: 568,869; tricycle: 870
trombone: 875; trumpet: 513; umbrella: 879; unicycle: 880; vacuum cleaner: 882; violin: 889; volleyball: 890
clock: 409,530,892; wallet: 893; warplane: 895; sink: 896; washing machine: 897
car/automobile: 436,468,511,609,627,656,661,751,817
vehicle: 407,436,468,511,555,569,609,627,654,656,661,675,717,734,751,779,817,829,864,866-867,874; bus: 654,779,874
caravan: 757; traffic light: 920; street sign/sign: 919; book: 917,921; plate: 923; ice cream: 928; bread: 930
bagel: 931; burger: 933; hot dog: 934; cabbage: 936; broccoli: 937; cucumber: 943; mushroom: 947,992; apple: 948
strawberry: 949; orange: 950; lemon: 951; pineapple: 953; banana: 954; pizza: 963; burrito: 965; bubble: 971
baseball player: 981; diver: 983; flower: 985-986; corn: 987,998; animal: 7-24,80-100,127-146,151-300,330-388
"""
# The teacher's tensors: what a cell is described by, and the classes' weights and biases over that.
_CELLS, _WEIGHTS, _BIASES, _SIDE = 168, 170, 2, 224
# How much louder a thing of one kind than the noise of all cells must be, for a cell to count as such a thing.
_CLEAR = 2.5
# Channels of the cells that carry the linear map: GELU is a straight line so far above 0.
_CHANNELS, _ABOVE = 112, 5.0
# What a noun's loss counts where masks know it as well.
_KNOWN = 0.3

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def _nouns() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for entry in _TABLE.replace("\n", ";").split(";"):
        if not entry.strip():
            continue
        words, numbers = entry.strip().split(": ")
        classes: list[int] = []
        for part in numbers.split(","):
            first, _, last = part.partition("-")
            classes += range(int(first), int(last or first) + 1)
        found |= dict.fromkeys(words.split("/"), tuple(classes))
    return found


# Each noun's classes.
NOUN_CLASSES = _nouns()
TEACHER_NOUNS = tuple(NOUN_CLASSES)


def read_teacher(path: Path) -> Classify:
    """Return what says how much each cell of a picture u8 [h, w, 3] RGB looks like each class, f32 [7, 7, 1000].

    Args:
        path: `mobilenet_v2_1.0_224_quant.tflite`.

    Raises:
        SvacError: the package or the file is missing, or the file is another.
    """
    try:
        lite = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise SvacError(
            "The package that runs the teacher is missing.", "Run: pip install ai-edge-litert"
        ) from error
    if not path.is_file():
        raise SvacError(f"There is no teacher at {path}.", "Name mobilenet_v2_1.0_224_quant.tflite.")
    # Its answers are of the whole picture; the cells are a tensor on the way there.
    runs = lite.Interpreter(str(path), num_threads=1, experimental_preserve_all_tensors=True)
    runs.allocate_tensors()
    details = {row["index"]: row for row in runs.get_tensor_details()}
    shapes = [tuple(details[k]["shape"]) if k in details else () for k in (_CELLS, _WEIGHTS, _BIASES)]
    if shapes != [(1, 7, 7, 1280), (1001, 1, 1, 1280), (1001,)]:
        raise SvacError(f"{path.name} is not the teacher.", "Name mobilenet_v2_1.0_224_quant.tflite.")

    def read(index: int) -> NDArray[np.float32]:
        scale, zero = details[index]["quantization"]
        values: NDArray[np.float32] = (runs.get_tensor(index).astype(np.float32) - zero) * scale
        return values

    weights, biases = read(_WEIGHTS).reshape(1001, 1280), read(_BIASES)

    def classify(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        runs.set_tensor(0, cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)[None])
        runs.invoke()
        return (read(_CELLS)[0] @ weights.T + biases)[..., 1:]  # the first class is "background"

    return classify


def noun_logits(classes: NDArray[np.float32]) -> Tensor:
    """Return how much each cell looks like each noun, f32 [N, 7, 7], of classes [7, 7, 1000]."""
    logits = torch.from_numpy(classes)
    return torch.stack([logits[..., list(NOUN_CLASSES[noun])].logsumexp(-1) for noun in TEACHER_NOUNS])


@dataclass
class View:
    """A photograph or a part of it.

    Attributes:
        fine, coarse: f16 [C, S/16, S/16] and [C', S/32, S/32], the trunk's maps.
        nouns: f16 [N, 7, 7], what the teacher says (`noun_logits`).
    """

    fine: Tensor
    coarse: Tensor
    nouns: Tensor


@torch.no_grad()
def view_of(
    rng: np.random.Generator, photos: Sequence[Photograph], sam: SAM2Base, classify: Classify
) -> View:
    """Look at a photograph: at all of it or at a part, mirrored or not, in other light now and then."""
    image = photos[int(rng.integers(len(photos)))].read()[0]
    if rng.random() < 0.7:
        height, width = image.shape[:2]
        side, ratio = rng.uniform(0.3, 0.95) * min(height, width), np.exp(rng.uniform(-0.4, 0.4))
        tall, wide = int(min(height, side * ratio)), int(min(width, side / ratio))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        image = image[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        image = image[:, ::-1]
    if rng.random() < 0.4:
        tint = rng.uniform(0.6, 1.3, 3 if rng.random() < 0.3 else 1)
        image = np.clip(image * tint + rng.uniform(-20, 20), 0, 255).astype(np.uint8)
    image = np.ascontiguousarray(image)
    maps = sam.image_encoder.trunk(astc.sam_pixels(astc.resize(image, sam.image_size)[None]))
    return View(maps[2][0].half(), maps[3][0].half(), noun_logits(classify(image)).half())


@dataclass
class NounBatch:
    """A step's n views.

    Attributes:
        fine, coarse: f32 [n, ...], as of `View`.
        goal: f32 [n, N, S/16, S/16], logits of each noun; texts: the N nouns.
    """

    fine: Tensor
    coarse: Tensor
    goal: Tensor
    texts: list[str]


class NounLesson:
    """What the cells learn of nouns, beside masks.

    Args:
        views: at least a few hundred.
        known: phrases that masks know.

    Attributes:
        slopes: f32 [C', N], the linear map from coarse maps of mean 0 and deviation 1, in deviations of what it says.
    """

    def __init__(self, views: Sequence[View], known: Sequence[str] = ()) -> None:
        self.views = views
        coarse = torch.stack([view.coarse for view in views]).float()
        nouns = torch.stack([view.nouns for view in views]).float()
        cells = F.adaptive_avg_pool2d(coarse, nouns.shape[-1]).movedim(1, -1).flatten(0, 2)
        self.mean, self.deviation = cells.mean(0), cells.std(0) + 1e-3
        cells = (cells - self.mean) / self.deviation
        said = nouns.movedim(1, -1).flatten(0, 2)
        said = (said - said.mean(0)) / (said.std(0) + 1e-3)
        ridge = cells.T @ cells + 0.03 * len(cells) * torch.eye(cells.shape[1])
        slopes = torch.linalg.solve(ridge, cells.T @ said)
        found = cells @ slopes
        self.slopes = slopes / found.std(0)
        # Directions in which what it says differs most.
        self._basis = torch.linalg.svd(found[::25] / found.std(0), full_matrices=False).Vh[:_CHANNELS]
        self._spread = (cells @ (self.slopes @ self._basis.T)).std(0)
        phrases = {*known}
        self._weight = torch.tensor(
            [_KNOWN if {noun, f"the {noun}"} & phrases else 1.0 for noun in TEACHER_NOUNS]
        )

    @torch.no_grad()
    def begin(self, matching: SegMatching) -> None:
        """Have the first of the cells' channels carry the linear map, whatever masks make of the others."""
        few = len(self._basis)
        directions = (self.slopes @ self._basis.T) / self._spread  # [C', few]
        matching.coarse.weight[:few] = (directions / self.deviation[:, None]).T[..., None, None]
        assert matching.coarse.bias is not None
        assert matching.fine.bias is not None
        assert matching.around.bias is not None
        assert matching.out.bias is not None
        matching.coarse.bias[:few] = _ABOVE - (self.mean / self.deviation) @ directions
        for layer in (matching.fine, matching.place, matching.around):
            layer.weight[:few] = 0
        matching.fine.bias[:few] = 0
        matching.around.bias[:few] = -3  # nothing, after GELU
        matching.out.weight[:few, :few] = torch.eye(few)[..., None, None]
        matching.out.weight[:few, few:] *= 0.5
        matching.out.bias[:few] = -_ABOVE

    @torch.no_grad()
    def goal(self, coarse: Tensor) -> Tensor:
        """Return logits f32 [n, N, S/16, S/16] of each cell's being each noun, of maps [n, C', S/32, S/32]."""
        cells = (coarse - self.mean[:, None, None]) / self.deviation[:, None, None]
        said = torch.einsum("nchw,ck->nkhw", cells, self.slopes)
        said = F.interpolate(said, scale_factor=2.0, mode="bilinear", align_corners=False)
        return (said - _CLEAR).clamp(-4.5, 4.0)

    def batch(self, rng: np.random.Generator, *, count: int = 10) -> NounBatch:
        """Draw views, of which some channels are lost."""
        few = [self.views[int(k)] for k in rng.integers(len(self.views), size=count)]
        fine, coarse = (torch.stack([getattr(v, name) for v in few]).float() for name in ("fine", "coarse"))
        texts = [f"the {noun}" for noun in TEACHER_NOUNS] if rng.random() < 0.5 else [*TEACHER_NOUNS]
        return NounBatch(thinned(rng, fine, 0.05), thinned(rng, coarse, 0.1), self.goal(coarse), texts)

    def loss(self, matching: SegMatching, words: nn.Module, batch: NounBatch) -> Tensor:
        """Judge what the cells say of every noun."""
        cells, seg = matching.cells(batch.fine, batch.coarse), words(batch.texts)
        alike = torch.einsum("ndhw,kd->nkhw", cells, matching.query(seg)) / matching.SCALE
        found = alike + matching.bias(seg)[..., None]
        # A noun is seldom there: where it is counts more.
        weight = (1 + 4 * (batch.goal > -1)) * self._weight[:, None, None]
        return (weight * F.smooth_l1_loss(found, batch.goal, reduction="none")).mean()


def thinned(rng: np.random.Generator, maps: Tensor, share: float) -> Tensor:
    """Return maps [n, C, h, w] without this share of their channels, the others louder."""
    stays = torch.from_numpy(rng.random(maps.shape[:2]) >= share)[..., None, None]
    return maps * stays / (1 - share)
