"""Stage `looking`: the vision tower and the projector learn what stands where."""

from __future__ import annotations

from lab.train_tiny.initial_weights import init_vision
from lab.train_tiny.language_loss import LookingHeads
from lab.train_tiny.pictures import make_pictures
from lab.train_tiny.schedule import Schedule, matrices_of
from svac_backend.svac.model import Svac
from svac_backend.synthetic.rich.scene import RichConfig


def train_looking(
    model: Svac, heads: LookingHeads, scenes: RichConfig, schedule: Schedule, *, batch: int = 12
) -> None:
    """Teach the vision tower and the projector what stands where, how far it reaches and where it is."""
    mllm = model.mllm
    parameters = [*mllm.vision_model.parameters(), *mllm.mlp1.parameters()]
    init_vision(model)
    trained = [*parameters, *heads.looking.parameters(), *heads.place.parameters()]
    for _, rng in schedule.run(trained, matrices_of(mllm.vision_model, mllm.mlp1)):
        pictures = make_pictures(rng, model.config, scenes, batch=batch)
        patches = mllm.patches(pictures.pixels)
        loss, figures = heads.loss(patches, mllm.tokens_of(patches), pictures, model)
        schedule.step(loss, figures)
