"""Sentences about photographs: they mean what they say, and nothing is said of what nobody marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lab.train_tiny.photo_phrases import NOUNS, PEOPLE, missing, sayable
from lab.train_tiny.photo_words import COLORS, Sentence, Speaker, color_of, varied
from lab.train_tiny.photographs import CLOTHES, Photograph
from lab.train_tiny.pseudo_videos import compose

RGB = {"red": (200, 30, 30), "blue": (30, 60, 200), "white": (240, 240, 240), "black": (10, 12, 10)}


def picture(*things: tuple[str, tuple[int, int, int, int], str]) -> Speaker:
    """Return who speaks of a grey picture with boxes: labels, (left, top, right, bottom) and colours."""
    frames = np.full((2, 60, 80, 3), 128, np.uint8)
    masks = np.zeros((len(things), 2, 60, 80), np.bool_)
    for mask, (_, (left, top, right, bottom), color) in zip(masks, things, strict=True):
        frames[:, top:bottom, left:right] = RGB[color]
        mask[:, top:bottom, left:right] = True
    return Speaker([label for label, _, _ in things], frozenset({"truck"}), frames, masks)


def told(speaker: Speaker) -> dict[str, Sentence]:
    every = [said for seed in range(8) for said in speaker.say(np.random.default_rng(seed), 500)]
    return {said.text.lower().rstrip("."): said for said in every}


def test_sentences_mean_what_they_say() -> None:
    said = told(
        picture(
            ("car", (2, 5, 30, 25), "red"),
            ("car", (50, 5, 62, 15), "blue"),
            ("dog", (36, 40, 48, 55), "white"),
        )
    )
    meant = {text: sentence.regions for text, sentence in said.items()}
    assert meant["the cars"] == meant["all cars"] == (0, 1)
    assert meant["the dog"] == meant["the puppy"] == meant["the animal"] == (2,)
    assert meant["the red car"] == meant["the leftmost car"] == meant["the largest car"] == (0,)
    assert meant["the blue car"] == meant["the car on the right"] == meant["the car right of the dog"] == (1,)
    assert meant["the white dog"] == (2,)
    assert {sentence.regions for sentence in said.values() if sentence.kind == "several"} == {(0, 1, 2)}
    assert {sentence.regions for sentence in said.values() if sentence.kind == "absent"} == {()}
    assert not {"the car", "the truck", "the trucks", "the vehicle", "the vehicles"} & meant.keys()
    assert {sentence.kind for sentence in said.values()} == {
        *("category", "color", "position", "size", "relation", "several", "absent")
    }


def test_people_are_told_by_their_clothes() -> None:
    people = [("person", (5, 5, 25, 55), "black"), ("person", (50, 5, 70, 55), "black")]
    worn = [("dress", (8, 20, 22, 45), "red"), ("coat", (52, 20, 68, 45), "white")]
    meant = {text: said.regions for text, said in told(picture(*people, *worn)).items()}
    assert meant["the person in the red dress"] == meant["the person in a dress"] == (0,)
    assert meant["the person in the white coat"] == (1,)
    assert meant["the people"] == (0, 1)
    # Of a third one nobody marked the clothes.
    third = ("person", (35, 5, 45, 20), "blue")
    assert not any("in the red" in text for text in told(picture(*people, third, *worn)))


def test_what_is_not_marked_is_neither_meant_nor_missed() -> None:
    there, unmarked = {"person", "dog"}, frozenset({"car", *CLOTHES})
    words = {noun.word for noun in sayable(there, unmarked)}
    assert {"person", "dog", "animal"} <= words
    gone = {noun.word for noun in missing(there, unmarked)}
    assert {"zebra", "bus"} <= gone
    assert not gone & {"car", "vehicle", "dress", "dog", "animal", "person"}
    street = {noun.word for noun in missing(there, frozenset({"the rest"}))}
    assert "elephant" in street
    assert not street & {"bus", "chair", "bicycle"}
    assert {noun.word: noun.plural for noun in NOUNS}["person"] == "people"


@pytest.mark.parametrize("name", ["red", "blue", "white", "black"])
def test_a_colour_is_said_where_most_pixels_have_it(name: str) -> None:
    pixels = np.full((100, 3), RGB[name], np.uint8)
    assert color_of(pixels) == name
    half = pixels.copy()
    half[::2] = RGB["red" if name != "red" else "blue"]
    assert color_of(half) is None
    assert name in COLORS


def photographs() -> list[Photograph]:
    """Return noise with a red square that is a car."""
    import cv2

    found = []
    for number in range(4):
        image = np.random.default_rng(number).integers(90, 160, (80, 100, 3)).astype(np.uint8)
        image[20:60, 30:70] = (0, 0, 250)
        ring = np.array([[30, 20], [69, 20], [69, 59], [30, 59]], np.int32)
        content = cv2.imencode(".png", image)[1].tobytes()
        found.append(Photograph(f"coco/{number}.jpg", content, ("car",), ((ring,),)))
    return found


def test_a_composition_is_painted_at_two_sizes() -> None:
    scene = compose(np.random.default_rng(3), photographs(), length=4, whole=True)
    small, large = scene.paint(32)[1], scene.paint(64, [1, 3])[1]
    again = torch.nn.functional.avg_pool2d(torch.from_numpy(large).float(), 2) > 0.5
    assert (again.numpy() == small[:, [1, 3]]).mean() > 0.97


def test_the_same_is_said_in_other_words() -> None:
    rng = np.random.default_rng(0)
    people = {varied(rng, "the person") for _ in range(400)}
    assert {"the person", "the rider", "the woman", "the person dancing"} <= people
    assert not any(" person" not in text and text.split()[1] not in PEOPLE for text in people)
    assert {"all men", "all children", "all people in the street"} <= {
        varied(rng, "all people") for _ in range(2000)
    }
    # Nothing is said instead of other nouns, and nothing is added to what says already where it is.
    assert {text.split()[1] for text in (varied(rng, "the dog") for _ in range(100))} == {"dog"}
    assert {varied(rng, "the person in the red dress") for _ in range(100)} == {"the person in the red dress"}


def test_nothing_is_said_of_nothing() -> None:
    frames = np.full((1, 20, 20, 3), 128, np.uint8)
    every = frozenset(label for noun in NOUNS for label in noun.labels)
    assert (
        Speaker([], every, frames, np.zeros((0, 1, 20, 20), np.bool_)).say(np.random.default_rng(0), 5) == []
    )
