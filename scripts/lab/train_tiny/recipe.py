"""`svac-tiny`: its architecture and how it is trained from nothing, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import torch
import torch.distributed as dist

from lab.train_tiny.heads import CellHead
from lab.train_tiny.joint_stage import train_joint
from lab.train_tiny.language_loss import LookingHeads
from lab.train_tiny.language_stage import train_binding, train_language
from lab.train_tiny.looking_stage import train_looking
from lab.train_tiny.mask_stage import train_masks
from lab.train_tiny.memory_stage import train_memory
from lab.train_tiny.oracle import Oracle
from lab.train_tiny.schedule import Schedule
from lab.train_tiny.tokenizer import train_tokenizer
from lab.train_tiny.words_stage import train_words
from svac_backend.learning.rehearsal import SCENES
from svac_backend.svac.config import LanguageConfig, MethodConfig, SamConfig, SvacConfig, VisionConfig
from svac_backend.svac.model import Svac

# Where no mask is drawn, frames are painted at the vision tower's size.
SMALL = replace(SCENES, width=128, height=128)
VOCABULARY = 1024
# SAM-2's code of places is made of random waves. With fewer periods, few numbers say nearly all of a place, and a
# narrow language model can copy them sooner.
WAVES = 0.35

CONFIG = SvacConfig(
    preset="svac",
    vision=VisionConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        image_size=128,
        patch_size=8,
    ),
    language=LanguageConfig(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=384,
        vocab_size=VOCABULARY,
        max_position_embeddings=2048,
        rope_theta=1_000_000.0,
        tie_word_embeddings=True,
    ),
    sam=SamConfig(
        image_size=192,
        embed_dim=32,
        num_heads=1,
        stages=(1, 2, 3, 1),
        global_att_blocks=(4,),
        window_spec=(8, 4, 12, 6),
        d_model=128,
        memory_layers=2,
    ),
    method=MethodConfig(num_clips=4, frames_per_clip=5, grid=(2, 2), template="qwen_chat"),
)


@dataclass(frozen=True)
class StageSteps:
    """Optimiser steps of each stage; the shipped weights took about as many, in goes (docs/embedded-model.md)."""

    masks: int = 9000
    looking: int = 1050
    words: int = 250
    binding: int = 350
    language: int = 2400
    joint: int = 900
    memory: int = 600

    def scaled(self, factor: float) -> StageSteps:
        """Return the same stages, shorter or longer."""
        return StageSteps(**{name: max(1, round(count * factor)) for name, count in vars(self).items()})


def train(
    folder: Path, *, steps: StageSteps, device: str, seed: int = 0, onto: str | Path | None = None
) -> Svac:
    """Train all stages; each stage's weights are kept in `folder`, and a stage that is there is not run again.

    Several processes (torch.distributed) share the work: each makes batches of its own.

    Args:
        folder: of checkpoints, curves and the model.
        steps: of each stage.
        device: torch's name of it.
        seed: seeds data and weights.
        onto: a model of this architecture to start from; only the stage that its language path does not notice runs.

    Returns:
        The model; it is also saved in `folder / "model"`.
    """
    first = not dist.is_initialized() or dist.get_rank() == 0
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    cv2.setNumThreads(1)
    tokenizer = folder / "tokenizer.json"
    if first and onto is None and not tokenizer.is_file():
        train_tokenizer(CONFIG.method.question, vocabulary=VOCABULARY).save(str(tokenizer))
    _wait()
    if onto is None:
        model = Svac(CONFIG, tokenizer).to(device)
        model.sam.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.mul_(WAVES)
    else:
        model = Svac.from_pretrained(onto, device=device, dtype="float32")
    side = model.config.sam.image_size
    scenes = replace(SCENES, width=side, height=side)
    oracle, heads = Oracle(CONFIG.sam.d_model).to(device), LookingHeads(CONFIG).to(device)
    seen = CellHead(CONFIG.sam.d_model).to(device)
    parts = torch.nn.ModuleDict({"model": model, "oracle": oracle, "heads": heads, "seen": seen})

    def schedule(name: str, lr: float, number: int, matrix_lr: float = 0.02) -> Schedule:
        count, log = getattr(steps, name), folder / "curves.jsonl"
        return Schedule(name, steps=count, lr=lr, seed=seed * 10 + number, log=log, matrix_lr=matrix_lr)

    from_nothing = {
        "masks": lambda: train_masks(model.sam, oracle, seen, scenes, schedule("masks", 1e-3, 1)),
        "looking": lambda: train_looking(model, heads, SMALL, schedule("looking", 1.5e-3, 2)),
        "words": lambda: train_words(model, oracle, SMALL, schedule("words", 1e-3, 7)),
        "binding": lambda: train_binding(model, oracle, heads, SMALL, schedule("binding", 1e-3, 5)),
        "language": lambda: train_language(model, oracle, heads, SMALL, schedule("language", 1e-3, 3)),
        "joint": lambda: train_joint(model, oracle, heads, scenes, schedule("joint", 4e-4, 4, 0.005)),
    }
    beside = {"memory": lambda: train_memory(model.sam, scenes, schedule("memory", 1e-3, 6))}
    stages = beside if onto is not None else from_nothing | beside
    for name, run in stages.items():
        kept = folder / f"{name}.pt"
        if kept.is_file():
            parts.load_state_dict(torch.load(kept, map_location=device, weights_only=True))
            continue
        model.train()
        run()
        if first:
            partial = kept.with_suffix(".part")
            torch.save(parts.state_dict(), partial)
            partial.rename(kept)
        _wait()
    model.eval()
    if first:
        model.save_pretrained(folder / "model", torch.float16)
    return model


def _wait() -> None:
    """Let the other processes catch up."""
    if dist.is_initialized():
        dist.barrier()
