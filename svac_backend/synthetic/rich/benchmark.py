"""A benchmark of rich scenes: how it looks, and which of their sentences it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from svac_backend.synthetic.rich.phrases import GROUPS, RichExpression
from svac_backend.synthetic.rich.scene import RichConfig

# 90 videos of these with 8 sentences each are 720 sentences, close to 48 of each of the 15 kinds.
VALIDATION = RichConfig(width=256, height=144, frames=40, split="validation", per_kind=4)
SEEDS = range(5000, 5090)
PER_SCENE = 8


def choose(
    expressions: Sequence[RichExpression], taken: Counter[str], limit: int | None = PER_SCENE
) -> list[RichExpression]:
    """Return the sentences of one scene that bring all kinds nearest to the same number.

    Args:
        expressions: of the scene. Those with the name of a kind that training never shows are left out: no model
            could know the word.
        taken: how many of each kind there are already; the new ones are added.
        limit: at most so many; None takes all.
    """
    rest = [e for e in expressions if "kind" not in e.novel]
    chosen: list[RichExpression] = []
    while rest and (limit is None or len(chosen) < limit):
        # Of two rare kinds the one that speaks of something else comes first.
        said = Counter(e.targets for e in chosen)
        best = min(rest, key=lambda e: (taken[e.kind], said[e.targets]))
        rest.remove(best)
        taken[best.kind] += 1
        chosen.append(best)
    return chosen


def extra_fields(expression: RichExpression) -> dict[str, Any]:
    """Return what an expression's entry holds beside MeViS's fields, ready for JSON."""
    return {
        "kind": expression.kind,
        "group": GROUPS[expression.kind],
        "needs_time": expression.needs_time,
        "says": expression.says,
        "novel": list(expression.novel),
    }
