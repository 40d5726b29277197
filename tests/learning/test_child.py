"""A process that a job runs in: what it reports, and how it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from svac_backend.errors import JobCancelled, SvacError
from svac_backend.learning.child import Child, ChildDied

START = (
    "import os, sys, time\nfrom svac_backend.errors import SvacError\n"
    "from svac_backend.learning.child import Parent\n"
)
END = "\nsys.exit(parent.run(work))\n"

Make = Callable[[str], Child]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Starts a child whose `work()` has this body."""

    def start(body: str) -> Child:
        work = "\n".join(f"    {line}" for line in body.splitlines())
        script = f"{START}parent = Parent()\ndef work():\n{work}{END}"
        return Child([sys.executable, "-c", script], {"secret": "s"}, tmp_path / "log.txt")

    return start


@pytest.mark.parametrize(
    "said",
    [
        "OSError(28, 'No space left on device')",
        "RuntimeError('I/O error: No space left on device (os error 28)')",
    ],
)
def test_a_full_disk_is_told_as_something_that_time_mends(make: Make, said: str) -> None:
    with pytest.raises(SvacError, match="no room left") as caught:
        make(f"raise {said}").follow(lambda *_: None)
    assert caught.value.temporary


def test_reports_and_the_result_come_whatever_libraries_print(make: Make, tmp_path: Path) -> None:
    child = make(
        "print('{\"result\": 1}')\n"
        "os.system('echo from a process of its own')\n"
        "parent.progress(0.25, 'a quarter')\n"
        "return {'given': parent.config, 'stop': parent.should_stop()}"
    )
    told: list[tuple[float, str]] = []
    result = child.follow(lambda *report: told.append(report))
    assert result == {"given": {"secret": "s"}, "stop": False}
    assert (0.25, "a quarter") in told
    child.stop(5)
    log = (tmp_path / "log.txt").read_text()
    assert "from a process of its own" in log
    assert "secret" not in log


def test_an_error_for_people_passes_as_it_is(make: Make) -> None:
    child = make("raise SvacError('Memory ran out.', 'Use less.')")
    with pytest.raises(SvacError) as caught:
        child.follow(lambda *_: None)
    assert (caught.value.message, caught.value.hint) == ("Memory ran out.", "Use less.")
    child.stop(5)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("os.kill(os.getpid(), 9)", -9, "signal 9"),
        ("os._exit(3)", 3, "status 3"),
        ("raise ValueError('a mistake')", 1, "status 1"),
    ],
)
def test_a_child_without_a_result_has_died(
    make: Make, tmp_path: Path, body: str, code: int, said: str
) -> None:
    child = make(body)
    with pytest.raises(ChildDied, match=said) as caught:
        child.follow(lambda *_: None)
    assert caught.value.code == code
    child.stop(5)
    assert ("a mistake" in (tmp_path / "log.txt").read_text()) == (code == 1)


def test_a_child_that_says_nothing_stops_when_it_is_asked(make: Make) -> None:
    """It has no broken pipe to notice: only its standard input tells."""
    child = make("while not parent.should_stop():\n    time.sleep(0.01)\nreturn {}")
    time.sleep(1.0)
    begun = time.monotonic()
    child.stop(20)
    assert time.monotonic() - begun < 5
    assert not psutil.pid_exists(child.pid)


def test_a_child_that_does_not_stop_is_ended(make: Make) -> None:
    child = make("time.sleep(1000)")
    child.stop(0.5)
    assert not psutil.pid_exists(child.pid)


def test_the_parent_is_asked_while_the_child_is_silent(make: Make) -> None:
    """So a job is cancelled during a step that takes minutes."""
    child = make("parent.progress(0.5, 'a long step')\ntime.sleep(1000)")
    told: list[str] = []

    def tell(_: float, message: str) -> None:
        told.append(message)
        if told.count("a long step") == 3:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        child.follow(tell)
    child.stop(0.2)
    assert not psutil.pid_exists(child.pid)
