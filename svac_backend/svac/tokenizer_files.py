"""The one tokenizer file that is read: `tokenizer.json`. Never remote code."""

from __future__ import annotations

from pathlib import Path

from svac_backend.errors import SvacError


def tokenizer_file(folder: Path) -> Path:
    """Return a model folder's `tokenizer.json`.

    Raises:
        SvacError: the folder has none.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SvacError(f"{path} is missing.", "Download the model again.")
    return path
