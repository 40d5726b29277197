"""Where a model's files are and what its version is called. Free of torch: the web process asks too."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from svac_backend.errors import SvacError

EMBEDDED = {"svac-tiny": Path(__file__).parent.parent / "weights" / "svac-tiny"}


def locate(name_or_folder: str) -> Path:
    """Return the folder of an embedded model's name or of a folder's path.

    Raises:
        SvacError: nothing of that name is here.
    """
    folder = EMBEDDED.get(name_or_folder, Path(name_or_folder))
    if not (folder / "config.json").is_file():
        raise SvacError(
            f"There is no model at {name_or_folder!r}.",
            f"Set SVAC_MODEL to one of {', '.join(EMBEDDED)} or to a folder that holds config.json and safetensors.",
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder, sorted by name.

    Raises:
        SvacError: the folder has none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise SvacError(f"{folder} holds no safetensors file.", "Download the model again.")
    return files


@lru_cache(maxsize=8)
def model_version(name_or_folder: str) -> str:
    """Return `<preset>-<first 8 hex digits of the weights' hash>`, e.g. `svac-3fa9c1d2`.

    The hash is SHA-256 over each safetensors file's header and size and its first and last megabyte, so that a
    checkpoint of 20 GB is named in milliseconds.
    """
    folder = locate(name_or_folder)
    digest = hashlib.sha256()
    chunk = 1 << 20
    for path in weight_files(folder):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(chunk))
            file.seek(max(0, size - chunk))
            digest.update(file.read(chunk))
    preset = json.loads((folder / "config.json").read_text()).get("preset", "sa2va")
    return f"{preset}-{digest.hexdigest()[:8]}"
