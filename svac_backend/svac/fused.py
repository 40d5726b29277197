"""Layers on a CPU in fused operations: a product with its bias, activation or sum in one pass over memory.

sam2's own modules make each of these a pass of its own; for maps of many small vectors the passes cost more than the
products. The values are the same but for rounding. oneDNN's operations are those that torch's own compiler emits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def available(tensor: Tensor) -> bool:
    """Whether there are fused operations for it: fp32 on a CPU with oneDNN, and no gradients, which they don't have."""
    return bool(
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and not torch.is_grad_enabled()
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


def linear(layer: nn.Linear, x: Tensor, activation: str = "none", *, add: Tensor | None = None) -> Tensor:
    """Return the layer's result, f32 [..., out].

    Args:
        layer: the weights.
        x: f32 [..., in].
        activation: "none", "relu" or "gelu".
        add: f32 [..., out], added to it; not with an activation.
    """
    return affine(x, layer.weight, layer.bias, activation, add=add)


def affine(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str = "none", *, add: Tensor | None = None
) -> Tensor:
    """Return x [..., in] times weight [out, in], and bias; see `linear`."""
    if add is not None:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, add, weight, bias, "add")
    else:
        exact = "none" if activation == "gelu" else ""  # GELU by the error function, as nn.GELU has it
        result = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], exact)
    return result


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Return x f32 [..., C], each vector normalised."""
    return F.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)
