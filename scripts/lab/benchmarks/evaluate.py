"""J and F: our evaluation against the package `vos-benchmark`, on the same masks with as many processes, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table

from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import open_benchmark
from svac_backend.evaluation.predictions import Predictions
from svac_backend.evaluation.score import ExpressionScore, score
from svac_backend.evaluation.truth import open_truth

# Both are timed within their processes, without the imports: what counts for a large benchmark.
_VOS = """
import json, sys, time
from vos_benchmark.benchmark import benchmark
gt, masks, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.perf_counter()
_, j, f, objects = benchmark([gt], [masks], num_processes=processes, verbose=False, skip_first_and_last=False)
print(json.dumps([time.perf_counter() - start, j[0], f[0]]))
"""


@dataclass(frozen=True)
class ScorerResult:
    """One comparison.

    Attributes:
        masks: pairs of masks that were scored.
        processes: of each contender; ours starts fewer where there is little to score.
        vos_s, ours_s: the best of the rounds, in seconds.
        j, f: the means that both found, in per cent.
    """

    masks: int
    processes: int
    vos_s: float
    ours_s: float
    j: float
    f: float

    @property
    def share(self) -> float:
        """Our time as a share of theirs."""
        return self.ours_s / self.vos_s


def run(folder: Path, *, vos_python: Path | None = None, processes: int = 1, rounds: int = 3) -> ScorerResult:
    """Time both on `<folder>/<sequence>/{ground_truth,prediction}/<frame>.png`.

    Args:
        folder: the sequences; each must show its object.
        vos_python: the Python of an environment with vos-benchmark; None takes this one.
        processes: of each contender.
        rounds: the best one counts.

    Raises:
        SvacError: no masks, no vos-benchmark, or the two find other figures; no time means anything then.
    """
    vos_times, our_times = [], []
    with _layouts(folder) as root:
        for _ in range(rounds):
            seconds, vos_j, vos_f = _vos(root, vos_python or Path(sys.executable), processes)
            vos_times.append(seconds)
            started = time.perf_counter()
            scores = _ours(root, processes)
            our_times.append(time.perf_counter() - started)
            j, f = (100 * float(np.mean([getattr(s, part) for s in scores])) for part in ("j", "f"))
            if max(abs(j - vos_j), abs(f - vos_f)) > 1e-4:
                raise SvacError(
                    f"vos-benchmark finds J {vos_j:.4f} and F {vos_f:.4f}, we J {j:.4f} and F {f:.4f}.",
                    "Run the tests in tests/evaluation.",
                )
    return ScorerResult(
        sum(len(s.j_per_frame) for s in scores), processes, min(vos_times), min(our_times), j, f
    )


def table(result: ScorerResult) -> Table:
    """Return the result as a table."""
    found = Table(
        title=f"J and F of {result.masks} pairs of masks, up to {result.processes} process"
        f"{'es' if result.processes > 1 else ''} each; both find J {result.j:.2f} and F {result.f:.2f}"
    )
    for column in ("", "best s", "masks/s", "share of the time"):
        found.add_column(column, justify="right" if column else "left")
    for name, seconds in (("vos-benchmark", result.vos_s), ("ours", result.ours_s)):
        rate, share = result.masks / seconds, seconds / result.vos_s
        found.add_row(name, f"{seconds:.2f}", f"{rate:.0f}", f"{share:.2f}")
    return found


def _ours(root: Path, processes: int) -> list[ExpressionScore]:
    benchmark = open_benchmark("ref-davis17", root)
    truth = open_truth(benchmark)
    if truth is None:
        raise SvacError("The layout has no truth.", "Report this: it is a mistake in the benchmark.")
    return score(benchmark, truth, Predictions.found_in(root / "out", benchmark), workers=processes)


def _vos(root: Path, python: Path, processes: int) -> tuple[float, float, float]:
    command = [
        str(python),
        "-c",
        _VOS,
        str(root / "valid" / "Annotations"),
        str(root / "flat"),
        str(processes),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise SvacError(
            f"vos-benchmark does not run with {python}: {last[0]}",
            "Install it apart (python -m venv vos; vos/bin/pip install vos-benchmark) and give --vos-python.",
        )
    seconds, j, f = json.loads(done.stdout.splitlines()[-1])
    return seconds, j, f


@contextmanager
def _layouts(folder: Path) -> Iterator[Path]:
    """Make both programs' layouts out of links: Ref-DAVIS17 for us, folders of videos for vos-benchmark."""
    sequences = sorted(path.parent for path in folder.glob("*/ground_truth"))
    if not sequences:
        raise SvacError(
            f"There is no sequence in {folder}.", "Give folders with ground_truth and prediction."
        )
    with TemporaryDirectory() as name:
        root = Path(name)
        videos = {}
        for sequence in sequences:
            for target, part in (
                (root / "valid" / "Annotations" / sequence.name, "ground_truth"),
                (root / "flat" / sequence.name, "prediction"),
                (root / "out" / sequence.name / "0", "prediction"),
            ):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to((sequence / part).resolve())
            frames = sorted(path.stem for path in (sequence / "ground_truth").glob("*.png"))
            videos[sequence.name] = {"frames": frames, "expressions": {"0": {"exp": "it", "obj_id": "1"}}}
        meta = root / "meta_expressions" / "valid" / "meta_expressions.json"
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"videos": videos}))
        yield root
