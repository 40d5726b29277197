"""SAM-2 as it was before fine-tuning: its mask decoder, which propagates better than a decoder tuned without memory.

The published models tune SAM-2's mask decoder alone, so that the rest of the original is theirs too (Sa2VA-i).
"""

from __future__ import annotations

import copy
from pathlib import Path

from safetensors import SafetensorError, safe_open
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from svac_backend.errors import SvacError
from svac_backend.svac.files import checkpoints

_PART = "sam_mask_decoder."


def read_mask_decoder(path: Path) -> dict[str, Tensor]:
    """Read the tensors `...sam_mask_decoder.*` of a safetensors file, or of a folder of them.

    Raises:
        SvacError: nothing is there, it is damaged, or it holds no mask decoder.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is no dict)
                    before, found, name = key.partition(_PART)
                    if found and (not before or before.endswith(".")):
                        state[name] = tensors.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise SvacError(
                f"{file} can't be read as safetensors ({error}).",
                "Set SVAC_ORIGINAL_SAM to a safetensors file.",
            ) from error
    if not state:
        raise SvacError(
            f"{path} holds no SAM-2 mask decoder.",
            "Give the original SAM-2.0 in sam2's own layout as safetensors, or a Sa2VA-i checkpoint.",
        )
    return state


def with_mask_decoder(sam: SAM2Base, decoder: nn.Module) -> SAM2Base:
    """Return the same model, sharing all other weights, with another mask decoder."""
    other = copy.copy(sam)
    other._modules = dict(sam._modules)
    other.sam_mask_decoder = decoder
    return other


def original_sam(sam: SAM2Base, path: Path) -> SAM2Base:
    """Return the model with the mask decoder of `path`; see `read_mask_decoder` for errors."""
    decoder = copy.deepcopy(sam.sam_mask_decoder)
    checkpoints.load_into(decoder, read_mask_decoder(path))
    return with_mask_decoder(sam, decoder.eval())
