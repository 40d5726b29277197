"""Rich scenes come from their seed alone, and training never meets what is kept for validation."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from svac_backend.errors import SvacError
from svac_backend.synthetic.rich import kinds
from svac_backend.synthetic.rich.kinds import HELD_OUT_KINDS, KINDS, held_out_pair, plural
from svac_backend.synthetic.rich.nouns import WORDINGS, wordings
from svac_backend.synthetic.rich.phrases import GROUPS
from svac_backend.synthetic.rich.scene import RichConfig, describe, make_rich_scene
from svac_backend.synthetic.scene import SceneConfig, make_scene

pytestmark = pytest.mark.slow

SHAPES = RichConfig(things=False)
VALID = RichConfig(things=False, split="validation", per_kind=8)
needs_font = pytest.mark.skipif(kinds.font_file() is None, reason="Noto Color Emoji is not installed")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not() -> None:
    first, second, other = (make_rich_scene(seed, SHAPES) for seed in (7, 7, 8))
    assert first.frames.tobytes() == second.frames.tobytes()
    assert first.masks.tobytes() == second.masks.tobytes()
    assert first.expressions == second.expressions
    assert first.frames.tobytes() != other.frames.tobytes()


@pytest.mark.parametrize("seed", range(10))
def test_a_subset_equals_the_whole(seed: int) -> None:
    indices = (0, 19, 4)
    whole, part = make_rich_scene(seed, SHAPES), make_rich_scene(seed, SHAPES, indices=indices)
    assert np.array_equal(part.frames, whole.frames[list(indices)])
    assert np.array_equal(part.masks, whole.masks[:, list(indices)])
    assert part.expressions == whole.expressions
    assert part.indices == indices


def test_shapes_types_and_masks_that_do_not_overlap() -> None:
    config = RichConfig(width=96, height=64, frames=7, things=False)
    for seed in range(12):
        scene = make_rich_scene(seed, config)
        count = len(scene.objects)
        assert scene.frames.shape == (7, 64, 96, 3)
        assert scene.frames.dtype == np.uint8
        assert scene.masks.shape == (count, 7, 64, 96)
        assert scene.masks.dtype == np.bool_
        assert scene.masks.sum(axis=0).max() <= 1
        for e in scene.expressions:
            assert np.array_equal(scene.target(e), scene.masks[list(e.targets)].sum(axis=0) > 0)


def test_targets_can_be_seen_and_empty_masks_occur() -> None:
    weak = gone = total = 0
    for seed in range(60):
        scene = make_rich_scene(seed, SHAPES)
        assert 3 <= len(scene.objects) <= 6
        area = scene.masks.sum(axis=(2, 3))
        total += len(area)
        weak += int(((area > 30).mean(axis=1) < 0.3).sum())
        gone += int((area == 0).any(axis=1).sum())
    assert weak <= 0.01 * total
    assert gone >= 0.04 * total


def test_training_never_meets_what_is_held_out() -> None:
    kept = [
        re.sub(r"\{.\}", "", re.sub(r"([\w']+)\|([\w']+)", r"\1", w))
        for key in WORDINGS
        for w in wordings(key, held_out=True)
    ]
    novel = set()
    for seed in range(1_000_000, 1_000_070):
        scene, expressions = describe(seed, SHAPES)
        for thing in scene.things:
            assert thing.look.kind not in HELD_OUT_KINDS
            assert thing.look.color is None or not held_out_pair(thing.look.color, thing.look.kind)
        for e in expressions:
            assert e.novel == ()
            assert e.name not in HELD_OUT_KINDS
            assert not any(w.strip() and w in e.text for w in kept if len(w) > 8), e.text
    for seed in range(40):
        novel |= {word for e in describe(seed, VALID)[1] for word in e.novel}
    assert novel == {"kind", "combination", "wording"}


def test_every_statement_has_words_for_training_and_others_for_validation() -> None:
    for key in WORDINGS:
        train, kept = set(wordings(key, held_out=False)), set(wordings(key, held_out=True))
        assert len(train) >= 2 or key in {"moves farthest"}, key
        assert kept, key
        assert not train & kept, key


def test_sentences_are_whole() -> None:
    for seed in range(40):
        for e in describe(seed, VALID)[1]:
            assert not re.search(r"[{}|*]|  |\ba [aeiou]|\bones? ones?\b", e.text), e.text
            assert e.kind in GROUPS
            assert (e.targets == ()) == (e.kind == "absent")
            assert (len(e.targets) > 1) == (e.kind == "several")


def test_a_scene_says_nothing_twice() -> None:
    for seed in range(40):
        texts = [e.text for e in describe(seed, VALID)[1]]
        assert len(set(texts)) == len(texts)


def test_a_clip_of_one_frame_says_nothing_that_needs_time() -> None:
    for seed in range(20):
        scene = make_rich_scene(seed, RichConfig(frames=1, things=False))
        assert scene.expressions
        assert not any(e.needs_time for e in scene.expressions)


def test_the_plain_scenes_are_what_they_were() -> None:
    """The shipped weights and figures were made with these. Words and layout: pixels depend on OpenCV's build."""
    digest = hashlib.sha256()
    for seed in (0, 7, 10_003, 1_000_001):
        scene = make_scene(seed, SceneConfig(aspects=(1.0, 4 / 3, 16 / 9, 9 / 16)), indices=())
        for spec in scene.objects:
            digest.update(f"{spec.color} {spec.shape} {spec.size} {spec.motion} {spec.rgb}".encode())
            digest.update(np.round(spec.path, 2).astype("<f4").tobytes())
        digest.update("|".join(e.text for e in scene.expressions).encode())
    assert digest.hexdigest() == "c903c7661d9604be67d9faa0e74d009f87232d59fe505a0b2a7eafd815a74213"

    scene = make_scene(7, indices=(10,))
    quarters = [scene.frames[0, y : y + 64, x : x + 64].mean(axis=(0, 1)) for y in (0, 64) for x in (0, 64)]
    means = [[95.99, 100.71, 78.97], [78.54, 88.07, 91.96], [87.17, 90.06, 67.64], [73.99, 87.81, 78.06]]
    assert np.abs(np.array(quarters) - means).max() < 0.1
    assert np.abs(scene.masks.sum(axis=(1, 2, 3)) - [152, 256, 983]).max() <= 2


@pytest.mark.parametrize(
    "change",
    [
        {"width": 8},
        {"frames": 0},
        {"min_objects": 4, "max_objects": 3},
        {"max_objects": 17},
        {"camera": 1.5},
        {"noise": -1.0},
        {"aspects": ()},
        {"split": "test"},
        {"per_kind": 0},
    ],
)
def test_a_senseless_configuration_is_refused(change: dict) -> None:
    with pytest.raises(SvacError):
        RichConfig(**change)


@pytest.mark.parametrize(("seed", "indices"), [(-1, None), (0, (20,)), (0, (-1,))])
def test_seeds_and_indices_out_of_range_are_refused(seed: int, indices: tuple[int, ...] | None) -> None:
    with pytest.raises(SvacError):
        make_rich_scene(seed, SHAPES, indices=indices)


def test_without_the_font_there_are_shapes_only_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for cached in (kinds.has_things, kinds.font_file, kinds.draw_glyph):
        cached.cache_clear()
    monkeypatch.setenv("SVAC_EMOJI_FONT", "/nowhere.ttf")
    try:
        scene = make_rich_scene(3, RichConfig(), indices=(0,))
        assert all(KINDS[look.kind].family == "shape" for look in scene.objects)
        assert "fonts-noto-color-emoji" in caplog.text
        with pytest.raises(SvacError, match="not installed"):
            RichConfig(things=True)
        with pytest.raises(SvacError, match="not installed"):
            kinds.draw_glyph("dog")
    finally:
        for cached in (kinds.has_things, kinds.font_file, kinds.draw_glyph):
            cached.cache_clear()


@needs_font
def test_all_glyphs_have_pictures_in_the_middle() -> None:
    names = [k.name for k in KINDS.values() if k.code]
    assert len(names) >= 60
    for name in names:
        glyph = kinds.draw_glyph(name)
        alpha = glyph.rgba[..., 3].astype(float)
        side = (len(alpha) - 1) / 2
        y, x = np.mgrid[: len(alpha), : len(alpha)]
        assert abs((alpha * x).sum() / alpha.sum() - side) < 1, name
        assert abs((alpha * y).sum() / alpha.sum() - side) < 1, name
    assert "red" in kinds.draw_glyph("apple").colors
    assert "blue" not in kinds.draw_glyph("apple").colors


@needs_font
def test_things_are_drawn_and_named() -> None:
    kinds = {t.look.kind for seed in range(60) for t in describe(seed, RichConfig(things=True))[0].things}
    assert len([k for k in kinds if KINDS[k].code]) > 30
    names = [name for kind in KINDS.values() for name in kind.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("one", "many"),
    [("dog", "dogs"), ("sheep", "sheep"), ("bus", "buses"), ("butterfly", "butterflies"), ("key", "keys")],
)
def test_plurals(one: str, many: str) -> None:
    assert plural(one) == many
