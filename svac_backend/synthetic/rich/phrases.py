"""Expressions of a rich scene: every one is true of exactly the things that it means, by a margin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from svac_backend.synthetic.rich.clauses import Clause, Truth, own_clauses
from svac_backend.synthetic.rich.description import Description, Look, events_of, measure
from svac_backend.synthetic.rich.kinds import FAMILIES, KINDS, allowed
from svac_backend.synthetic.rich.nouns import Noun, make_noun, nouns_of, say, wordings
from svac_backend.synthetic.rich.relations import Comparison, comparisons, relation_clauses
from svac_backend.synthetic.shapes import COLORS

# Kind -> the group that figures are reported by.
GROUPS: dict[str, str] = {
    "category": "category",
    "color": "appearance",
    "color_category": "appearance",
    "texture": "appearance",
    "size": "appearance",
    "position": "position",
    "motion": "time",
    "change": "time",
    "speed": "time",
    "presence": "time",
    "order": "time",
    "relation": "relation",
    "relation_time": "relation",
    "several": "several",
    "absent": "absent",
}
_ANCHORS = 4


@dataclass(frozen=True)
class RichExpression:
    """A sentence and what it means.

    Attributes:
        text: the sentence.
        kind: a key of `GROUPS`.
        targets: the things that it means, ascending; none for `absent`.
        needs_time: whether one frame, however well chosen, is not enough to know.
        says: what it says of the noun, a key of `wording`; `noun` or `color` where it says nothing.
        color, texture, name: what the noun says, or None.
        anchors: the other things that it speaks of.
        novel: what of it training never meets: `kind`, `combination`, `wording`.
    """

    text: str
    kind: str
    targets: tuple[int, ...]
    needs_time: bool
    says: str
    color: str | None = None
    texture: str | None = None
    name: str | None = None
    anchors: tuple[int, ...] = ()
    novel: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrase:
    """An expression before the words are chosen; `truth` is of the whole."""

    noun: Noun
    says: str
    kind: str
    truth: Truth
    needs_time: bool
    anchors: tuple[int, ...] = ()

    @property
    def targets(self) -> tuple[int, ...]:
        """The things that it means."""
        return tuple(int(n) for n in np.flatnonzero(self.truth == 1))


def phrases_of(scene: Description) -> list[Phrase]:
    """Return everything that can be said of a scene without doubt; see the module."""
    looks = tuple(thing.look for thing in scene.things)
    nouns = nouns_of(looks)
    names = anchor_nouns(nouns, len(looks))
    facts = measure(scene)
    events = events_of(facts)
    anchors = [n for n in names if facts.observed[n].mean() >= 0.5][:_ANCHORS]
    clauses = [*own_clauses(facts, events), *relation_clauses(facts, anchors)]
    return [*_bare(nouns, looks), *_stated(nouns, clauses, list(comparisons(facts, events, anchors)))]


def expressions_of(
    scene: Description, rng: np.random.Generator, *, train: bool, per_kind: int = 3
) -> list[RichExpression]:
    """Return some expressions of every kind that the scene offers.

    Args:
        scene: what they are about.
        rng: chooses phrases and words.
        train: use no name, combination or wording that is kept for validation.
        per_kind: at most so many of a kind.
    """
    looks = tuple(thing.look for thing in scene.things)
    names = anchor_nouns(nouns_of(looks), len(looks))
    by_kind: dict[str, dict[str, list[Phrase]]] = {}
    for phrase in phrases_of(scene):
        if train and _novel(phrase, names):
            continue
        by_kind.setdefault(phrase.kind, {}).setdefault(phrase.says, []).append(phrase)
    result = []
    for kind in sorted(by_kind):
        # First what is said, then of what: else the many nouns of one statement would drown the others.
        groups = [by_kind[kind][says] for says in sorted(by_kind[kind])]
        order = rng.permutation(len(groups)).tolist()
        bare = [n for n in order if groups[n][0].says in {"noun", "color"}]
        if bare and rng.random() < 0.6:
            order.insert(0, bare[0])
        for turn in range(per_kind):
            group = groups[order[turn % len(order)]]
            if group:
                phrase = group.pop(int(rng.integers(len(group))))
                result.append(_spoken(phrase, names, rng, train=train))
    return list({e.text: e for e in reversed(result)}.values())[::-1]


def _spoken(
    phrase: Phrase, names: dict[int, Noun], rng: np.random.Generator, *, train: bool
) -> RichExpression:
    others = tuple(names[x] for x in phrase.anchors)
    odd = bool(not train and wordings(phrase.says, held_out=True) and rng.random() < 0.3)
    text = say(phrase.says, phrase.noun, others, rng, count=max(1, len(phrase.targets)), held_out=odd)
    return RichExpression(
        text,
        phrase.kind,
        phrase.targets,
        phrase.needs_time,
        phrase.says,
        phrase.noun.color,
        phrase.noun.texture,
        phrase.noun.name,
        phrase.anchors,
        _novel(phrase, names) + (("wording",) if odd else ()),
    )


def _novel(phrase: Phrase, names: dict[int, Noun]) -> tuple[str, ...]:
    nouns = [phrase.noun, *(names[x] for x in phrase.anchors)]
    return tuple(sorted({word for noun in nouns for word in noun.novel}))


def anchor_nouns(nouns: list[Noun], count: int) -> dict[int, Noun]:
    """Return for every thing that a noun alone singles out the shortest such noun."""
    found: dict[int, Noun] = {}
    for noun in sorted(nouns, key=lambda n: (n.name is None, bool(n.color) + bool(n.texture))):
        if (noun.truth == 1).sum() == 1 and (noun.truth == -1).sum() == count - 1:
            found.setdefault(int(noun.truth.argmax()), noun)
    return dict(sorted(found.items()))


def _bare(nouns: list[Noun], looks: tuple[Look, ...]) -> Iterator[Phrase]:
    """Return phrases that are a noun alone, and those of things that are not there."""
    by_words = {(n.color, n.texture, n.name): n for n in nouns}
    for noun in nouns:
        if noun.plain or (noun.truth == 0).any():
            continue
        says = "color" if noun.color and not noun.texture else "noun"
        many = int((noun.truth == 1).sum())
        if many > 1:
            if many < len(looks) or noun.name:
                yield Phrase(noun, says, "several", noun.truth, False)
            continue
        # Words that single it out alone make the others idle; then the shorter phrase stands for both.
        parts = [
            by_words.get(words)
            for words in ((None, None, noun.name), (noun.color, None, None), (None, noun.texture, None))
            if any(words) and words != (noun.color, noun.texture, noun.name)
        ]
        if any(part is not None and not part.plain and (part.truth == noun.truth).all() for part in parts):
            continue
        kind = "texture" if noun.texture else "color" if noun.color else "category"
        yield Phrase(
            noun, says, "color_category" if kind == "color" and noun.name else kind, noun.truth, False
        )
    yield from _nowhere(looks)


def _nowhere(looks: tuple[Look, ...]) -> Iterator[Phrase]:
    """Return nouns of things that could be there and are not: a colour, a kind, or both of them apart."""
    here = {look.kind for look in looks}
    families = {KINDS[k].family for k in here}
    shown = sorted({look.color for look in looks if look.color})
    rest = [c for c in COLORS if c not in shown]
    kin = [k for k in KINDS if k not in here and KINDS[k].family in families and allowed(None, k)]
    start = sum(map(ord, "".join(sorted(here) + shown)))
    tries: list[tuple[str | None, str | None]] = [(c, k) for c in shown for k in sorted(here)]
    tries += [(rest[(start + n) % len(rest)], k) for n, k in enumerate(sorted(here))]
    tries += [(rest[(start + n) % len(rest)], None) for n in range(2)]
    tries += [(None, kin[(start + 7 * n) % len(kin)]) for n in range(3) if kin]
    tries += [(None, f) for f in FAMILIES if f not in families]
    for color, name in dict.fromkeys(tries):
        noun = make_noun(looks, color, None, name)
        if (noun.truth == -1).all():
            yield Phrase(noun, "color" if color else "noun", "absent", noun.truth, False)


def _stated(nouns: list[Noun], clauses: list[Clause], superlatives: list[Comparison]) -> Iterator[Phrase]:
    """Return phrases of each noun that could mean several things, and a clause or superlative."""
    statements = np.stack([clause.truth for clause in clauses])
    for noun in nouns:
        if noun.texture or (noun.truth >= 0).sum() < 2:
            continue
        yield from _with_clauses(noun, clauses, statements)
        for comparison in superlatives:
            yield from _with_comparison(noun, comparison)


def _with_clauses(noun: Noun, clauses: list[Clause], statements: Truth) -> Iterator[Phrase]:
    """Return phrases of a noun and each clause; `statements` are their truths, i8 [K, N]."""
    truths = np.minimum(noun.truth, statements)
    # Without the clause it would mean the same: then the clause is idle.
    certain = (truths != 0).all(axis=1) & (truths != noun.truth).any(axis=1)
    counts = (truths == 1).sum(axis=1)
    for k in np.flatnonzero(certain).tolist():
        clause, truth, count = clauses[k], truths[k], int(counts[k])
        if count == 1:
            yield Phrase(noun, clause.key, clause.kind, truth, clause.needs_time, clause.anchors)
        elif count > 1:
            yield Phrase(noun, clause.key, "several", truth, clause.needs_time, clause.anchors)
        elif (noun.truth == 1).any() and ((clause.truth == 1).any() or not noun.plain):
            yield Phrase(noun, clause.key, "absent", truth, clause.needs_time, clause.anchors)


def _with_comparison(noun: Noun, comparison: Comparison) -> Iterator[Phrase]:
    truth = comparison.among(noun.truth)
    if truth is not None:
        yield Phrase(noun, comparison.key, comparison.kind, truth, comparison.needs_time, comparison.anchors)
