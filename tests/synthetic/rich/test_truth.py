"""Every sentence is true of its targets and of nothing else: judged from the pictures, not by the generator."""

from __future__ import annotations

from collections import Counter

from svac_backend.synthetic.rich.nouns import WORDINGS
from svac_backend.synthetic.rich.phrases import GROUPS
from svac_backend.synthetic.rich.scene import RichConfig, make_rich_scene
from tests.synthetic.rich.plain import Plain

COMPARISONS = {
    *("largest", "smallest", "leftmost", "rightmost", "highest", "lowest", "fastest", "slowest", "nearest"),
    *("moves farthest", "farthest from"),
    *(f"{p} to {v}" for p in ("first", "last") for v in ("move", "stop", "enter", "leave")),
}
SHAPES_ONLY = RichConfig(things=False, per_kind=8, split="validation")


def disagreements(config: RichConfig, seeds: range) -> tuple[list[str], Counter[str], Counter[str]]:
    """Return sentences whose plain reading differs, and how often each statement and kind was judged."""
    wrong, said, kinds = [], Counter[str](), Counter[str]()
    for seed in seeds:
        scene = make_rich_scene(seed, config, indices=())
        plain = Plain(scene, config)
        for e in scene.expressions:
            among = plain.candidates(e)
            if e.says in {"noun", "color"}:
                found = tuple(among)
            elif e.says in COMPARISONS:
                best = plain.best(e, among)
                if best is None and e.says in {"largest", "smallest", "nearest", "farthest from"}:
                    continue
                found = () if best is None else (best,)
            else:
                verdicts = {n: plain.says(e, n) for n in among}
                if None in verdicts.values():
                    continue
                found = tuple(n for n in among if verdicts[n])
            said[e.says] += 1
            kinds[e.kind] += 1
            if found != e.targets:
                wrong.append(f"{seed} [{e.kind}/{e.says}] {e.text!r}: meant {e.targets}, seen {found}")
    return wrong, said, kinds


def test_sentences_agree_with_the_pictures() -> None:
    wrong, said, kinds = disagreements(SHAPES_ONLY, range(100))
    assert not wrong, "\n".join(wrong)
    assert set(kinds) == set(GROUPS)
    missing = set(WORDINGS) - set(said)
    assert not missing, missing
