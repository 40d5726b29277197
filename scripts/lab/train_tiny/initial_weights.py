"""How weights begin, where a small net that starts as large ones do would not learn in time.

The way of a place from a visual token into the [SEG] embedding starts out open. SAM-2's code of a place is d_model
numbers, of which `RANK` say nearly everything. These get lanes of their own, channels of the vision tower and of the
language model that nothing else writes into at first: they enter with the position embeddings, pass the projector, and
are copied by the head that is taught where to look. Where a net has two units for a number, one for each sign, the
number passes unchanged: gelu(x) - gelu(-x) = relu(x) - relu(-x) = x. A narrow language model takes thousands of steps
to find such a path; from here on it is trained like all other weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lab.train_tiny.oracle import grid_of, place
from svac_backend.svac.model import Svac

RANK = 16
_LOUD = 1.0  # of the lanes beside the tower's other channels
_GAIN = 1.2  # of copying, so that a place comes out about as large as it went in


@torch.no_grad()
def init_vision(model: Svac) -> None:
    """Start the vision tower where it learns fast: weights that suit its width, and places as SAM-2 encodes them.

    With weights of 0.02 and branches scaled down, as large towers start, a narrow one is hardly more than its patches.
    """
    tower = model.mllm.vision_model
    for layer in tower.encoder.layer:
        layer.lambda_1.fill_(1.0)  # type: ignore[operator]
        layer.lambda_2.fill_(1.0)  # type: ignore[operator]
    for name, parameter in tower.named_parameters():
        if parameter.dim() > 1 and not name.endswith(("position_embeddings", "cls_token")):
            scale = (
                0.7
                if "q_proj" in name or "k_proj" in name
                else 0.5
                if "projection_layer" in name or "fc2" in name
                else 1.0
            )
            nn.init.normal_(parameter, std=scale * parameter[0].numel() ** -0.5)
    position = tower.embeddings.position_embeddings
    side = round((position.shape[1] - 1) ** 0.5)
    if position.shape[2] == model.config.sam.d_model:
        position[0, 1:] = 0.3 * place(model.sam, grid_of(side, position.device))
    _open_lanes(model)


@torch.no_grad()
def init_language(model: Svac, copying: int) -> None:
    """Start the language model at weights that suit its width; 0.02, as large models have, leaves a narrow one deaf.

    Args:
        copying: the layer whose first head copies places.
    """
    for name, parameter in model.mllm.language_model.named_parameters():
        if parameter.dim() == 2:
            scale = (
                0.1
                if "embed" in name
                else 0.5
                if name.endswith(("o_proj.weight", "down_proj.weight"))
                else 1.0
            )
            std = scale if "embed" in name else scale * parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=std)
    init_copying(model, copying)


@torch.no_grad()
def lanes_of(model: Svac, points: Tensor) -> tuple[Tensor, Tensor]:
    """Write the codes of places [n, 2] as lanes @ basis: f32 [n, RANK] of about 1 each, f32 [RANK, d_model]."""
    _, sizes, basis = torch.linalg.svd(place(model.sam, grid_of(32, points.device)), full_matrices=False)
    # Small parts are made louder, for noise would drown them, but not as loud as large ones.
    scale = (sizes[:RANK] * sizes[1]).sqrt() / 32
    return place(model.sam, points) @ basis[:RANK].T / scale, scale[:, None] * basis[:RANK]


@torch.no_grad()
def _open_lanes(model: Svac) -> None:
    """Give places lanes through the vision tower and the projector: the last `RANK` channels of each."""
    tower = dict(model.mllm.vision_model.named_parameters())
    position = tower["embeddings.position_embeddings"]
    side = round((position.shape[1] - 1) ** 0.5)
    for name, parameter in tower.items():
        if name.startswith("embeddings.patch") or "lambda" in name:
            parameter[-RANK:] = 0
        elif name.startswith("embeddings"):
            parameter[..., -RANK:] = 0
    position[0, 1:, -RANK:] = _LOUD * lanes_of(model, grid_of(side, position.device))[0]
    norm, first, _, second = model.mllm.mlp1
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    patches = norm.weight.shape[0] // position.shape[-1]
    for scale, value in ((norm.weight, 1.0), (norm.bias, 0.0)):
        scale.unflatten(0, (patches, -1))[:, -RANK:] = value
    mean = torch.zeros_like(first.weight[:RANK])
    mean.unflatten(1, (patches, -1))[..., -RANK:] = torch.eye(RANK, device=mean.device)[:, None] / patches
    out = torch.zeros_like(second.weight[:, :RANK])
    out[-RANK:] = 2 / _LOUD * torch.eye(RANK, device=out.device)
    second.weight[-RANK:], second.bias[-RANK:] = 0, 0
    _pass(first, second, mean, out)


@torch.no_grad()
def init_copying(model: Svac, layer: int) -> None:
    """Let the first head of a layer copy the lanes, and nobody else write into them; [SEG] passes them on.

    Muon's steps are as long in directions that nothing asks for: what learned without pictures has lost these lanes.
    """
    language = dict(model.mllm.language_model.model.named_parameters())
    for name, parameter in language.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter[-RANK:] = 0
    language["embed_tokens.weight"][:, -RANK:] = 0
    one = torch.eye(RANK, device=model.device)
    value, output = (language[f"layers.{layer}.self_attn.{name}_proj.weight"] for name in "vo")
    value[:RANK], output[:, :RANK] = 0, 0
    value[:RANK, -RANK:], output[-RANK:, :RANK] = one, _GAIN * one
    bias = language.get(f"layers.{layer}.self_attn.v_proj.bias")
    if bias is not None:
        bias[:RANK] = 0
    first, _, second, _ = model.mllm.text_hidden_fcs[0].children()
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    read = torch.zeros_like(first.weight[:RANK])
    read[:, -RANK:] = one
    _pass(first, second, read, lanes_of(model, grid_of(1, model.device))[1].T)


def _pass(first: nn.Linear, second: nn.Linear, read: Tensor, write: Tensor) -> None:
    """Let what `read` [RANK, in] reads pass both layers to `write` [out, RANK], by two units for a number."""
    # The units whose going is noticed least make room.
    quiet = (first.weight.norm(dim=1) * second.weight.norm(dim=0)).argsort()[: 2 * RANK]
    for units, sign in ((quiet[:RANK], 1.0), (quiet[RANK:], -1.0)):
        first.weight[units], first.bias[units] = sign * read, 0
        second.weight[:, units] = sign * write
