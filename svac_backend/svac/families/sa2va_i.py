"""Sa2VA-i (kumuji/Sa2VA-i-1B, -4B, -8B, -26B): Sa2VA's layout with two mask decoders, and an inference of its own.

`sam_mask_decoder_modified.*` is the tuned decoder, which decodes [SEG] on key frames; `sam_mask_decoder.*` is the
original SAM-2.0's, which propagates from them. Here the tuned one is `sam.sam_mask_decoder`, as in every family: it is
what [SEG] means and what fine-tuning trains. How it is run is the preset `sa2va-i`.
Source: kumuji/Sa2VA-i at c5a809b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from svac_backend.svac.config import SvacConfig
from svac_backend.svac.families.family import SAM_KEYS, Folder
from svac_backend.svac.families.internvl import Sa2va

if TYPE_CHECKING:
    from torch import Tensor

_TUNED = f"{SAM_KEYS}sam_mask_decoder_modified."
_ORIGINAL = f"{SAM_KEYS}sam_mask_decoder."


class Sa2vaI(Sa2va):
    """Sa2VA-i."""

    name, preset, title = "sa2va-i", "sa2va-i", "Sa2VA-i"

    def recognises(self, folder: Folder) -> bool:
        """Return whether there are two mask decoders."""
        return any(key.startswith(_TUNED) for key in folder.keys)

    def read_config(self, data: Mapping[str, Any]) -> SvacConfig:
        """See `Family`; config.json is Sa2VA's."""
        config = super().read_config(data)
        return replace(config, sam=replace(config.sam, original_decoder=True))

    def convert(self, key: str, tensor: Tensor, config: SvacConfig) -> dict[str, Tensor]:
        """See `Family`."""
        for published, ours in ((_TUNED, "sam.sam_mask_decoder."), (_ORIGINAL, "sam.original_mask_decoder.")):
            if key.startswith(published):
                return {ours + key[len(published) :]: tensor}
        return super().convert(key, tensor, config)
