"""Pickles that hold plain containers and nothing else: masks of benchmarks come from strangers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from svac_backend.errors import SvacError

_PLAIN = (dict, list, str, bytes, int, type(None))
_HINT = (
    "Do not open it with anything else unless you trust who made it; convert it to mask_dict.json, "
    "with the masks as COCO RLE."
)


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every name that a pickle asks for: without names it can neither import nor call anything."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object outside of it")


def load_plain(path: Path) -> Any:
    """Read a pickle of dict, list, str, bytes, int and None.

    Raises:
        SvacError: it can't be read, is damaged, or holds anything else; nothing of it was run.
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise SvacError(f"{path} is no pickle of plain containers: {error}.", _HINT) from error
    except OSError as error:
        raise SvacError(f"{path} cannot be read: {error.strerror}.", "Check the file.") from error
    _check(content, path)
    return content


def _check(content: Any, path: Path) -> None:
    """Look at every object once, however often it is referred to, and without recursion."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if type(value) not in (*_PLAIN, bool):
            raise SvacError(f"{path} holds a {type(value).__name__}, which is no plain container.", _HINT)
        if isinstance(value, dict | list):
            if id(value) in seen:
                continue
            seen.add(id(value))
            waiting.extend(value)
            if isinstance(value, dict):
                waiting.extend(value.values())
