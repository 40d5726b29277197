"""The families there are, and which of them a folder is of. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from svac_backend.errors import SvacError
from svac_backend.svac.config import SvacConfig
from svac_backend.svac.families.family import SAM_KEYS, Family, Folder
from svac_backend.svac.families.internvl import Sa2va
from svac_backend.svac.families.qwen_vl import Qwen3Vl, Qwen25Vl
from svac_backend.svac.families.sa2va_i import Sa2vaI
from svac_backend.svac.families.sasasa2va import Sasasa2va


class Ours(Sa2va):
    """Models made here: InternVL's architecture in our own layout, which is read as it stands."""

    name, preset, title = "svac", "svac", "a model of this project"

    def recognises(self, folder: Folder) -> bool:
        """Return False: our config.json names its family."""
        return False


# The first one that recognises a folder is its family, so those that look like another come before it.
FAMILIES: tuple[Family, ...] = (Ours(), Qwen3Vl(), Qwen25Vl(), Sa2vaI(), Sasasa2va(), Sa2va())


@dataclass(frozen=True)
class Refusal:
    """A layout that looks like a family's and can't run here.

    Attributes:
        what: it is.
        why: it can't run, and what to use instead.
        recognises: whether a folder is of it.
    """

    what: str
    why: str
    recognises: Callable[[Folder], bool]


_OTHERS = "Use a Sa2VA model over InternVL2.5 or InternVL3, such as ByteDance/Sa2VA-4B"
REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "grounds with SAM 3 (Sa2VA-Qwen3-VL-4B-SAM3)",
        f"Only SAM-2 runs here. {_OTHERS}, or kumuji/Sa2VA-i-4B.",
        lambda folder: any(key.startswith(f"{SAM_KEYS}backbone.") for key in folder.keys),
    ),
    Refusal(
        "is built on LLaVA (Sa2VA-LLaVA-1.5-7B)",
        f"Its vision tower and language model don't run here. {_OTHERS}.",
        lambda folder: "llava" in repr(folder.data.get("architectures")).lower(),
    ),
    Refusal(
        "has Qwen3 as its language model (Qwen3ForCausalLM, InternVL3.5)",
        f"Qwen2 and InternLM2 run here. {_OTHERS}, or ByteDance/Sa2VA-InternVL3-8B.",
        lambda folder: "Qwen3ForCausalLM" in (folder.part("llm_config").get("architectures") or ()),
    ),
)


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
    for refusal in REFUSED:
        if refusal.recognises(folder):
            raise SvacError(f"This model {refusal.what}, which this version can't run.", refusal.why)
    for family in FAMILIES:
        if family.recognises(folder):
            return family
    raise SvacError(
        "config.json describes no model that this version knows.",
        f"It knows {', '.join(family.title for family in FAMILIES)}.",
    )
