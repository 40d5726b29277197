"""Runs the stages one after the other, each in a process of its own and within its time, and keeps what they found.

Called again with the same `--out`, it goes on with the stages that have no result yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def main() -> int:
    """Return the exit status: 0 when every stage that ran found what it should."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="what was found")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all stages together")
    parser.add_argument(
        "--only", default="", help="stages, by the beginnings of their names, with commas between"
    )
    parser.add_argument("--skip", default="", help="stages to leave out, likewise")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument(
        "--dry-run", action="store_true", help="small shapes on the CPU: does everything run?"
    )
    parser.add_argument("--device", default="", help="cuda, or cpu with --dry-run")
    parser.add_argument(
        "--write-docs", action="store_true", help="write what was found into docs/benchmarks.md"
    )
    parser.add_argument("--stage", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.device = asked.device or ("cpu" if asked.dry_run else "cuda")
    if asked.stage:
        return _run_stage(asked)
    if asked.write_docs:
        from lab.gpu_check.report import write_docs

        return write_docs(asked.out)
    return _run_all(asked)


def _run_stage(asked: argparse.Namespace) -> int:
    """Run one stage here, and print its result as the last line."""
    import torch

    from lab.gpu_check.stages import PARTS, STAGES, Run

    if asked.device == "cpu":
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        print(
            "torch sees no GPU here; see docs/models.md, or check with --dry-run on the CPU.", file=sys.stderr
        )
        return 2
    stage = (STAGES | PARTS)[asked.stage]
    result = stage.run(Run(torch.device(asked.device), asked.dry_run))
    print(json.dumps({"result": result}), flush=True)
    return 0


def _run_all(asked: argparse.Namespace) -> int:
    from lab.gpu_check.stages import STAGES

    kept = json.loads(asked.out.read_text()) if asked.out.is_file() and not asked.again else {}
    if kept.get("dry_run", asked.dry_run) != asked.dry_run:
        kept = {}
    found: dict[str, Any] = {"dry_run": asked.dry_run, "stages": kept.get("stages", {})}
    only, skip = (tuple(filter(None, text.split(","))) for text in (asked.only, asked.skip))
    ends = time.monotonic() + 60 * asked.minutes
    for name, stage in STAGES.items():
        if (only and not name.startswith(only)) or (skip and name.startswith(skip)):
            continue
        if "result" in found["stages"].get(name, {}):
            continue
        left = ends - time.monotonic()
        if left < 10:
            print(f"{name}: no time left; call it again to go on", flush=True)
            found["stages"].setdefault(name, {"problem": "no time was left"})
        else:
            print(f"{name} ...", flush=True)
            limit = left if asked.dry_run else min(left, stage.budget)
            found["stages"][name] = _in_process(name, asked, limit)
            print(f"  {json.dumps(found['stages'][name])[:400]}", flush=True)
        asked.out.write_text(json.dumps(found, indent=2) + "\n")
        if name == "machine" and "problem" in found["stages"][name]:
            break
    return 0 if all(good(one) for one in found["stages"].values()) else 1


def good(one: dict[str, Any]) -> bool:
    """Return whether a stage ended, and found what it should."""
    result = one.get("result")
    if result is None:
        return False
    return not result.get("failed") and result.get("reached", True) and result.get("same_masks", True)


def _in_process(name: str, asked: argparse.Namespace, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "lab.gpu_check", "--stage", name, "--device", asked.device]
    command += ["--dry-run"] if asked.dry_run else []
    begun = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"problem": f"not done after {limit:.0f} s"}
    seconds = round(time.monotonic() - begun, 1)
    if done.returncode:
        return {"problem": done.stderr[-3000:], "seconds": seconds}
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
