"""The embedded model's training: what it is taught is true, and the packed sequence equals single ones."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lab.train_tiny import recipe
from lab.train_tiny.clip_batch import STORY, _decide, make_clip_batch
from lab.train_tiny.heads import CellHead
from lab.train_tiny.language_loss import LookingHeads, language_loss, visual_of
from lab.train_tiny.mask_batch import (
    EXTENTS,
    SMALLEST,
    CellLabels,
    crowded,
    label,
    make_batch,
    shares,
    standing_phrases,
    still,
)
from lab.train_tiny.oracle import NAMES, SAYS, AttributeRow, Oracle, Said, place, places
from lab.train_tiny.packed import run_packed
from lab.train_tiny.tokenizer import train_tokenizer

from svac_backend.learning.rehearsal import sentences_of
from svac_backend.svac.config import LanguageConfig, VisionConfig
from svac_backend.svac.language.chat_formats import IMG_CONTEXT, SEG
from svac_backend.svac.language.mllm import Seen
from svac_backend.svac.model import Svac
from svac_backend.svac.sam.grounding import build_sam
from svac_backend.synthetic.rich.clauses import own_clauses
from svac_backend.synthetic.rich.description import Look, events_of, measure
from svac_backend.synthetic.rich.kinds import HELD_OUT_KINDS, KINDS
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.relations import comparisons
from svac_backend.synthetic.rich.scene import make_rich_scene
from svac_backend.synthetic.shapes import COLORS

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
# Small pictures: what is tested here does not depend on their size.
SMALL = replace(recipe.SMALL, width=64, height=64)


@pytest.fixture(scope="module")
def model(tokenizer_file: Path) -> Svac:
    torch.manual_seed(0)
    return Svac(recipe.CONFIG, tokenizer_file).eval()


def test_packed_sentences_equal_sentences_alone(model: Svac) -> None:
    data = make_clip_batch(np.random.default_rng(0), model.config, SMALL, batch=2, sentences=3, frames=0)
    with torch.no_grad():
        visual = visual_of(model, data)
        packed = language_loss(model, Oracle(128), LookingHeads(model.config), data, visual).seg
        for b in range(2):
            for e in range(3):
                prompt = model.chat.build(data.sentences[b][e].text, visual.shape[1], 4)
                alone = torch.stack(
                    model.mllm.seg_states(Seen.alike(visual[b]), [prompt], model.chat.context_id)
                )
                assert torch.allclose(alone[0], packed[b, e], atol=1e-5)


def test_a_place_that_is_shown_reaches_its_own_sentence_only(model: Svac) -> None:
    data = make_clip_batch(np.random.default_rng(2), model.config, SMALL, batch=1, sentences=3, frames=0)
    with torch.no_grad():
        visual = visual_of(model, data)
        prompts = [[model.chat.build(s.text, visual.shape[1], 4) for s in data.sentences[0]]]
        shown = torch.zeros(1, 3, 4, 512, dtype=torch.bool)
        shown[0, 1, :, 100] = True

        def run(at: torch.Tensor | None) -> torch.Tensor:
            context = model.chat.context_id
            return run_packed(model.mllm, visual, prompts, context, layers=(3, 4), shown=at).seg

        plain, told = run(None), run(shown)
        other = run(shown.roll(50, -1))
    assert torch.equal(plain[0, [0, 2]], told[0, [0, 2]])
    assert not torch.allclose(plain[0, 1], told[0, 1])
    assert not torch.allclose(other[0, 1], told[0, 1])


def test_tokens_places_and_masks_of_a_clip_agree(model: Svac) -> None:
    data = make_clip_batch(np.random.default_rng(3), model.config, SMALL, batch=4, sentences=5, frames=20)
    covers = data.covers.unflatten(2, (8, 8, 8))
    checked = 0
    for b in range(4):
        for e, sentence in enumerate(data.sentences[b]):
            assert bool(data.said.absent[b, e].all()) == (not data.visible[b, e].any())
            if not sentence.targets:
                assert not covers[b, e].any()
            for n in range(4):
                first = int((data.frame_clip[b] == n).nonzero()[0, 0])
                here = data.target[b, e, first]
                if data.visible[b, e, first]:
                    x, y = data.points[b, e, n, 0].tolist()
                    assert here[int(y * 95.99), int(x * 95.99)] > 0.2
                # What covers a token of the anchor image is what the mask of that frame says.
                share = torch.nn.functional.adaptive_avg_pool2d(here[None], 8)[0]
                clear = (share > 0.25) | (share < 0.15)
                assert torch.equal(covers[b, e, 2 * n][clear], (share > 0.2)[clear])
                checked += int(covers[b, e, 2 * n].sum())
    assert checked > 20
    assert not data.story[data.covers.any(1).view(4, 8, 64)].isnan().all()


def test_words_alone_decide_what_a_noun_alone_means(model: Svac) -> None:
    data = make_clip_batch(
        np.random.default_rng(8), model.config, SMALL, batch=10, sentences=16, frames=0, easy=0.5
    )
    of_kind: dict[str, set[bool]] = {}
    for row, alone in zip(data.sentences, data.alone.tolist(), strict=True):
        for sentence, decided in zip(row, alone, strict=True):
            of_kind.setdefault(sentence.kind, set()).add(decided)
            if sentence.says in SAYS:
                assert decided
    assert of_kind["category"] == of_kind["color_category"] == {True}
    assert of_kind["color"] == of_kind["relation"] == {False}
    assert of_kind["several"] | of_kind["absent"] == {True, False}


@pytest.mark.parametrize(
    ("color", "name", "targets", "alone"),
    [
        (None, "circle", (0, 2), True),
        ("red", "circle", (0,), False),  # "the red one" would do
        ("blue", "circle", (2,), True),
        ("blue", None, (1, 2), False),
        ("blue", None, (2,), False),  # it takes more than the words
    ],
)
def test_a_name_that_a_colour_makes_idle_does_not_decide(
    color: str | None, name: str | None, targets: tuple[int, ...], alone: bool
) -> None:
    scene = make_rich_scene(1_000_003, SMALL, [0])
    looks = [Look("circle", "red"), Look("square", "blue"), Look("circle", "blue")]
    things = tuple(replace(scene.description.things[0], look=look) for look in looks)
    scene = replace(scene, description=replace(scene.description, things=things))
    said = RichExpression("the thing", "motion", targets, True, "stop", color, None, name)
    assert _decide(scene, said) == alone


def test_of_what_words_alone_decide_no_place_is_asked(model: Svac) -> None:
    data = make_clip_batch(np.random.default_rng(9), model.config, SMALL, batch=1, sentences=3, frames=0)
    data.points[:] = 0.5
    data.said.absent[:] = 0
    oracle, heads = Oracle(128), LookingHeads(model.config)

    def distance(alone: bool, x: float) -> float:
        asked = replace(data, alone=torch.full((1, 3), alone), points=torch.full_like(data.points, x))
        with torch.no_grad():
            return language_loss(model, oracle, heads, asked, visual_of(model, data)).figures["distance"]

    assert distance(True, 0.2) == distance(True, 0.8)
    assert distance(False, 0.2) != distance(False, 0.8)


def test_stories_are_told_in_the_order_of_time(model: Svac) -> None:
    data = make_clip_batch(np.random.default_rng(5), model.config, SMALL, batch=3, sentences=1, frames=0)
    anchors = data.story[..., : 2 * 4].unflatten(3, (4, 2))
    for image in range(8):
        known = ~anchors[:, image].isnan().any(-1)  # [B, t, N]
        assert not known[..., image // 2 + 1 :].any()
    place_, way = data.story[:, 0, :, 8:10], data.story[:, 0, :, 10:12]
    told = ~place_.isnan().any(-1)
    assert told.any()
    assert (way[told] == 0).all()  # nothing has moved before the first frame
    assert torch.equal(anchors[:, 0, :, 0][told], place_[told])
    assert data.story.shape[-1] == 2 * 4 + STORY


def test_cells_are_labelled_by_what_covers_them() -> None:
    scene = make_rich_scene(1_000_003, replace(SMALL, noise=0))
    seen = label(shares(scene.masks[:, 4], 16).reshape(len(scene.masks), 1, -1), scene.objects)
    kinds = list(KINDS)
    for k, mask in enumerate(scene.masks[:, 4]):
        whole = torch.from_numpy(shares(mask, 16).reshape(1, -1) > 0.99)
        assert (seen.kind[whole] == kinds.index(scene.objects[k].kind)).all()
        above = sum(np.sqrt(mask.mean() / np.pi) >= radius for radius in EXTENTS)
        assert (seen.extent[whole] == above).all()
    nothing = torch.from_numpy(~scene.masks[:, 4].any(axis=0)).view(16, 4, 16, 4).permute(0, 2, 1, 3)
    assert (seen.color.view(16, 16)[nothing.flatten(2).all(-1)] == -1).all()
    cells = torch.randn(1, 256, 24)
    loss, figures = CellHead(24).loss(cells, seen)
    assert loss > 0
    assert set(figures) == {"kind", "color", "texture", "extent"}
    assert len(CellLabels.CLASSES) == 4


def test_mask_prompts_mean_what_they_say() -> None:
    batch = make_batch(np.random.default_rng(1), recipe.SCENES, scenes=12, point_share=0.4)
    empty = batch.target.flatten(1).mean(1) <= SMALLEST
    assert torch.equal(empty, batch.present == 0)
    standing = batch.said.says >= 0
    named = (batch.said.color >= 0) | (batch.said.name >= 0) | (batch.said.texture >= 0) | standing
    placed = ~batch.points.isnan().flatten(1).all(1)
    assert (named | placed | (batch.said.absent > 0)).all()
    assert (batch.present[batch.said.absent > 0] == 0).all()
    assert (placed & named).any()
    assert (named & ~placed & (batch.present > 0)).any()
    for k in (placed & (batch.present > 0)).nonzero()[:, 0].tolist():
        spots = batch.points[k][~batch.points[k].isnan().any(1)]
        nearest = torch.nn.functional.max_pool2d(batch.target[k][None], 13, 1, 6)[0]  # places are jittered
        for x, y in spots.tolist():
            assert nearest[min(int(y * 96), 95), min(int(x * 96), 95)] > 0


def test_sizes_and_positions_are_said_of_a_frame_as_it_is() -> None:
    batch = make_batch(np.random.default_rng(2), recipe.SCENES, scenes=16, point_share=0.0)
    everything = [batch.target[batch.frame == n].amax(0) for n in range(16)]
    lone = (batch.said.color < 0) & (batch.said.name < 0) & (batch.present > 0)
    met = 0
    for k in (lone & (batch.said.says == SAYS.index("leftmost"))).nonzero()[:, 0].tolist():
        column = (batch.target[k] > 0.5).any(0).float().argmax()
        assert column <= (everything[batch.frame[k]] > 0.5).any(0).float().argmax() + 12
        met += 1
    assert met
    described = make_rich_scene(1_000_003, recipe.SCENES, [0], words=False).description
    keys = {phrase.says for phrase in standing_phrases(still(described, 3, [0, 1]))}
    assert keys <= set(SAYS)
    facts = measure(described)
    clauses = [c.key for c in own_clauses(facts, events_of(facts)) if not c.needs_time]
    superlatives = [c.key for c in comparisons(facts, events_of(facts), []) if not c.needs_time]
    assert sorted(clauses + superlatives) == sorted(SAYS)


def test_every_other_frame_is_crowded_with_many_kinds() -> None:
    scene = make_rich_scene(1_000_005, crowded(recipe.SCENES), words=False)
    assert len(scene.objects) >= 6
    assert len({look.kind for look in scene.objects}) >= len(scene.objects) - 2
    batch = make_batch(np.random.default_rng(3), recipe.SCENES, scenes=8, point_share=0.3)
    covered = (batch.seen.kind >= 0).float().mean(1)
    assert covered[1::2].mean() > covered[::2].mean()


def test_the_oracle_says_only_what_is_said() -> None:
    oracle = Oracle(128)
    assert oracle.attributes(Said.of([(None, None, None, "stop", False)])).abs().sum() == 0
    rows: list[AttributeRow] = [("red", "dog", None, "largest", False), (None, None, "striped", None, True)]
    said = oracle.attributes(Said.of(rows))
    of_both = oracle.color.weight[COLORS.index("red")] + oracle.name.weight[NAMES.index("dog")]
    assert torch.allclose(said[0], of_both + oracle.says.weight[SAYS.index("largest")])
    assert torch.allclose(said[1], oracle.texture.weight[0] + oracle.absent)
    sam = build_sam(recipe.CONFIG.sam)
    code = place(sam, torch.tensor([[0.5, 0.25]]))
    points, labels = torch.tensor([[[96.0, 48.0]]]), torch.ones(1, 1)
    expected = sam.sam_prompt_encoder._embed_points(points - 0.5, labels, pad=False)
    assert torch.allclose(code, expected[0], atol=1e-6)
    nan = float("nan")
    several = places(
        sam, torch.tensor([[[0.5, 0.25], [0.1, 0.9]], [[0.5, 0.25], [nan, nan]], [[nan, nan]] * 2])
    )
    assert torch.allclose(several[1], code[0], atol=1e-6)
    assert torch.allclose(several[0], (code[0] + place(sam, torch.tensor([0.1, 0.9]))) / 2, atol=1e-6)
    assert several[2].abs().sum() == 0


def test_sentences_are_of_all_kinds_and_never_of_what_is_held_out() -> None:
    rng, kinds = np.random.default_rng(0), set()
    for seed in range(1_000_000, 1_000_040):
        scene = make_rich_scene(seed, SMALL, [0])
        for sentence in sentences_of(scene.expressions, 6, rng):
            kinds.add(sentence.kind)
            assert bool(sentence.targets) == (sentence.kind != "absent")
            assert sentence.name not in HELD_OUT_KINDS
            if sentence.color and sentence.kind == "color":
                assert scene.objects[sentence.targets[0]].color == sentence.color
    assert len(kinds) > 12


def test_the_tokenizer_knows_the_special_tokens_and_any_text(model: Svac) -> None:
    tokenizer = model.chat.tokenizer
    assert len(tokenizer) <= recipe.VOCABULARY
    for token in (SEG, IMG_CONTEXT):
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1
    text = "Größe: 猫 😀 the zebra"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_training_runs_through_all_stages_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(
        recipe.CONFIG,
        vision=VisionConfig(
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        ),
        language=replace(
            recipe.CONFIG.language,
            hidden_size=32,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=32,
        ),
        # Narrow: Muon's steps grow with the cube of the width.
        sam=replace(
            recipe.CONFIG.sam,
            image_size=64,
            window_spec=(8, 4, 4, 2),
            embed_dim=16,
            d_model=64,
            memory_dim=32,
            memory_layers=1,
        ),
    )
    assert isinstance(small.language, LanguageConfig)
    monkeypatch.setattr(recipe, "CONFIG", small)
    monkeypatch.setattr(recipe, "SCENES", SMALL)
    monkeypatch.setattr(recipe, "SMALL", SMALL)
    monkeypatch.setattr(recipe, "train_tokenizer", partial(train_tokenizer, scenes=5))
    recipe.train(tmp_path, steps=recipe.StageSteps(1, 1, 1, 1, 1, 1, 1), device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [
        *("masks", "looking", "words", "binding", "language", "joint", "memory")
    ]
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    recipe.train(tmp_path, steps=recipe.StageSteps(1, 1, 1, 1, 1, 1, 1), device="cpu")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == weights
    assert len((tmp_path / "curves.jsonl").read_text().splitlines()) == 7
