"""Files and folders that are there whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a path beside `path`, free for a file or a folder, which takes the place of `path` at the end.

    Where the body raises, what it wrote is deleted and `path` stays as it was. A file replaces the file that was
    there; a folder must find its place empty.

    Args:
        path: in a folder that exists.
        durable: survive a power cut, too: the file's bytes are flushed to the disk before the name changes hands.

    Raises:
        OSError: the disk is full, `path` is a folder that is not empty, and the like.
    """
    # The name is this thread's own: two may write the same file, and the last to finish wins.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        if durable and part.is_file():
            descriptor = os.open(part, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        part.replace(path)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes | str, *, mode: int | None = None, durable: bool = False) -> None:
    """Write a file that readers see whole or not at all.

    Args:
        path: in a folder that exists.
        content: its bytes, or its text in UTF-8.
        mode: permissions, such as 0o600; by default as the process makes files.
        durable: see `atomic_path`.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    with atomic_path(path, durable=durable) as part:
        if mode is not None:
            part.touch(mode=mode)
        part.write_bytes(content.encode() if isinstance(content, str) else content)
