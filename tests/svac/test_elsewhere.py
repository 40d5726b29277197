"""Nothing of the model forgets to move a tensor to its device: every path runs on one that refuses to mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Of the paths those that together pass every family; all of them: `python -m tests.svac.every_path`, some ten minutes.
CHOSEN = (
    "embedded: segment",
    "embedded: propagate",
    "sa2va: segment",
    "sa2va-i: propagate",
    "sasasa2va: wrapped",
    "qwen3vl: segment",
    "qwen25vl: segment",
    "training: svac",
)


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_every_path_runs_on_another_device() -> None:
    """All families, prompts of all kinds and training, in a process of its own: the device is the whole process's."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.svac.every_path", *CHOSEN],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
        cwd=root,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(root), str(root / "scripts")])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["path"] for one in results] == list(CHOSEN)
    failed = [f"{one['path']}:\n{one['problem'][-2500:]}" for one in results if one["problem"]]
    assert not failed, "\n\n".join(failed)
