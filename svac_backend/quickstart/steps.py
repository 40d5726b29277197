"""What the quickstart says while it works: each step, and the seconds it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console


@dataclass
class Steps:
    """Names and times the steps.

    Attributes:
        console: where it is said.
        seconds: step -> seconds, in the order they ended.
    """

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    seconds: dict[str, float] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print a line; square brackets in it are plain text."""
        self.console.print(f"[quickstart] {text}", markup=False)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step, and print its seconds when it succeeded."""
        self.say(f"{name} ...")
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
        self.say(f"{name}: {self.seconds[name]:.1f} s")
