"""The families there are, and which of them a folder is of. Free of torch."""

from __future__ import annotations

from svac_backend.errors import SvacError
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.families.family import Family, Folder
from svac_backend.svac.families.internvl import Sa2va
from svac_backend.svac.families.qwen_vl import Qwen3Vl, Qwen25Vl
from svac_backend.svac.families.sasasa2va import Sasasa2va


class Ours(Sa2va):
    """Models made here: InternVL's architecture in our own layout, which is read as it stands."""

    name, preset, title = "svac", "svac", "a model of this project"

    def recognises(self, folder: Folder) -> bool:
        """Return False: our config.json names its family."""
        return False


# The first one that recognises a folder is its family, so those that look like another come before it.
FAMILIES: tuple[Family, ...] = (Ours(), Qwen3Vl(), Qwen25Vl(), Sasasa2va(), Sa2va())


def named(name: str) -> Family:
    """Return the family of that name.

    Raises:
        SvacError: there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise SvacError(
        f"This version knows no model family {name!r}.",
        f"Update svac-backend; it knows {', '.join(family.name for family in FAMILIES)}.",
    )


def family_of(config: SvacConfig) -> Family:
    """Return a configuration's family. Raises `SvacError` where this version knows none of that name."""
    return named(config.family)


def recognise(folder: Folder) -> Family:
    """Return the family of a folder in a published layout.

    Raises:
        SvacError: it is of none, or of one that can't run here.
    """
    for family in FAMILIES:
        if family.recognises(folder):
            return family
    raise SvacError(
        "config.json describes no model that this version knows.",
        f"It knows {', '.join(family.title for family in FAMILIES)}.",
    )
