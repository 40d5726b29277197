"""The quick part of the drill, against the real server and worker."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from lab.benchmarks.server import COMMAND
from lab.drill import attacks
from lab.drill.faults import kill, kill_database, locked, play
from lab.drill.fuzz import fuzz_on
from lab.drill.load import press
from lab.drill.outcome import Figure, Options
from lab.drill.stage import Stage, task

pytestmark = pytest.mark.integration

OPTIONS = Options(tasks=1, away_s=2.0, patience_s=60.0, requests=150, clients=5, slow=20, rate=20, load_s=2.0)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("drill")) as stage:
        yield stage


def test_nothing_is_lost_when_the_web_process_is_killed(stage: Stage) -> None:
    found = play(stage, partial(kill, ("serve",)), OPTIONS)
    assert (found.lost, found.doubled, found.changed, found.failed, found.late) == (0, 0, 0, 0, 0)
    assert sum(stage.label_studio.counts().values()) == 1


def test_nothing_is_lost_when_the_database_is_locked(stage: Stage) -> None:
    found = play(stage, locked, OPTIONS)
    assert (found.lost, found.doubled, found.changed, found.failed, found.late) == (0, 0, 0, 0, 0)


def test_a_whole_project_is_predicted_once_though_its_command_and_its_worker_are_ended(stage: Stage) -> None:
    numbers = [stage.label_studio.add_task({}) for _ in range(4)]
    for number in numbers:
        stage.label_studio.tasks[number].update(task(number)["data"])

    def begin() -> subprocess.Popen[str]:
        # Where the tests run in the background of a script, Ctrl-C is ignored, and what they start would ignore it too.
        heeding = ["env", "--default-signal=INT"]
        return subprocess.Popen(
            [*heeding, *COMMAND, "prelabel-project", "--project", "1", "--ahead", "2", "--json"],
            env=stage.environment,
            cwd=stage.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    frozen = threading.Event()

    def freeze() -> None:
        stage.label_studio.on_listed = lambda: None
        stage.pause("worker", signal.SIGSTOP)
        frozen.set()

    # In the middle of a task, on machines of any speed: the worker has looked for its prediction, and will send one.
    stage.label_studio.on_listed = freeze
    first = begin()
    stage.until(frozen.is_set, "a task", 90)
    first.send_signal(signal.SIGINT)
    assert "The work goes on." in first.communicate(timeout=60)[1]
    assert first.returncode == 130
    stage.kill("worker")
    stage.start("worker")
    second = begin()
    said = json.loads(second.communicate(timeout=200)[0])
    assert (second.returncode, said["failed"], said["had"] + said["predicted"]) == (0, 0, said["tasks"])
    assert {str(number) for number in numbers} <= {one["task"] for one in said["open"]}
    assert (scores := [one["score"] for one in said["open"]]) == sorted(scores)
    assert {stage.label_studio.counts()[number] for number in numbers} == {1}
    assert len(stage.query("SELECT id FROM jobs WHERE kind = 'bulk'")) == 1, "the second command joined it"


def test_nothing_is_lost_when_postgresql_is_killed(tmp_path: Path) -> None:
    with Stage(tmp_path, database="postgresql") as stage:
        found = play(stage, kill_database, OPTIONS)
        assert (found.lost, found.doubled, found.changed, found.failed, found.late) == (0, 0, 0, 0, 0)
        told = "".join(stage.log(name) for name in ("serve", "worker"))
        assert stage.postgresql is not None
        assert stage.postgresql.password not in told
        assert "cannot be used" in told


def test_the_web_process_answers_under_load(stage: Stage) -> None:
    # In a thread: a browser test before this one in the same process may have left a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        milliseconds, tally = pool.submit(lambda: asyncio.run(press(stage, OPTIONS))).result()
    assert len(milliseconds) > 1
    assert tally["webhooks"] > 10


def test_malformed_requests_are_refused_and_webhooks_passed(stage: Stage) -> None:
    figures = {figure.name: figure for figure in fuzz_on(stage, OPTIONS).figures}
    for name in ("answers of 500 and more", "webhooks not passed"):
        assert figures[name].held, figures[name]
    assert figures["webhooks stored"].value > 5


@pytest.mark.parametrize(
    "attack",
    [attacks.claims, attacks.surrogate, attacks.half_sent, attacks.other_pages, attacks.takeover],
)
def test_attacks_come_to_nothing(stage: Stage, attack: Callable[[Stage], list[Figure]]) -> None:
    assert all(figure.held for figure in attack(stage)), attack.__doc__
