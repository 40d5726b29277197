"""What the drill counts as lost, doubled, changed or failed, and that its verdicts follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from lab.drill.faults import count, summary
from lab.drill.fuzz import malformed
from lab.drill.label_studio import StandIn


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    here = StandIn(b"a clip")
    yield here
    here.leave()


def test_what_became_of_tasks(stand_in: StandIn) -> None:
    numbers = [stand_in.add_task({}) for _ in range(5)]
    well, twice, lost, failed, late = numbers
    for task in (well, twice, twice):
        stand_in.store(task, {"result": []})
    states = {well: "done", twice: "done", lost: "done", failed: "failed", late: "running"}
    jobs = [{"task_id": str(task), "state": state, "error": None} for task, state in states.items()]
    stage: Any = SimpleNamespace(label_studio=stand_in, jobs=lambda _: jobs)

    found = count(stage, numbers, 1.5)
    assert (found.lost, found.doubled, found.failed, found.late, found.changed) == (1, 1, 1, 1, 0)

    httpx.patch(f"{stand_in.url}/api/annotations/1001/", json={"result": []})
    stand_in.annotations[well] = []
    assert count(stage, numbers, 1.5).changed == 2

    outcome = summary("a fault", [found, count(stage, [well], 2.5)])
    assert not outcome.held
    figures = {figure.name: figure.value for figure in outcome.figures}
    assert (figures["doubled"], figures["median"], figures["worst"]) == (1, 2.0, 2.5)
    assert [figure["name"] for figure in outcome.to_json()["figures"] if not figure["held"]] == [
        *("lost", "doubled", "changed", "failed", "late")
    ]
    assert summary("no fault", [count(stage, [], 1.0)]).figures[3].name == "changed"


def test_the_stand_in_misbehaves_as_told(stand_in: StandIn) -> None:
    task = stand_in.add_task({"video": "x"})
    with httpx.Client(base_url=stand_in.url, timeout=20) as client:
        post = {"task": task, "result": [], "model_version": "m"}
        assert client.post("/api/predictions/", json=post).json()["id"] == 1
        assert [one["id"] for one in client.get(f"/api/predictions/?task={task}").json()] == [1]
        for mood, status in (("500", 500), ("403", 403)):
            stand_in.mood = mood  # type: ignore[assignment]
            assert client.post("/api/predictions/", json=post).status_code == status
        assert stand_in.counts() == {task: 1}

        stand_in.mood = "half"
        broken = 0
        for _ in range(10):
            try:
                client.post("/api/predictions/", json=post)
            except httpx.RemoteProtocolError:
                broken += 1
        assert 0 < broken < 10
        assert stand_in.counts() == {task: 11}  # what it did is done, however its answer ended

        stand_in.mood = "well"
        stand_in.leave()
        with pytest.raises(httpx.ConnectError):
            client.get("/api/projects/1/")
        stand_in.come_back()
        assert client.get("/api/projects/1/").json()["id"] == 1


def test_malformed_requests_are_the_same_for_a_seed() -> None:
    first, again, other = (list(islice(malformed(seed), 300)) for seed in (7, 7, 8))
    assert first == again != other
    assert {path for _, path, _, _ in first} >= {"/predict", "/webhook", "/setup"}
    unreadable = 0
    for _, _, data, _ in first:
        try:
            json.loads(data)
        except (ValueError, RecursionError):
            unreadable += 1
    assert 10 < unreadable < 150
