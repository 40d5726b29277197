"""Nouns and wordings: what a thing can be called, of which things that is true, and how what is meant is said.

The wordings of everything that can be said are one table: `key = wording / wording / ...`; a line that begins with
blanks goes on with the line before. A wording that begins with `*` is kept from training. `{n}` is the noun (without
it, the noun comes first), `{b}` the noun without its adjectives, `{c}` its colour, `{x}` and `{y}` are other things
with their article, and `a|b` stands for a in the singular and b in the plural. `noun` and `color` are nouns of which
nothing else is said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.clauses import Truth
from svac_backend.synthetic.rich.description import Look
from svac_backend.synthetic.rich.kinds import (
    FAMILIES,
    HELD_OUT_KINDS,
    KINDS,
    PATTERNED,
    draw_glyph,
    held_out_pair,
    is_a,
    plural,
)

_SAID_TEXTURES = frozenset({"striped", "dotted", "checked"})
# A glyph dyed in the first has parts that could be called by the others.
_SHADES = {"orange": {"brown"}, "yellow": {"orange", "brown"}, "pink": {"red", "purple"}, "cyan": {"blue"}}


@dataclass(frozen=True)
class Noun:
    """A name with what is put before it.

    Attributes:
        color, texture: said before the name, or None.
        name: a kind's first name or a family; None says "object".
        truth: i8 [N].
    """

    color: str | None
    texture: str | None
    name: str | None
    truth: Truth

    @property
    def plain(self) -> bool:
        """Whether it says nothing."""
        return self.color is None and self.texture is None and self.name is None

    @property
    def novel(self) -> tuple[str, ...]:
        """What of it training never says: `kind`, `combination`."""
        found = []
        if self.name in HELD_OUT_KINDS:
            found.append("kind")
        if self.color and self.name in KINDS and held_out_pair(self.color, self.name):
            found.append("combination")
        return tuple(found)


def color_truth(look: Look, color: str) -> int:
    """Return whether a look is called by a colour's name: 1, 0 where people differ, -1."""
    if look.color is None:
        return 0 if color in draw_glyph(look.kind).colors else -1
    if look.color == color:
        return 1
    textured = look.texture in _SAID_TEXTURES and color == look.second
    dyed = KINDS[look.kind].code and color in _SHADES.get(look.color, ())
    return 0 if textured or dyed else -1


def texture_truth(look: Look, texture: str) -> int:
    """Return whether a look is called by a texture's name: 1, 0 where people differ, -1."""
    if look.texture == texture:
        return 1
    return 0 if look.kind in PATTERNED else -1


def name_truth(look: Look, name: str) -> int:
    """Return whether a look is called by a kind's or family's name: 1, 0 where people differ, -1."""
    if name in FAMILIES:
        return 1 if KINDS[look.kind].family == name else -1
    return is_a(look.kind, name)


def make_noun(
    looks: tuple[Look, ...], color: str | None = None, texture: str | None = None, name: str | None = None
) -> Noun:
    """Judge a noun for all things."""
    truth = np.ones(len(looks), np.int8)
    for n, look in enumerate(looks):
        if color is not None:
            truth[n] = min(truth[n], color_truth(look, color))
        if texture is not None:
            truth[n] = min(truth[n], texture_truth(look, texture))
        if name is not None:
            truth[n] = min(truth[n], name_truth(look, name))
    return Noun(color, texture, name, truth)


def nouns_of(looks: tuple[Look, ...]) -> list[Noun]:
    """Return every noun that is true of some thing, the plain one first."""
    said: dict[tuple[str | None, str | None, str | None], None] = {(None, None, None): None}
    for look in looks:
        family = KINDS[look.kind].family or None
        texture = look.texture if look.texture in _SAID_TEXTURES else None
        for name in (None, family, look.kind):
            said[None, None, name] = None
            if look.color:
                said[look.color, None, name] = None
            if texture and name != family:
                said[None, texture, name] = None
    if any(look.color and look.texture in _SAID_TEXTURES for look in looks):
        for look in looks:
            if look.texture in _SAID_TEXTURES:
                said[look.color, look.texture, look.kind] = None
    return [make_noun(looks, color, texture, name) for color, texture, name in said]


_TABLE = """
move left = moving left / that moves|move left / going left / that goes|go left / that is|are moving left /
    heading left / *travelling left / *that heads|head left / moving to the left /
    that moves|move to the left / *going towards the left
enter left = that comes|come in from the left / entering from the left / that enters|enter from the left /
    *that appears|appear from the left side
move right = moving right / that moves|move right / going right / that goes|go right /
    that is|are moving right / heading right / *travelling right / *that heads|head right /
    moving to the right / that moves|move to the right / *going towards the right
enter right = that comes|come in from the right / entering from the right / that enters|enter from the right /
    *that appears|appear from the right side
move up = moving up / that moves|move up / going up / that goes|go up / that is|are moving up / heading up /
    *travelling up / *that heads|head up / that rises|rise / moving upwards / rising / *climbing /
    *going to the top
enter up = that comes|come in from the top / entering from the top / that enters|enter from the top /
    *that appears|appear from the top side
move down = moving down / that moves|move down / going down / that goes|go down / that is|are moving down /
    heading down / *travelling down / *that heads|head down / that sinks|sink / moving downwards /
    coming down / *falling / *going to the bottom
enter down = that comes|come in from the bottom / entering from the bottom /
    that enters|enter from the bottom / *that appears|appear from the bottom side
move up left = moving diagonally to the top left / that moves|move towards the top left / going up and left /
    moving up and to the left / *heading for the top left corner
at top left = in the top left / in the top left corner / at the top left /
    *that stays|stay in the top left corner
move up right = moving diagonally to the top right / that moves|move towards the top right /
    going up and right / moving up and to the right / *heading for the top right corner
at top right = in the top right / in the top right corner / at the top right /
    *that stays|stay in the top right corner
move down left = moving diagonally to the bottom left / that moves|move towards the bottom left /
    going down and left / moving down and to the left / *heading for the bottom left corner
at bottom left = in the bottom left / in the bottom left corner / at the bottom left /
    *that stays|stay in the bottom left corner
move down right = moving diagonally to the bottom right / that moves|move towards the bottom right /
    going down and right / moving down and to the right / *heading for the bottom right corner
at bottom right = in the bottom right / in the bottom right corner / at the bottom right /
    *that stays|stay in the bottom right corner
at left = on the left / on the left side / at the left / that is|are on the left /
    *in the left half of the picture
at right = on the right / on the right side / at the right / that is|are on the right /
    *in the right half of the picture
at top = at the top / near the top / that is|are at the top / *in the top half of the picture
at bottom = at the bottom / near the bottom / that is|are at the bottom / *in the bottom half of the picture
begin at left = that starts|start on the left / that is|are on the left at first /
    that begins|begin on the left / *initially on the left
end at left = that ends|end up on the left / that is|are on the left at the end /
    that finishes|finish on the left / *finally on the left
begin at right = that starts|start on the right / that is|are on the right at first /
    that begins|begin on the right / *initially on the right
end at right = that ends|end up on the right / that is|are on the right at the end /
    that finishes|finish on the right / *finally on the right
begin at top = that starts|start at the top / that is|are at the top at first / that begins|begin at the top /
    *initially at the top
end at top = that ends|end up at the top / that is|are at the top at the end /
    that finishes|finish at the top / *finally at the top
begin at bottom = that starts|start at the bottom / that is|are at the bottom at first /
    that begins|begin at the bottom / *initially at the bottom
end at bottom = that ends|end up at the bottom / that is|are at the bottom at the end /
    that finishes|finish at the bottom / *finally at the bottom
first to move = that is the first to move / that starts moving first /
    that starts first / *that is the first one to get going
first to stop = that stops first / that is the first to stop / that comes to rest first /
    *that is the first one to stand still
first to enter = that enters first / that appears first / that is the first to come in / that comes in first /
    *that is the first one to show up
first to leave = that leaves first / that disappears first / that is the first to go out /
    *that is the first one to vanish
last to move = that is the last to move / that starts moving last / that starts last /
    *that is the last one to get going
last to stop = that stops last / that is the last to stop / that comes to rest last /
    *that is the last one to stand still
last to enter = that enters last / that appears last / that is the last to come in / that comes in last /
    *that is the last one to show up
last to leave = that leaves last / that disappears last / that is the last to go out /
    *that is the last one to vanish
still = that stays|stay still / that does|do not move / standing still / that is|are not moving /
    still {n} / *motionless {n} / *that remains|remain in one place
moving = that moves|move / moving {n} / that is|are moving / in motion / *that is|are on the move
circle = moving in a circle / that moves|move in circles / going around in a circle / circling /
    *that goes|go round and round
turn round = that turns|turn around / that turns|turn back / that goes|go one way and comes|come back /
    turning back / *that reverses|reverse its|their direction
back and forth = moving back and forth / that goes|go back and forth / going to and fro /
    *that keeps|keep turning back
change direction = that changes|change direction / changing direction /
    *that does|do not go straight
bounce = that bounces|bounce / bouncing off the edge / that bounces|bounce off the edge / bouncing /
    *that rebounds|rebound from the border
grow = that grows|grow / growing / that gets|get bigger / getting larger / that becomes|become larger /
    *that is|are increasing in size
shrink = that shrinks|shrink / shrinking / that gets|get smaller / getting smaller /
    that becomes|become smaller / *that is|are decreasing in size
spin = that spins|spin / spinning / spinning {n} / that rotates|rotate / turning around itself|themselves /
    *that whirls|whirl around
start = that starts|start moving / that begins|begin to move / that stands|stand still and then moves|move /
    starting to move / *that sets|set off after a while
stop = that stops|stop / that comes|come to a stop / that moves|move and then stops|stop /
    that stops|stop moving / *that comes|come to a halt
enter = that comes|come in / entering / that enters|enter the picture / that appears|appear later /
    *that comes|come into view
leave = that leaves|leave / leaving the picture / that goes|go out of the picture /
    that disappears|disappear / *that goes|go out of view
whole time = that is|are there the whole time / that stays|stay in the picture /
    that can be seen from start to end / *that never leaves|leave the picture
at middle = in the middle / in the center / at the center / *in the middle of the picture
large = large {n} / big {n} / that is|are large / *huge {n}
small = small {n} / little {n} / that is|are small / *tiny {n}
largest = largest {n} / biggest {n} / that is the largest / *{n} of the largest size
smallest = smallest {n} / tiniest {n} / that is the smallest / *{n} of the smallest size
leftmost = leftmost {n} / {n} farthest to the left / *{n} closest to the left edge
rightmost = rightmost {n} / {n} farthest to the right / *{n} closest to the right edge
highest = highest {n} / topmost {n} / {n} nearest to the top / *uppermost {n}
lowest = lowest {n} / {n} nearest to the bottom / *bottommost {n}
fastest = fastest {n} / that moves fastest / moving the fastest / quickest {n} / *speediest {n}
slowest = slowest {n} / that moves slowest / moving the slowest / *{n} with the lowest speed
moves farthest = that moves the farthest / that goes the longest way / *that covers the greatest distance
left of = to the left of {x} / left of {x} / that is|are to the left of {x} / *on {x}'s left side
right of = to the right of {x} / right of {x} / that is|are to the right of {x} / *on {x}'s right side
above = above {x} / that is|are above {x} / *higher up than {x}
below = below {x} / that is|are below {x} / *lower down than {x}
in front of = in front of {x} / covering {x} / that hides|hide {x} in part / *that is|are before {x}
behind = behind {x} / partly hidden by {x} / that is|are behind {x} / *that {x} covers in part
between = between {x} and {y} / that is|are between {x} and {y} / *with {x} and {y} on either side
nearest = nearest to {x} / closest to {x} / that is nearest to {x} / *at the shortest distance from {x}
farthest from = farthest from {x} / that is farthest from {x} / *most distant from {x}
larger than = larger than {x} / bigger than {x} / that is|are larger than {x} / *exceeding {x} in size
smaller than = smaller than {x} / that is|are smaller than {x} / *not as large as {x}
faster than = faster than {x} / that moves|move faster than {x} / moving faster than {x} /
    *that outpaces|outpace {x}
slower than = slower than {x} / that moves|move slower than {x} / moving slower than {x} /
    *that cannot keep up with {x}
follow = following {x} / that follows|follow {x} / going after {x} / moving along behind {x} /
    *that chases|chase {x}
followed by = followed by {x} / that is|are followed by {x} / that {x} follows / leading {x} /
    *with {x} coming behind
pass = passing {x} / that passes|pass {x} / going past {x} / *that moves|move by {x}
approach = moving towards {x} / that approaches|approach {x} / coming closer to {x} / that goes|go to {x} /
    *drawing near {x}
away = moving away from {x} / that goes|go away from {x} / that leaves|leave {x} behind /
    *getting farther from {x}
noun = {n} / {n} / {n} in the video / *{n} shown here
color = {n} / {n} / {b} that is|are {c} / {n} in the video / *{b} of {c} color
"""


def _read() -> dict[str, tuple[str, ...]]:
    found = {}
    for line in _TABLE.strip().replace("\n    ", " ").splitlines():
        key, _, said = line.partition(" = ")
        found[key] = tuple(wording.strip() for wording in said.split(" / "))
    return found


WORDINGS: dict[str, tuple[str, ...]] = _read()


_GENERIC = ("object", "thing", "one")
_SYNONYM_SHARE, _FRAME_SHARE = 0.2, 0.12
_COMMANDS = ("find {t}", "segment {t}", "show me {t}", "track {t}", "please segment {t}", "{t}.")


def wordings(key: str, *, held_out: bool | None) -> tuple[str, ...]:
    """Return the wordings of a key: those of training, those kept from it, or (None) all."""
    return tuple(w.lstrip("*") for w in WORDINGS[key] if held_out is None or w.startswith("*") == held_out)


def name_of(noun: Noun, rng: np.random.Generator, *, many: bool = False) -> str:
    """Return a noun in words, without article."""
    return " ".join([*_adjectives(noun, rng), _base(noun, rng, many=many)])


def say(
    key: str,
    noun: Noun,
    others: tuple[Noun, ...],
    rng: np.random.Generator,
    *,
    count: int = 1,
    held_out: bool = False,
) -> str:
    """Return a sentence, lower case, nearly always without a full stop.

    Args:
        key: what is said of the noun; `noun` and `color` say nothing else.
        others: the things that it speaks of.
        count: of the things meant; more than one is said in the plural.
        held_out: in words that training does not use.
    """
    many = count > 1
    choice = wordings(key, held_out=held_out)
    template = choice[int(rng.integers(len(choice)))]
    base = _base(noun, rng, many=many)
    text = " ".join([*_adjectives(noun, rng), base])
    named = {slot: f"the {name_of(n, rng)}" for slot, n in zip("xy", others, strict=False)}
    body = template if "{n}" in template or "{b}" in template else "{n} " + template
    body = re.sub(r"([\w']+)\|([\w']+)", r"\2" if many else r"\1", body)
    asks = template.startswith("that ") and template[5] != "{" and rng.random() < _FRAME_SHARE
    if asks and not held_out:
        return body.replace("{n} that ", f"which {text} ").format(**named) + "?"
    article = _article(rng, count) if key in {"noun", "color"} else _the(rng, count)
    said = (article + body).format(n=text, b=base, c=noun.color, **named)
    said = re.sub(r"\ba (?=[aeiou])", "an ", said)
    if rng.random() < _FRAME_SHARE:
        said = _COMMANDS[int(rng.integers(len(_COMMANDS)))].format(t=said)
    return said


def _base(noun: Noun, rng: np.random.Generator, *, many: bool) -> str:
    if noun.name is None:
        name = _GENERIC[int(rng.integers(3))]
    else:
        names = KINDS[noun.name].names if noun.name in KINDS else (noun.name,)
        other = len(names) > 1 and rng.random() < _SYNONYM_SHARE
        name = names[int(rng.integers(1, len(names)))] if other else names[0]
    return plural(name) if many else name


def _adjectives(noun: Noun, rng: np.random.Generator) -> list[str]:
    words = [w for w in (noun.texture, noun.color) if w]
    if noun.color == "gray" and rng.random() < _SYNONYM_SHARE:
        words[-1] = "grey"
    return words[::-1] if len(words) == 2 and rng.random() < 0.3 else words


def _article(rng: np.random.Generator, count: int) -> str:
    if count > 1:
        return _the(rng, count)
    return ("the ", "the ", "the ", "a ", "")[int(rng.integers(5))]


def _the(rng: np.random.Generator, count: int) -> str:
    if count == 1:
        return "the "
    number = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(count)
    choice = (
        ["the ", "all ", "all the "]
        + ([f"the {number} "] if number else [])
        + (["both "] if count == 2 else [])
    )
    return choice[int(rng.integers(len(choice)))]
