"""What people say of photographs: nouns for what is marked on them, by rule.

A noun means a set of labels: "the animal" means whatever is labelled as any. What nobody marked can be neither meant
nor missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.train_tiny.photographs import CLOTHES

COCO = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign parking_meter "
    "bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag tie suitcase frisbee "
    "skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle wine_glass "
    "cup fork knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch "
    "potted_plant bed dining_table toilet tv laptop mouse remote keyboard cell_phone microwave oven toaster sink "
    "refrigerator book clock vase scissors teddy_bear hair_drier toothbrush"
).replace("_", "-")
CATEGORIES = tuple(name.replace("-", " ") for name in COCO.split())

# What a photograph in the street or of a cat does not show, though nobody marked all of it.
_ELSEWHERE = (
    "airplane train boat horse sheep cow elephant bear zebra giraffe surfboard snowboard skis kite pizza donut cake "
    "broccoli carrot banana sandwich toilet oven microwave refrigerator toaster"
)
_NOT_AROUND = frozenset(_ELSEWHERE.split())
THE_REST = "the rest"

_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe"
_VEHICLES = "bicycle car motorcycle airplane bus train truck boat"
_SHOES = "shoes boots clogs flats heels loafers pumps sandals sneakers wedges"
_BAGS = "bag purse handbag"

# Beside every label's own name: other words for a label, and words for several of them.
WORDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("human", "pedestrian", "figure"), ("person",)),
    **dict.fromkeys(("puppy", "hound"), ("dog",)),
    **dict.fromkeys(("kitten", "kitty"), ("cat",)),
    "bike": ("bicycle",),
    "cycle": ("bicycle",),
    "motorbike": ("motorcycle",),
    "automobile": ("car",),
    "plane": ("airplane",),
    "lorry": ("truck",),
    "ship": ("boat",),
    "pony": ("horse",),
    "lamb": ("sheep",),
    "cattle": ("cow",),
    "swan": ("bird",),
    "duck": ("bird",),
    "rucksack": ("backpack",),
    "luggage": ("suitcase",),
    "mug": ("cup",),
    "glass": ("wine glass", "cup"),
    "doughnut": ("donut",),
    "sofa": ("couch",),
    "plant": ("potted plant",),
    "table": ("dining table",),
    "television": ("tv",),
    "screen": ("tv", "laptop"),
    "computer": ("laptop",),
    "phone": ("cell phone",),
    "fridge": ("refrigerator",),
    "teddy": ("teddy bear",),
    "animal": tuple(_ANIMALS.split()),
    "pet": ("dog", "cat"),
    "vehicle": tuple(_VEHICLES.split()),
    "fruit": ("banana", "apple", "orange"),
    "food": (
        "banana",
        "apple",
        "sandwich",
        "orange",
        "broccoli",
        "carrot",
        "hot dog",
        "pizza",
        "donut",
        "cake",
    ),
    "seat": ("chair", "couch", "bench"),
    "bag": tuple(_BAGS.split()),
    "handbag": ("handbag", "purse"),
    "shoes": tuple(_SHOES.split()),
    "footwear": (*_SHOES.split(), "socks"),
    "trousers": ("pants", "jeans"),
    "pants": ("pants", "jeans", "leggings"),
    "jacket": ("jacket", "blazer"),
    "jumper": ("jumper", "sweater", "sweatshirt"),
    "pullover": ("jumper", "sweater", "sweatshirt"),
    "tee": ("t-shirt",),
    "shades": ("sunglasses",),
    "tights": ("tights", "stockings", "leggings"),
}
# What people are called by what they do or are. They take the place of "person" now and then (`photo_words.varied`); as
# words like the others they would make most of what is said be about people.
_PEOPLE = "rider cyclist biker dancer surfer skater driver skier runner player man woman boy girl guy lady child kid"
PEOPLE = tuple(_PEOPLE.split())
# Labels that nobody says, or that mean too much.
_UNSAID = frozenset({"skin", "accessories", "intimate", "ring", "earrings", "hair drier"})
_ONE_FORM = (
    "jeans pants leggings shorts glasses sunglasses stockings socks tights gloves scissors skis trousers cattle "
    "footwear luggage shades food fruit hair broccoli"
)
_PLURAL = frozenset((*_SHOES.split(), *_ONE_FORM.split()))
_IRREGULAR = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "lady": "ladies",
    "child": "children",
    "sheep": "sheep",
    "mouse": "mice",
    "knife": "knives",
    "bus": "buses",
    "sandwich": "sandwiches",
    "bench": "benches",
    "couch": "couches",
    "toothbrush": "toothbrushes",
    "wine glass": "wine glasses",
    "glass": "glasses",
    "dress": "dresses",
    "watch": "watches",
    "lorry": "lorries",
    "puppy": "puppies",
    "kitty": "kitties",
    "pony": "ponies",
    "teddy": "teddies",
}


@dataclass(frozen=True)
class Noun:
    """A word and the labels that it means."""

    word: str
    labels: frozenset[str]

    @property
    def plural(self) -> str:
        """The word for several of them."""
        if self.word in _PLURAL:
            return self.word
        return _IRREGULAR.get(self.word, f"{self.word}s")


NOUNS: tuple[Noun, ...] = (
    *(
        Noun(label, frozenset({label}))
        for label in sorted({*CATEGORIES, *CLOTHES})
        if label not in _UNSAID and label not in WORDS
    ),
    *(Noun(word, frozenset(labels)) for word, labels in WORDS.items()),
)


def sayable(labels: Iterable[str], unmarked: frozenset[str]) -> list[Noun]:
    """Return the nouns for something among these labels, none of which may be there unmarked."""
    there = set(labels)
    return [noun for noun in NOUNS if noun.labels & there and known(noun, there, unmarked)]


def missing(labels: Iterable[str], unmarked: frozenset[str]) -> list[Noun]:
    """Return the nouns for nothing that is there, marked or not."""
    there = set(labels)
    return [
        noun
        for noun in NOUNS
        if not noun.labels & (there | unmarked) and (THE_REST not in unmarked or noun.labels <= _NOT_AROUND)
    ]


def known(noun: Noun, labels: set[str], unmarked: frozenset[str]) -> bool:
    """Say whether everything that the noun means is marked.

    Of photographs on which not everything is, what is marked is taken to be all of its kind.
    """
    return not noun.labels & unmarked
