"""Stage `memory`: SAM-2's memory, clicks, boxes and mask prompts, beside a language path that stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn import Parameter

from lab.train_tiny.losses import mask_loss
from lab.train_tiny.memory_batch import Sequences, make_boxes, make_clicks, make_sequences
from lab.train_tiny.memory_rollout import Given, rollout
from lab.train_tiny.schedule import Schedule
from svac_backend.svac.sam.grounding import FrameFeatures, encode_frames, without_memory
from svac_backend.synthetic.rich.scene import RichConfig

# All that decoding with a [SEG] and without memory does not touch.
TRAINED = (
    "memory_attention.",
    "memory_encoder.",
    "maskmem_tpos_enc",
    "no_obj_ptr",
    "obj_ptr_proj.",
    "mask_downsample.",
    "sam_prompt_encoder.mask_downscaling.",
)


def prepare(sam: SAM2Base, scenes: RichConfig, *, seed: int) -> None:
    """Start memory as nearly nothing: what it hands to the mask decoder looks like a frame without memory.

    The decoder is frozen and knows features of a standard deviation of 4; a fresh layer norm gives 1, and takes
    thousands of steps to grow. Its weights are the least-squares fit from the one to the other.
    """
    batch = make_sequences(np.random.default_rng([seed, 0]), scenes, scenes=16, length=2, given=(0,))
    attention = sam.memory_attention
    with torch.no_grad():
        features = encode_frames(sam, batch.pixels.to(sam.no_mem_embed.device))
        wanted = without_memory(sam, features).movedim(1, -1).flatten(0, 2)
        entering = (features.low + 0.1 * features.position).movedim(1, -1).flatten(0, 2)
        plain = F.layer_norm(entering, entering.shape[-1:])
        spread, mean = torch.var_mean(plain, 0, correction=0)
        weight = ((plain - mean) * (wanted - wanted.mean(0))).mean(0) / spread
        attention.norm.weight.copy_(weight)
        attention.norm.bias.copy_(wanted.mean(0) - weight * mean)
        for layer in attention.layers:
            for branch in (layer.self_attn.out_proj, layer.cross_attn_image.out_proj, layer.linear2):
                branch.weight.mul_(float(features.low.std()))
        for block in sam.memory_encoder.fuser.layers:
            block.gamma.fill_(0.1)


def plan_of(rng: np.random.Generator, done: float) -> tuple[int, tuple[int, ...]]:
    """Choose a batch's length and its prompted positions; sequences grow while training (`done` in 0..1)."""
    length = 2 if done < 0.15 else 3 if done < 0.45 else 5 if done < 0.75 else 8
    if length == 2 or rng.random() < 0.6:
        return length, (0,)
    return length, (0, length - 1) if length < 8 or rng.random() < 0.6 else (0, 1, length - 1)


def prompts_of(
    rng: np.random.Generator, batch: Sequences, given: tuple[int, ...], *, mask_share: float = 0.85
) -> dict[int, Given]:
    """Prompt the given frames, all objects of a batch in the same way: masks, clicks, or boxes."""
    kind = rng.choice(["mask", "clicks", "box"], p=[mask_share, *[(1 - mask_share) / 2] * 2])
    prompts = {}
    for t in given:
        masks = batch.masks[:, t]
        # A click says nothing about an object that is not there; later frames are corrected by masks.
        if kind == "mask" or t > 0 or not batch.present[:, t].all():
            prompts[t] = Given(masks=masks)
        elif kind == "box":
            prompts[t] = Given(points=make_boxes(rng, masks))
        else:
            prompts[t] = Given(points=make_clicks(rng, masks, others_of(batch, t)))
    return prompts


def others_of(batch: Sequences, t: int) -> Tensor:
    """Return where the other objects of each object's frame are, bool [N, H, W]."""
    scene = batch.frame[:, t]
    same = (scene[:, None] == scene[None]) & ~torch.eye(len(scene), dtype=torch.bool)
    return torch.einsum("nm,mhw->nhw", same.float(), batch.masks[:, t].float()) > 0


def train_memory(
    sam: SAM2Base, scenes: RichConfig, schedule: Schedule, *, scenes_per_step: int = 6, fresh: bool = True
) -> None:
    """Train memory and mask prompts in place; every other weight stays bit for bit.

    Args:
        fresh: begin with `prepare`; False continues what is trained already.
    """
    device = sam.no_mem_embed.device
    if fresh:
        prepare(sam, scenes, seed=schedule.seed)
    with only(sam, TRAINED) as parameters:
        for step, rng in schedule.run(parameters):
            length, given = plan_of(rng, step / schedule.steps)
            count = max(2, round(scenes_per_step * 4 / (length + 1)))
            batch = make_sequences(rng, scenes, scenes=count, length=length, given=given)
            prompts = prompts_of(rng, batch, given)
            batch = batch.to(device)
            with torch.no_grad():
                features = encode_frames(sam, batch.pixels)
            loss, figures = sequence_loss(sam, features, batch, prompts)
            schedule.step(loss, figures)


@contextmanager
def only(sam: SAM2Base, prefixes: tuple[str, ...]) -> Iterator[list[Parameter]]:
    """Yield the parameters of these names; the others need no gradients meanwhile."""
    chosen = [p for name, p in sam.named_parameters() if name.startswith(prefixes)]
    before = [(p, p.requires_grad) for p in sam.parameters()]
    was_training = sam.training
    sam.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    # As in inference: no dropout, and object pointers of past frames only.
    sam.eval()
    try:
        yield chosen
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)
        sam.train(was_training)


def sequence_loss(
    sam: SAM2Base, features: FrameFeatures, batch: Sequences, prompts: Mapping[int, Given]
) -> tuple[Tensor, dict[str, float]]:
    """Return the mean loss of all decoded frames, and IoUs."""
    found = rollout(sam, features, batch.frame, prompts)
    total: list[Tensor] = []
    figures: dict[str, float] = {}
    tracked: list[float] = []
    exists: list[float] = []
    for t, out in sorted(found.items()):
        loss, made_of = mask_loss(out, batch.target[:, t], batch.present[:, t])
        total.append(loss)
        if t in prompts:
            figures["clicked"] = made_of["iou"]
        else:
            tracked.append(made_of["iou"])
            exists.append(made_of["existence"])
    figures |= {"first": tracked[0], "last": tracked[-1], "exists": float(np.mean(exists))}
    return torch.stack(total).mean(), figures
