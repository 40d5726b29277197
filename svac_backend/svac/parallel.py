"""Cores that work on frames of their own.

Frames that don't depend on each other are encoded, decoded and upsampled fastest on a CPU when every core takes other
frames and works alone: to share each small operation among cores costs more than it gains, and on a busy machine all of
them wait for the slowest. On a GPU, and for memory, which goes frame by frame, there is nothing to share out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")


class Workers:
    """Runs functions under inference mode; `count` at a time, or at once where it is called when there is one.

    Args:
        count: threads, each with one torch thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, "frames", initializer=torch.set_num_threads, initargs=(1,))

    def start(self, function: Callable[..., T], *args: object) -> Callable[[], T]:
        """Start it; what this returns waits for the result, and raises what the function raised."""
        if self._pool is None:
            result = _run(function, *args)
            return lambda: result
        return self._pool.submit(_run, function, *args).result

    def map(self, function: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """Return the results, in order."""
        return [wait() for wait in [self.start(function, item) for item in items]]

    def ahead(self, function: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        """Yield the results in order, made a few items ahead where there are threads for it."""
        if self._pool is None:
            for item in items:
                yield _run(function, item)
            return
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(self._pool.submit(_run, function, item))
            if len(waiting) > self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def shares(self, total: int) -> list[range]:
        """Return 0..total in as many ranges as there are workers; none is empty."""
        size = max(1, -(-total // self.count))
        return [range(start, min(start + size, total)) for start in range(0, total, size)]

    def close(self) -> None:
        """Drop what was not begun and wait for the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def frame_workers(device: torch.device, *, independent: bool) -> Iterator[Workers]:
    """Give a worker for each of torch's threads; until the end each operation gets one thread only.

    Args:
        device: where the model is.
        independent: whether frames can be worked on in any order.
    """
    if device.type != "cpu" or not independent:
        yield Workers(1)
        return
    count = _THREADS.narrow()
    workers = Workers(count)
    try:
        yield workers
    finally:
        workers.close()
        _THREADS.widen()


@contextmanager
def all_threads(workers: Workers) -> Iterator[None]:
    """Let one operation have all threads again, within `frame_workers`."""
    if workers.count == 1:
        yield
        return
    torch.set_num_threads(workers.count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


class _TorchThreads:
    """torch's number of threads belongs to the process: the first user narrows it, the last one widens it again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = 1

    def narrow(self) -> int:
        """Set it to one; returns what it was before the first user."""
        with self._lock:
            if self._users == 0:
                self._before = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(1)
            return self._before

    def widen(self) -> None:
        """Undo one `narrow`."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                torch.set_num_threads(self._before)


_THREADS = _TorchThreads()


@torch.inference_mode()
def _run(function: Callable[..., T], *args: object) -> T:
    """Inference mode belongs to the thread."""
    return function(*args)
