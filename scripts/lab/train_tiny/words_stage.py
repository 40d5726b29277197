"""Stage `words`: the language model learns what is said of the thing that is meant, from sentences alone.

There are ninety names, and a scene offers few of them: beside pictures, each is met too seldom to be learned. Without
pictures a step takes ten times as many sentences.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.train_tiny.initial_weights import init_language
from lab.train_tiny.language_loss import PLACE_LAYER
from lab.train_tiny.oracle import Oracle, Said
from lab.train_tiny.schedule import Schedule, matrices_of
from svac_backend.learning.rehearsal import sentences_of
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, describe
from svac_backend.synthetic.scene import FIRST_TRAIN_SEED

# In later stages: sentences without pictures beside each step, and the weight of their loss. Else names are forgotten.
SPOKEN, LOUD = 48, 12.0


class Sentences:
    """Many sentences, drawn so that every name is met as often as any other.

    Args:
        scenes: what they are about.
        rng: chooses the scenes.
        count: how many scenes.
    """

    def __init__(self, scenes: RichConfig, rng: np.random.Generator, count: int) -> None:
        self._by_name: dict[str, list[RichExpression]] = defaultdict(list)
        for seed in FIRST_TRAIN_SEED + rng.integers(2**31, size=count):
            expressions = describe(int(seed), replace(scenes, per_kind=6))[1]
            for sentence in sentences_of(expressions, 24, rng, easy=0.3):
                self._by_name[sentence.name or ""].append(sentence)
        self._names = sorted(self._by_name)

    def draw(self, rng: np.random.Generator, count: int) -> list[RichExpression]:
        """Choose a name, or none, and then one of its sentences, `count` times."""
        drawn = []
        for number in rng.integers(len(self._names) + len(self._names) // 6, size=count):
            # One in seven says no name; that must be learned, too.
            of_name = self._by_name[self._names[number] if number < len(self._names) else ""]
            drawn.append(of_name[int(rng.integers(len(of_name)))])
        return drawn


def enough_for(schedule: Schedule) -> int:
    """Return of how many scenes to take the sentences, so that few of them come twice."""
    return min(4000, 20 * schedule.steps)


def words_loss(
    model: Svac, oracle: Oracle, sentences: list[RichExpression]
) -> tuple[Tensor, dict[str, float]]:
    """Ask for the words' part of the oracle prompt where there is nothing to see.

    Returns:
        The distance, and it with the share of names that are the nearest of all, for the curves.
    """
    clips = model.config.method.num_clips
    prompts = [model.chat.build(said.text, 1, clips) for said in sentences]
    width = max(len(prompt.suffix) for prompt in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    seg = torch.zeros(len(prompts), clips, dtype=torch.long)
    for row, prompt in enumerate(prompts):  # what is filled up comes after all that counts
        ids[row, : len(prompt.suffix)] = prompt.suffix
        seg[row] = prompt.seg
    embeds = model.mllm.language_model.get_input_embeddings()(ids.to(model.device))
    states = model.mllm.language_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    at = seg.to(model.device)[..., None].expand(-1, -1, states.shape[-1])
    found = model.mllm.project(states.gather(1, at))
    said = Said.of([(s.color, s.name, s.texture, s.says, False) for s in sentences]).to(model.device)
    goal = oracle.attributes(said).detach()[:, None]
    loss = F.mse_loss(found, goal.expand_as(found))
    with torch.no_grad():
        named = said.name >= 0
        rest = found[:, 0] - oracle.attributes(replace(said, name=torch.full_like(said.name, -1)))
        nearest = torch.cdist(rest, oracle.name.weight).argmin(1)
        right = (nearest == said.name)[named].float().mean().item() if named.any() else 1.0
    return loss, {"words": loss.item(), "names": right}


def train_words(
    model: Svac,
    oracle: Oracle,
    scenes: RichConfig,
    schedule: Schedule,
    *,
    batch: int = 128,
    count: int = 4000,
) -> None:
    """Teach the language model what colours, textures and names sentences say of what they mean.

    Args:
        model, oracle: trained in place, and what is asked for.
        scenes: what the sentences are about.
        schedule: steps and learning rate.
        batch: sentences a step.
    """
    init_language(model, PLACE_LAYER)
    sentences = Sentences(scenes, schedule.rng(), enough_for(schedule))
    speaking = (model.mllm.language_model, model.mllm.text_hidden_fcs)
    trained = [parameter for module in speaking for parameter in module.parameters()]
    for _, rng in schedule.run(trained, matrices_of(*speaking)):
        loss, figures = words_loss(model, oracle, sentences.draw(rng, batch))
        schedule.step(4 * loss, figures)
