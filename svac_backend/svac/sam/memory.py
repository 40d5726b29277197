"""SAM-2's memory: masks travel from conditioning frames to the frames that no [SEG] decodes.

Mask memories, object pointers and memory attention are SAM-2's own, and a model may match features beside them
(`matching.py`); this module keeps what has to be kept and drops the rest, so that memory stays the same however long
the video is.

The published models tune SAM-2's mask decoder without memory, and nothing else of it. So the rest of the original
SAM-2 is theirs too, and its mask decoder, which propagates better, may take the place of the tuned one (Sa2VA-i).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import select_closest_cond_frames
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.svac.files import checkpoints
from svac_backend.svac.sam.grounding import Decoded, FrameFeatures, decode
from svac_backend.svac.sam.matching import Remembered, matching_of

# Conditioning frames that cells are matched with, the nearest ones, and frames before this one.
MATCHED, BEFORE = 2, 2
_ORIGINAL = "sam.original_mask_decoder."


class MemoryTracker:
    """Tracks E objects through a video, frame by frame.

    Args:
        sam: the model.
        num_objects: E, tracked as one batch.
        num_frames: frames of the video (SAM-2 bounds the number of object pointers by it).
        no_object_masking: empty masks where the object score is not positive.
        nearest: how many conditioning frames a frame attends, the nearest ones, 2 or more; -1: all.
        fuse: take fused operations where there are any; else sam2's own mask decoder.
    """

    def __init__(
        self,
        sam: SAM2Base,
        num_objects: int,
        num_frames: int,
        *,
        no_object_masking: bool,
        nearest: int = -1,
        fuse: bool = True,
    ) -> None:
        self.sam = sam
        self.num_objects = num_objects
        self.num_frames = num_frames
        self.no_object_masking = no_object_masking
        self.nearest = nearest
        self.fuse = fuse
        self.outputs: dict[str, dict[int, dict[str, Any]]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        self._position: list[Tensor] | None = None

    def restart(self) -> None:
        """Forget the tracked frames, and keep the conditioning frames: tracking begins anew from one of them."""
        self.outputs["non_cond_frame_outputs"].clear()

    def condition(
        self, index: int, features: FrameFeatures, logits: Tensor, existence: Tensor, token: Tensor
    ) -> None:
        """Remember a conditioning frame.

        Args:
            index: 0-based frame index.
            features: of this one frame.
            logits: f32 [E, S/4, S/4].
            existence: f32 [E].
            token: [E, C], SAM-2's output token of each mask.
        """
        self.outputs["cond_frame_outputs"][index] = self._remember(features, logits, existence, token)

    def condition_masks(self, index: int, features: FrameFeatures, masks: Tensor) -> Tensor:
        """Remember a conditioning frame by masks that are taken as they are, as SAM-2 does with a user's masks.

        Args:
            index: 0-based frame index.
            features: of this one frame.
            masks: bool [E, H, W], at any size.

        Returns:
            f32 [E, S/4, S/4], the logits that SAM-2 keeps of them: about 10 within, -10 without.
        """
        self.outputs["cond_frame_outputs"][index], logits = self._take(features, masks)
        return logits

    def absent(self, index: int, features: FrameFeatures) -> None:
        """Remember that the objects are not on a frame, as if that had been tracked; arguments as above."""
        size = self.sam.image_size
        masks = torch.zeros(self.num_objects, size, size, dtype=torch.bool, device=features.low.device)
        self.outputs["non_cond_frame_outputs"][index], _ = self._take(features, masks)

    def track(self, index: int, features: FrameFeatures, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """Predict the next frame from memory; returns logits f32 [E, S/4, S/4] and scores f32 [E].

        Args:
            index: 0-based frame index.
            features: of this one frame.
            reverse: the frame that was tracked before is the one after this one.
        """
        many = features.take([0] * self.num_objects)
        recent = self.outputs["non_cond_frame_outputs"]
        near, far = select_closest_cond_frames(index, self.outputs["cond_frame_outputs"], self.nearest)
        fused = self.sam._prepare_memory_conditioned_features(
            frame_idx=index,
            is_init_cond_frame=False,
            current_vision_feats=[_sequence(many.low)],
            current_vision_pos_embeds=[_sequence(many.position)],
            feat_sizes=[many.low.shape[-2:]],
            # As in SAM-2, a conditioning frame that is not among the nearest may still be a recent one.
            output_dict={"cond_frame_outputs": near, "non_cond_frame_outputs": recent | far},
            num_frames=self.num_frames,
            track_in_reverse=reverse,
        )
        matched = self._matched(index, features, reverse)
        out = decode_tracked(self.sam, fused, many, matched, self.no_object_masking, fuse=self.fuse)
        recent[index] = self._remember(features, out.logits, out.existence, out.token)
        # Mask memories reach back num_maskmem frames, object pointers max_obj_ptrs_in_encoder frames.
        for old in [i for i in recent if abs(index - i) >= self.sam.max_obj_ptrs_in_encoder]:
            del recent[old]
        return out.logits, out.score

    def _matched(self, index: int, features: FrameFeatures, reverse: bool) -> Tensor | None:
        """Return where the objects are by the features of cells, logits f32 [E, S/8, S/8], if the model matches."""
        matching = matching_of(self.sam)
        if matching is None:
            return None
        assert features.match is not None
        conditioning, recent = self.outputs["cond_frame_outputs"], self.outputs["non_cond_frame_outputs"]
        nearest = sorted(conditioning, key=lambda i: abs(index - i))[:MATCHED]
        step = -1 if reverse else 1
        before = [
            i
            for i in (index - step * back for back in range(1, BEFORE + 1))
            if i in recent or i in conditioning
        ]
        found: Tensor = matching(
            features.match,
            Remembered.of([conditioning[i]["match"] for i in nearest]),
            Remembered.of([(recent.get(i) or conditioning[i])["match"] for i in before or nearest[:1]]),
        )
        return found[0]

    def _remember(
        self, features: FrameFeatures, logits: Tensor, existence: Tensor, token: Tensor
    ) -> dict[str, Any]:
        """Encode a frame and its masks into a mask memory and an object pointer per object."""
        size = self.sam.image_size
        high = F.interpolate(logits[:, None], size=(size, size), mode="bilinear", align_corners=False)
        present = (existence > 0).to(token.dtype)[:, None]
        pointer = present * self.sam.obj_ptr_proj(token) + (1 - present) * self.sam.no_obj_ptr
        return self._encode(features, high, existence[:, None], pointer, logits)

    def _take(self, features: FrameFeatures, masks: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Encode masks, bool [E, H, W], that come from outside; without any pixel there is no object.

        Returns what is remembered, and the masks' logits f32 [E, S/4, S/4].
        """
        size = (self.sam.image_size, self.sam.image_size)
        many = features.take([0] * self.num_objects)
        scaled = F.interpolate(
            masks[:, None].float(), size=size, mode="bilinear", align_corners=False, antialias=True
        )
        # SAM-2 computes in fp32 here, whatever the weights are.
        with torch.autocast(many.low.device.type, many.low.dtype, enabled=many.low.dtype != torch.float32):
            out = self.sam._use_mask_as_output(many.low, list(many.high), (scaled >= 0.5).float())
        low, pointer, existence = out[3].float(), out[5].to(many.low.dtype), out[6]
        high = F.interpolate(low, size=size, mode="bilinear", align_corners=False)
        return self._encode(features, high, existence, pointer, low[:, 0]), low[:, 0]

    def _encode(
        self, features: FrameFeatures, high: Tensor, existence: Tensor, pointer: Tensor, logits: Tensor
    ) -> dict[str, Any]:
        """Return what is remembered of a frame: `high`, logits [E, 1, S, S], become memories [E, 64, S/16, S/16]."""
        memory, position = self.sam._encode_new_memory(
            current_vision_feats=[_sequence(features.low).expand(-1, self.num_objects, -1)],
            feat_sizes=[features.low.shape[-2:]],
            pred_masks_high_res=high.to(features.low.dtype),
            object_score_logits=existence,
            is_mask_from_pts=False,
        )
        # Positions are the same for every frame: kept once.
        self._position = self._position or position
        # The published code keeps mask memories in bf16, on the CPU too; beside fp16 weights only fp16 will do.
        kept = memory.bfloat16()
        return {
            "maskmem_features": kept.half() if memory.dtype == torch.float16 else kept,
            "maskmem_pos_enc": self._position,
            "obj_ptr": pointer,
            "match": matchable(features.match, logits[None]),
        }


Matchable = tuple[Tensor, Tensor]


def matchable(features: Tensor | None, logits: Tensor) -> Matchable | None:
    """Return what is kept of a frame for matching: its features and the shares of its cells that objects cover.

    Args:
        features: [B, D, S/8, S/8]; None for a model that does not match.
        logits: f32 [B, E, S/4, S/4], of its masks.
    """
    return None if features is None else (features, F.avg_pool2d(logits.sigmoid(), 2))


def decode_tracked(
    sam: SAM2Base,
    fused: Tensor,
    features: FrameFeatures,
    matched: Tensor | None,
    no_object_masking: bool,
    *,
    fuse: bool = True,
) -> Decoded:
    """Decode k pairs from memory.

    Args:
        fused: [k, C, S/16, S/16], into which memory attention has put what it remembers.
        features: of the k frames.
        matched: f32 [k, S/8, S/8], where feature matching finds the objects: the mask prompt, and added to the masks.
    """
    matching = matching_of(sam)
    if matched is None or matching is None:
        return decode(
            sam, fused, features.high, None, no_object_masking=no_object_masking, source="carried", fuse=fuse
        )
    large = F.interpolate(matched[:, None], scale_factor=2, mode="bilinear", align_corners=False)
    added = matching.weight * large
    return decode(
        sam,
        fused,
        features.high,
        None,
        no_object_masking=no_object_masking,
        mask=large.to(fused.dtype),
        added=added,
        source="carried",
        fuse=fuse,
    )


def original_sam(sam: SAM2Base, path: Path) -> SAM2Base:
    """Return the same model with the mask decoder of a file, or of a folder of files; all other weights are shared.

    Raises:
        SvacError: nothing is there, it is damaged, or it holds no mask decoder of this shape.
    """
    decoder = copy.deepcopy(sam.sam_mask_decoder)
    checkpoints.load_into(decoder, _mask_decoder(path))
    return _with_decoder(sam, decoder.eval())


def tracking_sam(sam: SAM2Base) -> SAM2Base:
    """Return the SAM-2 that propagates: with the original mask decoder where the model has one, sharing all else."""
    return _with_decoder(sam, sam.original_mask_decoder) if hasattr(sam, "original_mask_decoder") else sam


def _with_decoder(sam: SAM2Base, decoder: nn.Module) -> SAM2Base:
    other = copy.copy(sam)
    other._modules = dict(sam._modules)
    other._modules.pop("seg_matching", None)  # it propagates, and takes no [SEG]
    other.sam_mask_decoder = decoder
    return other


def _mask_decoder(path: Path) -> dict[str, Tensor]:
    """Read the tensors `...sam_mask_decoder.*` of a safetensors file, or of a folder of them."""
    # Our own files of Sa2VA-i have the tuned decoder under the plain name.
    state: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                    before, found, name = key.partition("sam_mask_decoder.")
                    if found and (not before or before.endswith(".")):
                        state[name] = tensors.get_tensor(key)
                    if key.startswith(_ORIGINAL):
                        ours[key.removeprefix(_ORIGINAL)] = tensors.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise SvacError(
                f"{file} can't be read as safetensors ({error}).",
                "Set SVAC_ORIGINAL_SAM to a safetensors file.",
            ) from error
    state = ours or state
    if not state:
        raise SvacError(
            f"{path} holds no SAM-2 mask decoder.",
            "Give the original SAM-2.0 in sam2's own layout as safetensors, or a Sa2VA-i checkpoint.",
        )
    return state


def _sequence(maps: Tensor) -> Tensor:
    """[n, C, h, w] -> [h*w, n, C], the order SAM-2's attention wants."""
    return maps.flatten(2).permute(2, 0, 1)
