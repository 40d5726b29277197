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
import torch.nn.functional as F
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
from svac_backend.svac.sam.matching import FeatureMatching, SegMatching, matching_of, seg_matching_of
from svac_backend.svac.sam.mobilenet import MobileNetV2
from svac_backend.svac.sam.quality import Quality, Source, quality_of, signals


class SharedPositions(PositionEmbeddingSine):
    """SAM-2's sine encoding, shared by the frames of a batch instead of copied for each; the values are the same."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoding of maps [n, ..., h, w] as a view [n, C, h, w]."""
        return self._pe(1, x.device, *x.shape[-2:]).expand(len(x), -1, -1, -1)


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

    Where the configuration has `match_dim`, it has a `FeatureMatching` as `matching` beside SAM-2's own modules, where
    it has `seg_dim`, a `SegMatching` as `seg_matching`, and where it has `original_decoder`, a second mask decoder as
    `original_mask_decoder`.
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
    if config.quality:
        sam.quality = Quality(config.quality)
    if config.seg_dim:
        sam.seg_matching = SegMatching(config.backbone_channels[::-1][2:], d, config.seg_dim)
    return sam


@dataclass
class FrameFeatures:
    """What the mask decoder needs of n frames. C is SAM-2's d_model, S its image size.

    Attributes:
        low: [n, C, S/16, S/16], before any memory is fused in.
        high: [n, C/8, S/4, S/4] and [n, C/4, S/8, S/8].
        position: [n, C, S/16, S/16], the sine encoding of `low`; a view of one, the same for every frame.
        match: [n, match_dim, S/8, S/8], what cells are matched by; None for a model without feature matching.
        cells: [n, seg_dim, S/16, S/16], what a [SEG] is compared with; None for a model without such cells.
    """

    low: Tensor
    high: tuple[Tensor, Tensor]
    position: Tensor
    match: Tensor | None = None
    cells: Tensor | None = None

    def take(self, frames: Sequence[int] | Tensor) -> FrameFeatures:
        """Return the features of k of these frames (i64 [k]); a frame may stand there several times."""
        chosen: slice | Tensor = torch.as_tensor(frames, device=self.low.device)
        if isinstance(frames, Sequence) and frames and list(frames) == list(range(frames[0], frames[-1] + 1)):
            chosen = slice(frames[0], frames[-1] + 1)  # a view
        low, high = self.low[chosen], (self.high[0][chosen], self.high[1][chosen])
        match, cells = (None if maps is None else maps[chosen] for maps in (self.match, self.cells))
        return FrameFeatures(low, high, self.position[:1].expand(len(low), -1, -1, -1), match, cells)

    @classmethod
    def joined(cls, parts: Sequence[FrameFeatures]) -> FrameFeatures:
        """Return the features of all frames of several parts, in order."""
        if len(parts) == 1:
            return parts[0]
        low = torch.cat([part.low for part in parts])
        high = (torch.cat([part.high[0] for part in parts]), torch.cat([part.high[1] for part in parts]))
        position = parts[0].position[:1].expand(len(low), -1, -1, -1)
        matches = [part.match for part in parts if part.match is not None]
        cells = [part.cells for part in parts if part.cells is not None]
        return cls(low, high, position, *(torch.cat(maps) if maps else None for maps in (matches, cells)))


@dataclass
class Decoded:
    """The best of the three masks of k (frame, expression) pairs.

    Attributes:
        logits: f32 [k, S/4, S/4].
        iou: f32 [k], predicted IoU of that mask.
        existence: f32 [k], object score logit.
        score: f32 [k], 0..1, how good the mask is, and where nothing is drawn how near it was to be: by the model's
            `Quality`, or existence times predicted IoU.
        token: [k, C], output token of that mask, from which the object pointer is made.
        all_logits, all_ious: [k, 3, S/4, S/4] and [k, 3], for training.
    """

    logits: Tensor
    iou: Tensor
    existence: Tensor
    score: Tensor
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
    encoder, matching, saying = sam.image_encoder, matching_of(sam), seg_matching_of(sam)
    match = cells = None
    if matching is None and saying is None:
        out = encoder(pixels)
        levels, positions = out["backbone_fpn"], out["vision_pos_enc"]
    else:  # the same, with a look at what the trunk says
        seen = encoder.trunk(pixels)
        match = matching.features(*seen[1:3]) if matching else None
        cells = saying.cells(*seen[2:]) if saying else None
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
            cells=cells,
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
    existence: Tensor | None = None,
    source: Source = "told",
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
        existence: f32 [k], object score logits to take in place of the decoder's own.
        source: what the masks are made from, for their scores.
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
        logits, ious, tokens, objects = fused.predict(
            sam.sam_mask_decoder, low + dense, positions, sparse, high
        )
    else:
        logits, ious, tokens, objects = sam.sam_mask_decoder(
            image_embeddings=low,
            image_pe=positions,
            sparse_prompt_embeddings=sparse.to(low.dtype),
            dense_prompt_embeddings=dense.to(low.dtype),
            multimask_output=True,
            repeat_image=False,
            high_res_features=list(high),
        )
    logits, ious = logits.float(), ious.float()
    existence = objects.float()[:, 0] if existence is None else existence
    if added is not None:
        logits = logits + added
    if no_object_masking:
        logits = torch.where((existence > 0)[:, None, None, None], logits, NO_OBJ_SCORE)
    best = ious.argmax(dim=1)
    rows = torch.arange(k, device=low.device)
    score, quality = existence.sigmoid() * ious[rows, best], quality_of(sam)
    if quality is not None:
        drawn = (logits[rows, best] > 0).flatten(1).any(1)
        score = quality.score(source, signals(logits, ious, existence, added), drawn)
    return Decoded(
        logits=logits[rows, best],
        iou=ious[rows, best],
        existence=existence,
        score=score,
        token=tokens[rows, best],
        all_logits=logits,
        all_ious=ious,
    )


def decode_seg(
    sam: SAM2Base, features: FrameFeatures, language: Tensor, *, no_object_masking: bool, fuse: bool = True
) -> Decoded:
    """Decode k frames without memory with a [SEG] each.

    Args:
        features: of the k frames.
        language: [k, C], the projected [SEG] of each.
        no_object_masking, fuse: as in `decode`.
    """
    low, saying = without_memory(sam, features), seg_matching_of(sam)
    if saying is None or features.cells is None:
        language = language.to(low.dtype)
        return decode(sam, low, features.high, language, no_object_masking=no_object_masking, fuse=fuse)
    found = saying(features.cells, language)
    large = F.interpolate(found[:, None], scale_factor=4, mode="bilinear", align_corners=False)
    return decode(
        sam,
        low,
        features.high,
        None,
        no_object_masking=no_object_masking,
        mask=large.to(low.dtype),
        added=saying.weight * large,
        existence=saying.existence(found),
        fuse=fuse,
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
