"""Stage `looking`: the vision tower and the projector learn what stands where."""

from __future__ import annotations

from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig
from svac_backend.training.embedded.clip_batch import make_pictures
from svac_backend.training.embedded.schedule import Schedule
from svac_backend.training.embedded.starts import open_eyes
from svac_backend.training.embedded.teaching import LookingHeads


def train_looking(
    model: Svac, heads: LookingHeads, scenes: RichConfig, schedule: Schedule, *, batch: int = 16
) -> None:
    """Teach the vision tower and the projector what stands where."""
    parameters = [*model.mllm.vision_model.parameters(), *model.mllm.mlp1.parameters()]
    open_eyes(model)
    for _, rng in schedule.run([*parameters, *heads.seen.parameters(), *heads.place.parameters()]):
        pixels, seen = make_pictures(rng, model.config, scenes, batch=batch)
        visual = model.mllm.visual_tokens(pixels.to(model.device), batch=1024)
        loss, figures = heads.loss(visual, model, seen)
        schedule.step(loss, figures)
