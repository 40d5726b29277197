"""Cores that work on frames of their own.

Frames that don't depend on each other are encoded and decoded fastest on a CPU when every core takes other frames and
works alone: to share each small operation among cores costs more than it gains, and on a busy machine all of
them wait for the slowest. On a GPU, and for memory, which goes frame by frame, there is nothing to share out.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

T = TypeVar("T")

# glibc's names in malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class Workers:
    """Runs functions under inference mode, `count` at a time; with a count of one, in the caller's thread.

    Args:
        count: threads, each with one torch thread.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, "frames", initializer=torch.set_num_threads, initargs=(1,))

    def start(self, function: Callable[..., T], *args: object) -> Callable[[], T]:
        """Start a function; returns a callable that waits for its result and raises what it raised."""
        if self._pool is None:
            result = _run(function, *args)
            return lambda: result
        return self._pool.submit(_run, function, *args).result

    def shares(self, total: int) -> list[range]:
        """Return 0..total in as many ranges as there are workers; none is empty."""
        size = max(1, -(-total // self.count))
        return [range(start, min(start + size, total)) for start in range(0, total, size)]

    def close(self) -> None:
        """Drop what was not begun and wait for the rest."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def single_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return a pool in whose threads each torch operation has one thread; other threads keep theirs.

    A thread that sets its own number sets that of threads to come as well; so all are started here, and then the
    caller's number is set again.
    """
    before = torch.get_num_threads()
    started = Barrier(count + 1)
    pool = ThreadPoolExecutor(count, name, initializer=_take_one_thread)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)
    return pool


def _take_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread's first question settles its number; until then it follows the process


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
    _keep_freed_memory()
    with _THREADS.narrowed() as count, closing(Workers(count)) as workers:
        yield workers


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


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep what a window freed for the next one.

    By default it gives large pieces back to the kernel at once and takes them again page by page, which costs more than
    some of the operations that use them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have no such knobs
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class _TorchThreads:
    """torch's number of threads belongs to the process: the first user narrows it, the last one widens it again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._before = 1

    @contextmanager
    def narrowed(self) -> Iterator[int]:
        """Set it to one; yields what it was before the first user."""
        with self._lock:
            if self._users == 0:
                self._before = torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(1)
        try:
            yield self._before
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    torch.set_num_threads(self._before)


_THREADS = _TorchThreads()


@torch.inference_mode()
def _run(function: Callable[..., T], *args: object) -> T:
    """Inference mode belongs to the thread."""
    return function(*args)
