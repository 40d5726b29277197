"""Adapters as files: `adapter.safetensors` and `adapter.json`, which says what it is and what its bytes must be.

Free of torch, so that the registry can look at adapters too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from svac_backend.atomic import atomic_write
from svac_backend.errors import SvacError

WEIGHTS, ABOUT = "adapter.safetensors", "adapter.json"
FORMAT = "svac-backend-adapter"


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is.

    Attributes:
        sha256: of its weights' file.
        rank, alpha: of LoRA.
        dropout: LoRA's, in training.
        marks: some values of the model that it was trained on, by tensor's name: it fits no other.
        parent: id of the adapter that it was trained on from, or None.
        steps: how many it was trained for.
        bytes: size of its weights' file.
    """

    sha256: str
    rank: int
    alpha: int
    dropout: float
    marks: dict[str, list[float]]
    parent: str | None
    steps: int
    bytes: int

    @property
    def adapter_id(self) -> str:
        """The first 8 hex digits of the hash: the adapter's part of `model_version`."""
        return self.sha256[:8]


def read_adapter(folder: Path) -> AdapterInfo:
    """Read what an adapter is, without reading its weights.

    Raises:
        SvacError: there is no adapter, or its description is damaged.
    """
    path = folder / ABOUT
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError("another format")
        return AdapterInfo(**data)
    except FileNotFoundError as error:
        raise SvacError(
            f"There is no adapter in {folder}.", "Give the folder that fine-tuning wrote."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SvacError(
            f"{path} describes no adapter ({error}).", "Roll back to another version, or train again."
        ) from error


def verify_adapter(folder: Path) -> AdapterInfo:
    """Read what an adapter is, and check every byte of its weights.

    Raises:
        SvacError: it is not there, or it is damaged.
    """
    info = read_adapter(folder)
    found = file_sha256(folder / WEIGHTS)
    if found != info.sha256:
        raise SvacError(
            f"The adapter in {folder} is damaged: its weights are not those that were written.",
            "Roll back to another version, or restore the file from a backup.",
        )
    return info


def write_about(folder: Path, **fields: Any) -> AdapterInfo:
    """Describe the weights that lie in the folder; returns the description."""
    weights = folder / WEIGHTS
    info = AdapterInfo(sha256=file_sha256(weights), bytes=weights.stat().st_size, **fields)
    atomic_write(folder / ABOUT, json.dumps({"format": FORMAT, **asdict(info)}, indent=2) + "\n")
    return info


def file_sha256(path: Path) -> str:
    """Return a file's hash. Raises `SvacError` where it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SvacError(
            f"{path} can't be read ({error.strerror}).", "Roll back to another version, or train again."
        ) from error
