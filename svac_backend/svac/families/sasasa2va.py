"""SaSaSa2VA (QuanzhuNiu/SaSaSa2VA-4B, -26B): Sa2VA's layout, run with clips, composites and a [SEG] for each clip.

How it is run is the preset `sasasa2va`; nothing in the weights tells it from Sa2VA, so its classes or its name must.
"""

from __future__ import annotations

from svac_backend.svac.families.family import Folder
from svac_backend.svac.families.internvl import Sa2va


class Sasasa2va(Sa2va):
    """SaSaSa2VA."""

    name, preset, title = "sasasa2va", "sasasa2va", "SaSaSa2VA"

    def recognises(self, folder: Folder) -> bool:
        """Return whether its classes, or its name, say so."""
        return folder.says("sasasa2va")
