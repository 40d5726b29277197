"""Folders that look like adapters: some bytes, and the description that belongs to them."""

from __future__ import annotations

from pathlib import Path

from svac_backend.svac.files.adapters import WEIGHTS, AdapterInfo, write_about


def adapter_folder(folder: Path, content: bytes = b"some weights") -> AdapterInfo:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    return write_about(folder, rank=4, alpha=8, dropout=0.0, marks={}, parent=None, steps=3)
