"""Stages `binding` and `language`: from a sentence and visual tokens to one oracle-like prompt per clip."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import Parameter

from lab.train_tiny.clip_batch import make_clip_batch
from lab.train_tiny.initial_weights import init_copying
from lab.train_tiny.language_loss import PLACE_LAYER, LookingHeads, language_loss, visual_of
from lab.train_tiny.oracle import Oracle
from lab.train_tiny.scene_store import scenes_for, store_scenes
from lab.train_tiny.schedule import Schedule, matrices_of
from lab.train_tiny.words_stage import LOUD, SPOKEN, Sentences, enough_for, words_loss
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig

# Finding by colour is learned first and stays; what words alone decide is not found by looking at all.
_WEIGHTS: dict[str, float] = {
    "color": 0.3,
    "color_category": 0.6,
    "category": 0.4,
    "texture": 0.6,
    "several": 0.6,
    "position": 0.5,
    "size": 0.5,
    "absent": 1.2,
    "motion": 1.8,
    "change": 1.6,
    "speed": 1.5,
    "order": 1.3,
    "presence": 1.3,
    "relation": 2.0,
    "relation_time": 1.5,
}


def train_binding(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 10,
    sentences: int = 12,
) -> None:
    """Teach the language model to find what a simple sentence says, on one clip: five times as many scenes an hour."""
    init_copying(model, PLACE_LAYER)
    config = replace(model.config, method=replace(model.config.method, num_clips=1))
    spoken = Sentences(scenes, schedule.rng(), enough_for(schedule))
    for _, rng in schedule.run(*_taught(model, heads)):
        data = make_clip_batch(rng, config, scenes, batch=batch, sentences=sentences, frames=0, easy=1.0)
        with torch.no_grad():
            visual = visual_of(model, data)
        taught = language_loss(model, oracle, heads, data, visual, shown=0.6, rng=rng)
        words, more = words_loss(model, oracle, spoken.draw(rng, SPOKEN))
        schedule.step(taught.loss + LOUD * words, taught.figures | more)


def train_language(
    model: Svac,
    oracle: Oracle,
    heads: LookingHeads,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 5,
    sentences: int = 16,
) -> None:
    """Teach the language model to turn a sentence into oracle prompts; the vision tower and SAM-2's part rest."""
    store = store_scenes(model, scenes, schedule.rng(), scenes_for(schedule.steps, batch))
    spoken = Sentences(scenes, schedule.rng(), enough_for(schedule))
    for step, rng in schedule.run(*_taught(model, heads)):
        done = step / schedule.steps
        drawn = store.draw(rng, batch=batch, sentences=sentences, weights=_WEIGHTS)
        shown = max(0.0, 0.5 - 0.75 * done)
        taught = language_loss(model, oracle, heads, drawn.data, drawn.visual, shown=shown, rng=rng)
        words, more = words_loss(model, oracle, spoken.draw(rng, SPOKEN))
        schedule.step(taught.loss + LOUD * words, taught.figures | more)


def _taught(model: Svac, heads: LookingHeads) -> tuple[list[Parameter], list[Tensor]]:
    """Return what both stages train, and its matrices."""
    modules = (model.mllm.language_model, model.mllm.text_hidden_fcs, heads.story)
    return [parameter for module in modules for parameter in module.parameters()], matrices_of(*modules)
