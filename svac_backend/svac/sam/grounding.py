"""SAM-2, built from the sam2 package's own modules: features in batches and language-prompted decoding.

SAM-2's own `_forward_sam_heads` hard-wires what the two published models differ in (masking of absent objects), so the
prompt encoder and the mask decoder are called directly.

SAM-2's image encoder over windows of frames, begun before the features are needed where there are cores for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor, nn

from svac_backend.svac import astc
from svac_backend.svac.config import SamConfig
from svac_backend.svac.cpu import fused
from svac_backend.svac.cpu.parallel import Workers
from svac_backend.svac.parts import Parts
from svac_backend.svac.sam.matching import FeatureMatching, matching_of


class SharedPositions(PositionEmbeddingSine):
    """SAM-2's sine encoding, shared by the frames of a batch instead of copied for each; the values are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoding of maps [n, ..., h, w] as a view [n, C, h, w]."""
        return self._pe(1, x.device, *x.shape[-2:]).expand(len(x), -1, -1, -1)


class MobileNetV2(nn.Module):
    """MobileNetV2 of width 1 as a trunk of SAM-2's image encoder: maps of strides 4, 8, 16 and 32.

    Batch norms are folded into the convolutions before them, so that values from ImageNet come with biases.
    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
    """

    # Expansion, channels, blocks, stride of the first of them.
    GROUPS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.channel_list = [320, 96, 32, 24]
        self.stem = _convolution(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        channels = 32
        for expansion, out, count, stride in self.GROUPS:
            for number in range(count):
                self.blocks.append(_InvertedResidual(channels, out, expansion, 1 if number else stride))
                channels = out

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of f32 [n, 3, S, S], finest first: 24, 32, 96 and 320 channels."""
        x = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        levels = []
        for block, following in zip(self.blocks, [*self.blocks[1:], None], strict=True):
            x = block(x)
            if following is None or (following.stride == 2 and x.shape[1] > 16):
                levels.append(x)
        return levels


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        expand = [] if expansion == 1 else [_convolution(channels, inner, 1)]
        self.layers = nn.Sequential(
            *expand, _convolution(inner, inner, 3, stride=stride, groups=inner), nn.Conv2d(inner, out, 1)
        )
        self.stride, self.added = stride, stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.added else y


class _Convolved(nn.Sequential):
    """A convolution and ReLU6 behind it, in one operation where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        convolution = self[0]
        assert isinstance(convolution, nn.Conv2d)
        if fused.available(x):
            return fused.convolve(convolution, x, ceiling=6.0)
        result: Tensor = super().forward(x)
        return result


def _convolution(channels: int, out: int, side: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return _Convolved(nn.Conv2d(channels, out, side, stride, side // 2, groups=groups), nn.ReLU6())


def _trunk(config: SamConfig) -> nn.Module:
    if config.trunk == "mobilenet_v2":
        return MobileNetV2()
    hiera: nn.Module = Hiera(
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        stages=config.stages,
        global_att_blocks=config.global_att_blocks,
        window_pos_embed_bkg_spatial_size=config.window_pos_embed_bkg_spatial_size,
        window_spec=config.window_spec,
    )
    return hiera


def build_sam(config: SamConfig) -> SAM2Base:
    """Build SAM-2.0 with random weights, wired as sam2's published `sam2_hiera_*.yaml` files are.

    Where the configuration has `match_dim`, it has a `FeatureMatching` as `matching` beside SAM-2's own modules, and
    where it has `original_decoder`, a second mask decoder as `original_mask_decoder`.
    """
    d, grid = config.d_model, config.image_size // 16

    def rope(**extra: object) -> RoPEAttention:
        return RoPEAttention(
            rope_theta=10000.0,
            feat_sizes=(grid, grid),
            embedding_dim=d,
            num_heads=1,
            downsample_rate=1,
            dropout=0.1,
            **extra,
        )

    def positions(features: int) -> SharedPositions:
        return SharedPositions(num_pos_feats=features, normalize=True, scale=None, temperature=10000)

    sam = SAM2Base(
        image_encoder=ImageEncoder(
            scalp=1,
            trunk=_trunk(config),
            neck=FpnNeck(
                position_encoding=positions(d),
                d_model=d,
                backbone_channel_list=config.backbone_channels,
                fpn_top_down_levels=[2, 3],
                fpn_interp_model="nearest",
            ),
        ),
        memory_attention=MemoryAttention(
            d_model=d,
            pos_enc_at_input=True,
            layer=MemoryAttentionLayer(
                activation="relu",
                dim_feedforward=8 * d,
                dropout=0.1,
                pos_enc_at_attn=False,
                self_attention=rope(),
                d_model=d,
                pos_enc_at_cross_attn_keys=True,
                pos_enc_at_cross_attn_queries=False,
                cross_attention=rope(rope_k_repeat=True, kv_in_dim=config.memory_dim),
            ),
            num_layers=config.memory_layers,
        ),
        memory_encoder=MemoryEncoder(
            out_dim=config.memory_dim,
            in_dim=d,
            position_encoding=positions(config.memory_dim),
            mask_downsampler=MaskDownSampler(embed_dim=d, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(
                CXBlock(dim=d, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True),
                num_layers=2,
            ),
        ),
        num_maskmem=config.num_maskmem,
        image_size=config.image_size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=True,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=False,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
    )
    if config.original_decoder:
        sam.original_mask_decoder = copy.deepcopy(sam.sam_mask_decoder)
    if config.match_dim:
        sam.matching = FeatureMatching(config.backbone_channels[::-1][1:3], config.match_dim)
    return sam


@dataclass
class FrameFeatures:
    """What the mask decoder needs of n frames. C is SAM-2's d_model, S its image size.

    Attributes:
        low: [n, C, S/16, S/16], before any memory is fused in.
        high: [n, C/8, S/4, S/4] and [n, C/4, S/8, S/8].
        position: [n, C, S/16, S/16], the sine encoding of `low`; a view of one, the same for every frame.
        match: [n, match_dim, S/8, S/8], what cells are matched by; None for a model without feature matching.
    """

    low: Tensor
    high: tuple[Tensor, Tensor]
    position: Tensor
    match: Tensor | None = None

    def take(self, frames: Sequence[int] | Tensor) -> FrameFeatures:
        """Return the features of k of these frames (i64 [k]); a frame may stand there several times."""
        chosen: slice | Tensor = torch.as_tensor(frames, device=self.low.device)
        if isinstance(frames, Sequence) and frames and list(frames) == list(range(frames[0], frames[-1] + 1)):
            chosen = slice(frames[0], frames[-1] + 1)  # a view
        low, high = self.low[chosen], (self.high[0][chosen], self.high[1][chosen])
        match = None if self.match is None else self.match[chosen]
        return FrameFeatures(low, high, self.position[:1].expand(len(low), -1, -1, -1), match)

    @classmethod
    def joined(cls, parts: Sequence[FrameFeatures]) -> FrameFeatures:
        """Return the features of all frames of several parts, in order."""
        if len(parts) == 1:
            return parts[0]
        low = torch.cat([part.low for part in parts])
        high = (torch.cat([part.high[0] for part in parts]), torch.cat([part.high[1] for part in parts]))
        matches = [part.match for part in parts if part.match is not None]
        position = parts[0].position[:1].expand(len(low), -1, -1, -1)
        return cls(low, high, position, torch.cat(matches) if matches else None)


@dataclass
class Decoded:
    """The best of the three masks of k (frame, expression) pairs.

    Attributes:
        logits: f32 [k, S/4, S/4].
        iou: f32 [k], predicted IoU of that mask.
        existence: f32 [k], object score logit.
        token: [k, C], output token of that mask, from which the object pointer is made.
        all_logits, all_ious: [k, 3, S/4, S/4] and [k, 3], for training.
    """

    logits: Tensor
    iou: Tensor
    existence: Tensor
    token: Tensor
    all_logits: Tensor
    all_ious: Tensor


def encode_frames(sam: SAM2Base, pixels: Tensor, *, fuse: bool = True) -> FrameFeatures:
    """Run the trunk and the FPN on a batch of frames, f32 [n, 3, S, S].

    Args:
        sam: the model.
        pixels: the frames.
        fuse: take fused operations where there are any; else sam2's own forward pass.
    """
    return encode_for((sam,), pixels, fuse=fuse)[0]


def encode_for(sams: Sequence[SAM2Base], pixels: Tensor, *, fuse: bool = True) -> list[FrameFeatures]:
    """Run the trunk and the FPN once for several SAM-2s which differ in nothing but their mask decoders.

    Each decoder has its own projections of the two fine levels (`conv_s0`, `conv_s1`); the rest is shared.

    Args:
        sams: the models, at least one.
        pixels: the frames, f32 [n, 3, S, S].
        fuse: see `encode_frames`.
    """
    sam, decoders = sams[0], [one.sam_mask_decoder for one in sams]
    weight = sam.image_encoder.neck.convs[0].conv.weight
    pixels = pixels.to(weight.device, weight.dtype)
    if fuse and fused.available(pixels) and fused.foldable(sam):
        fine, low = fused.encode(sam, pixels, decoders)
        position = sam.image_encoder.neck.position_encoding(low)
        return [FrameFeatures(low=low, high=high, position=position) for high in fine]
    encoder, matching = sam.image_encoder, matching_of(sam)
    if matching is None:
        out = encoder(pixels)
        levels, positions, match = out["backbone_fpn"], out["vision_pos_enc"], None
    else:  # the same, with a look at what the trunk says
        seen = encoder.trunk(pixels)
        match = matching.features(*seen[1:3])
        levels, positions = (maps[: -encoder.scalp] for maps in encoder.neck(seen))
    # The FPN adds its levels in fp32 and positions are fp32, whatever the weights are.
    low = levels[2].to(weight.dtype)
    position = positions[-1][:1].to(weight.dtype).expand(len(low), -1, -1, -1)
    return [
        FrameFeatures(
            low=low,
            high=(
                decoder.conv_s0(levels[0]).to(weight.dtype),
                decoder.conv_s1(levels[1]).to(weight.dtype),
            ),
            position=position,
            match=match,
        )
        for decoder in decoders
    ]


def without_memory(sam: SAM2Base, features: FrameFeatures) -> Tensor:
    """Return `low` with the no-memory embedding: a frame that no other frame conditions."""
    return features.low + sam.no_mem_embed.view(1, -1, 1, 1)


def decode(
    sam: SAM2Base,
    low: Tensor,
    high: tuple[Tensor, Tensor],
    language: Tensor | None,
    *,
    no_object_masking: bool,
    points: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None,
    added: Tensor | None = None,
    fuse: bool = True,
) -> Decoded:
    """Decode k pairs at once.

    The sparse prompt is SAM-2's own padding (two `not_a_point` tokens, or the points) and then the language token.

    Args:
        low: [k, C, S/16, S/16], with memory or the no-memory embedding already fused in.
        high: the pair of high-resolution maps, [k, ...].
        language: [k, C], the projected [SEG] of each pair; None when only points or a mask prompt.
        no_object_masking: set the logits of absent objects to SAM-2's constant for them.
        points: coordinates f32 [k, P, 2] in SAM-2's pixels and labels i32 [k, P].
        mask: f32 [k, 1, S/4, S/4] mask prompt.
        added: f32 [k, 1, S/4, S/4], added to the logits of all three masks.
        fuse: take fused operations where there are any; else sam2's own forward pass.
    """
    k = low.shape[0]
    if points is None:
        points = (
            torch.zeros(k, 1, 2, device=low.device),
            -torch.ones(k, 1, dtype=torch.int32, device=low.device),
        )
    sparse, dense = sam.sam_prompt_encoder(points=points, boxes=None, masks=mask)
    if language is not None:
        sparse = torch.cat([sparse, language[:, None].to(sparse.dtype)], dim=1)
    positions = sam.sam_prompt_encoder.get_dense_pe().to(low.dtype)
    if fuse and fused.available(low):
        logits, ious, tokens, existence = fused.predict(
            sam.sam_mask_decoder, low + dense, positions, sparse, high
        )
    else:
        logits, ious, tokens, existence = sam.sam_mask_decoder(
            image_embeddings=low,
            image_pe=positions,
            sparse_prompt_embeddings=sparse.to(low.dtype),
            dense_prompt_embeddings=dense.to(low.dtype),
            multimask_output=True,
            repeat_image=False,
            high_res_features=list(high),
        )
    logits, ious, existence = logits.float(), ious.float(), existence.float()[:, 0]
    if added is not None:
        logits = logits + added
    if no_object_masking:
        logits = torch.where((existence > 0)[:, None, None, None], logits, NO_OBJ_SCORE)
    best = ious.argmax(dim=1)
    rows = torch.arange(k, device=low.device)
    return Decoded(
        logits=logits[rows, best],
        iou=ious[rows, best],
        existence=existence,
        token=tokens[rows, best],
        all_logits=logits,
        all_ious=ious,
    )


def encode_in_parts(sam: SAM2Base, pixels: NDArray[np.uint8], parts: Parts) -> FrameFeatures:
    """Encode frames u8 [n, S, S, 3], as many at a time as memory allows. Raises `SvacError` where one is too much."""
    return FrameFeatures.joined(
        parts.run(lambda some: encode_frames(sam, astc.sam_pixels(some)), pixels),
    )


T = TypeVar("T")
Then = Callable[[range, FrameFeatures | None], T]

# A window at SAM-2's size has so many pixels, and so many frames at most: more take memory and no less time. On a CPU
# large frames gain nothing by company, and whoever waits sees sooner how it goes.
_WINDOW_PIXELS, _WINDOW_PIXELS_CPU, _WINDOW_FRAMES = 16 * 1024**2, 4 * 1024**2, 32
# What Hiera-L needs for a pixel in bf16 while it works: 16 maps of 144 channels at a quarter of the side. Computed.
_PIXEL_BYTES = 288


class FrameEncoder:
    """Encodes windows of frames.

    Args:
        sam: the model.
        workers: each takes a part of a window's frames.
        known: frames whose masks are there without features: these are passed over.
    """

    def __init__(self, sam: SAM2Base, workers: Workers, known: Collection[int] = ()) -> None:
        self.sam = sam
        self.workers = workers
        self.known = frozenset(known)
        self.parts = Parts(_WINDOW_FRAMES)

    @property
    def ahead(self) -> bool:
        """Whether a window is encoded while the caller does something else."""
        return self.workers.count > 1

    def start(self, first: int, pixels: NDArray[np.uint8], then: Then[T]) -> Callable[[], list[T]]:
        """Begin to encode frames, u8 [n, S, S, 3], the first of which is frame `first`.

        Each worker goes on with its own part: `then` gets the part's frames, and the features of those that are not
        known, or None where all are. The callable that is returned waits for all parts and returns what `then` made of
        them, in order.
        """

        def work(share: range) -> T:
            frames = range(first + share.start, first + share.stop)
            new = [frame - first for frame in frames if frame not in self.known]
            chosen = pixels[share.start : share.stop] if len(new) == len(share) else pixels[new]
            return then(frames, encode_in_parts(self.sam, chosen, self.parts) if new else None)

        waiting = [self.workers.start(work, share) for share in self.workers.shares(len(pixels))]
        return lambda: [wait() for wait in waiting]


def frames_at_a_time(size: int, device: torch.device, free: int | None = None) -> int:
    """Return how many frames of a video are encoded at a time.

    Args:
        size: side of the pictures that SAM-2 sees, in pixels.
        device: where.
        free: bytes of its memory that are free, where that is known: a window takes half of them at most.
    """
    most = max(1, min(_WINDOW_FRAMES, _WINDOW_PIXELS // size**2))
    if device.type != "cpu":
        return most if free is None else max(1, min(most, free // (2 * _PIXEL_BYTES * size**2)))
    return min(most, max(_WINDOW_PIXELS_CPU // size**2, torch.get_num_threads()))
