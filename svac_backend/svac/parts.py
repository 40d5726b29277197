"""Work in parts as large as the device's memory allows: smaller ones when memory runs out, then a clear failure.

On a GPU nothing says beforehand how much an operation needs, and other programs take memory meanwhile. So a part that
does not fit is done again in halves, and the parts after it are as small from the start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, Self, TypeVar

import torch

from svac_backend.errors import SvacError

log = logging.getLogger(__name__)


class Sliceable(Protocol):
    """A list, an array or a tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> Self: ...


Items = TypeVar("Items", bound=Sliceable)
T = TypeVar("T")


class Parts:
    """Splits work; remembers what fitted.

    Args:
        size: most items of a part.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)

    def run(self, work: Callable[[Items], T], items: Items) -> list[T]:
        """Return what the work makes of each part, in order.

        Raises:
            SvacError: memory is not enough for a single item.
        """
        made: list[T] = []
        done = 0
        while done < len(items):
            part = items[done : done + self.size]
            try:
                made.append(work(part))
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise too_little_memory() from error
                self.size = len(part) // 2
                log.warning("memory ran out; going on with %d at a time", self.size)
            else:
                done += len(part)
                continue
            # Here, where the error and what its frames hold is gone.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return made


def too_little_memory() -> SvacError:
    """Return the error of a device on which a model can't run, however small the parts are."""
    return SvacError(
        "The GPU's memory is not enough for this model.",
        "Stop other programs that use the GPU (nvidia-smi lists them), choose a smaller model (svac-backend models "
        "list), show the model fewer frames (SVAC_PRESET), or set SVAC_DEVICE=cpu.",
    )


@contextmanager
def explained() -> Iterator[None]:
    """Turn memory that runs out where nothing can be made smaller into what a user can do about it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise too_little_memory() from error


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a GPU has free for this process, or None for another device."""
    if device.type != "cuda":
        return None
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held
