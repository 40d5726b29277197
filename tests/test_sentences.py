"""The picture of ten sentences: clips by the rule, verdicts in words, and the README's section."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from svac_backend.synthetic.rich.description import Description, Look
from svac_backend.synthetic.rich.kinds import font_file
from svac_backend.synthetic.rich.scene import describe, make_rich_scene

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "sentences.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("svac_sentences", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scene(script: ModuleType) -> Description:
    if font_file() is None:
        pytest.skip("Noto Color Emoji is not installed")
    return describe(13_015, script.CLIPS)[0]


def test_nouns_mean_all_things_of_their_kind(script: ModuleType, scene: Description) -> None:
    kinds = [thing.look.kind for thing in scene.things]
    animals = tuple(n for n, kind in enumerate(kinds) if kind in ("pig", "cow"))
    assert len(animals) > 1
    assert script.noun("animal", count=len(animals))(scene) == animals
    assert script.noun("animal")(scene) is None
    assert script.noun("elephant", count=0)(scene) == ()
    assert script.noun("cow", count=0)(scene) is None


def test_who_comes_in_first_is_seen_first(script: ModuleType, scene: Description) -> None:
    (first,) = script.said("first to enter", "animal")(scene)
    masks = make_rich_scene(13_015, script.CLIPS).masks
    shown = [int(tube.any(axis=(1, 2)).argmax()) for tube in masks]
    # Things that are there from the start do not come in.
    assert shown[first] == min(frame for frame in shown if frame > 0)
    assert script.said("first to enter", "fruit")(scene) is None
    assert script.said("left of", beside="star")(scene) is None


def test_verdicts(script: ModuleType, scene: Description) -> None:
    made = make_rich_scene(13_015, script.CLIPS)
    nothing = np.zeros_like(made.masks[0])
    name = script.named(made.objects[1])
    assert script.judged(made, (0,), made.masks[0], 100.0)[0] == "right"
    assert script.judged(made, (0,), made.masks[0], 50.0)[0] == "right in part"
    assert script.judged(made, (0,), made.masks[1], 0.0)[0] == f"wrong: the {name} is marked"
    assert script.judged(made, (0,), nothing, 0.0)[0] == "wrong: nothing is marked"
    assert script.judged(made, (), nothing, 100.0)[0] == "right: nothing is marked"
    count = int(made.masks[1].any(axis=(1, 2)).sum())
    said = script.judged(made, (), made.masks[1], 0.0)[0]
    assert said == f"wrong: the {name} is marked on {count} of 40 frames"


def test_names_of_things(script: ModuleType) -> None:
    assert script.named(Look("star", "red", "striped")) == "striped red star"
    assert script.named(Look("dog", None)) == "dog"


def test_the_section_is_put_in_once(script: ModuleType) -> None:
    def text(words: str) -> str:
        return f"{script.BEGIN}\n{words}\n{script.END}\n"

    once = script.published("# Title\n\n## Limits\n\n- none\n", text("one"))
    assert once == f"# Title\n\n{text('one')}\n## Limits\n\n- none\n"
    assert script.published(once, text("two")) == once.replace("one", "two").replace("ntwo", "none")
