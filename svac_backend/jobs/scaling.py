"""How many workers with a model to run: more while jobs wait, fewer after a quiet while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from svac_backend.store.jobs import LaneLoad

# Waiting jobs per worker before another worker starts, and quiet seconds before a worker ends.
JOBS_EACH, QUIET_S = 2, 120.0


@dataclass
class Scale:
    """Decides on the number of workers.

    Attributes:
        least, most: bounds of the number; `most` wins.
        clock: a monotonic clock, in seconds.
    """

    least: int
    most: int
    clock: Callable[[], float] = time.monotonic
    _needed: list[tuple[float, int]] = field(default_factory=list)

    def workers(self, load: LaneLoad) -> int:
        """Return how many workers to run: the most that were needed at once within the last `QUIET_S`.

        Args:
            load: the load of the model's lane.
        """
        now = self.clock()
        need = min(max(load.running + math.ceil(load.waiting / JOBS_EACH), self.least), self.most)
        # Earlier, smaller needs no longer count.
        kept = [(then, count) for then, count in self._needed if now - then <= QUIET_S and count > need]
        self._needed = [*kept, (now, need)]
        return min(self._needed[0][1], self.most)


def most_workers(given: int, nodes: list[dict[str, float]], cpus: float, gpus: float) -> int:
    """Return how many workers the nodes have room for, at least one; `given` itself if it is not 0.

    Args:
        given: SVAC_WORKERS_MOST.
        nodes: each node's resources, `CPU` and `GPU`.
        cpus, gpus: what one worker takes.
    """
    if given:
        return given
    room = 0
    for node in nodes:
        by_cpu = node.get("CPU", 0.0) / cpus
        room += int(min(by_cpu, node.get("GPU", 0.0) / gpus) if gpus else by_cpu)
    return max(1, room)


def cpus_of_worker(given: float | None, nodes: list[dict[str, float]], gpus: float) -> float:
    """Return the cores that a worker takes; if `given` is None, 1 with a GPU, else up to 4 of the largest node's."""
    if given is not None:
        return given
    return 1.0 if gpus else min(4.0, max([1.0, *(node.get("CPU", 1.0) for node in nodes)]))
