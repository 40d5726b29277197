"""The options of fine-tuning: the published settings, and those for the embedded model. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from svac_backend.errors import SvacError
from svac_backend.settings import Settings
from svac_backend.svac.config import SvacConfig

# Models narrower than this were trained here from scratch: they learn faster and forget faster.
_TINY = 512


@dataclass(frozen=True)
class TrainOptions:
    """Options of a run. The defaults are the published ones.

    Attributes:
        steps: optimiser steps; 0: enough to see each correction `epochs` times, within bounds.
        epochs: see `steps`.
        min_steps, max_steps: those bounds.
        max_minutes: training ends after so many minutes at the latest; 0: no limit.
        batch: examples per step, over all processes.
        accumulate: number of parts that a step is computed in; more parts need less memory.
        replay_share: share of replay in a step's examples.
        frames_per_clip: frames with a mask per clip and step.
        lr, weight_decay, beta1, beta2, clip: AdamW, and the largest norm of the gradient.
        decoder_rate: the mask decoder's learning rate, as a factor of `lr`.
        keep: how far the adapter moves from the old weights to the trained ones, 0..1. Less forgets less (WiSE-FT,
            Wortsman et al. 2022).
        warmup: share of the steps in which the learning rate rises; then it falls as a cosine.
        rank, alpha, dropout: LoRA.
        gradient_checkpointing: compute activations twice instead of keeping them; None: only on a GPU.
        checkpoint_every: steps from one checkpoint to the next.
        log_every: steps that one line of the curves stands for.
        seed: seed of data, weights and dropout.
    """

    steps: int = 0
    epochs: float = 4.0
    min_steps: int = 50
    max_steps: int = 4000
    max_minutes: float = 0.0
    batch: int = 8
    accumulate: int = 8
    replay_share: float = 0.5
    frames_per_clip: int = 1
    lr: float = 4e-5
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0
    decoder_rate: float = 1.0
    keep: float = 1.0
    warmup: float = 0.05
    rank: int = 128
    alpha: int = 256
    dropout: float = 0.05
    gradient_checkpointing: bool | None = None
    checkpoint_every: int = 50
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise `SvacError` for settings that make no sense."""
        positive = (
            "batch",
            "accumulate",
            "frames_per_clip",
            "lr",
            "rank",
            "alpha",
            "checkpoint_every",
            "decoder_rate",
            "keep",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise SvacError(
                    f"Fine-tuning can't run with {name} = {getattr(self, name)}.", "Set it above 0."
                )
        if self.keep > 1:
            raise SvacError("More than all that was trained can't be kept.", "Set keep to 1 or less.")
        if not 0 <= self.replay_share < 1 or not 0 <= self.dropout < 1:
            raise SvacError("Shares of replay and dropout lie between 0 and 1.", "Set them below 1.")
        if self.steps < 0 or self.max_minutes < 0:
            raise SvacError("Steps and minutes can't be negative.", "Set 0 for the defaults.")

    def count(self, examples: int) -> int:
        """Return the number of steps of a run on `examples` corrections."""
        if self.steps:
            return self.steps
        fresh = max(1, self.batch - round(self.batch * self.replay_share))
        return int(min(self.max_steps, max(self.min_steps, round(self.epochs * examples / fresh))))

    def changed(self, **changes: Any) -> TrainOptions:
        """Return these options with other values; values of None change nothing."""
        unknown = changes.keys() - {f.name for f in fields(self)}
        if unknown:
            raise SvacError(f"Fine-tuning has no option {sorted(unknown)[0]!r}.", "See TrainOptions.")
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


def options_for(config: SvacConfig) -> TrainOptions:
    """Return the options that suit a model: the published ones, or those for a tiny model."""
    if config.language.hidden_size >= _TINY:
        return TrainOptions()
    # A tiny model's mask decoder forgets, and is easily disturbed: with keep = 0.8, two runs lost 2.4 and 3.3 points
    # elsewhere; with 0.4 they lost 1.0 and 1.4 and still had learned nine tenths (docs/benchmarks.md).
    return TrainOptions(
        epochs=48,
        min_steps=180,
        max_steps=1000,
        batch=12,
        accumulate=1,
        replay_share=0.67,
        lr=4e-4,
        decoder_rate=0.25,
        keep=0.4,
        weight_decay=0.02,
    )


def options_from(settings: Settings, config: SvacConfig) -> TrainOptions:
    """Return the options that suit a model, with the settings' own values on top."""
    return options_for(config).changed(
        steps=settings.finetune_steps or None, max_minutes=settings.finetune_max_minutes or None
    )
