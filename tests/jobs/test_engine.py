"""The context of a handler."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from svac_backend.errors import JobCancelled
from svac_backend.jobs.engine import Job, JobContext, JobInterrupted, JobState

JOB = Job(
    "id",
    "prelabel",
    JobState.RUNNING,
    "k",
    0,
    0.0,
    "",
    {"a": 1},
    None,
    None,
    None,
    1,
    False,
    "w",
    0.0,
    0.0,
    0.0,
    None,
)


def test_reports_are_few_and_within_bounds() -> None:
    reports: list[tuple[float, str]] = []

    def report(fraction: float, message: str) -> Job:
        reports.append((fraction, message))
        return JOB

    context = JobContext(JOB, report, threading.Event())
    assert context.payload == {"a": 1}
    for i in range(1000):
        context.progress(i / 100, "masks")
    assert reports[0] == (0.0, "masks")
    assert len(reports) < 20
    context.progress(7.0, "something new is said at once")
    context.progress(-1.0, "and this")
    assert reports[-2:] == [(1.0, "something new is said at once"), (0.0, "and this")]


def test_a_cancelled_job_stops_at_its_next_report() -> None:
    context = JobContext(JOB, lambda *_: replace(JOB, cancel_requested=True), threading.Event())
    with pytest.raises(JobCancelled):
        context.progress(0.5, "x")


def test_a_job_that_another_worker_has_stops() -> None:
    context = JobContext(JOB, lambda *_: None, threading.Event())
    with pytest.raises(JobInterrupted, match="another worker"):
        context.progress(0.5, "x")


def test_a_stopping_worker_stops_its_jobs_even_between_reports() -> None:
    stopping = threading.Event()
    context = JobContext(JOB, lambda *_: JOB, stopping)
    context.progress(0.5, "x")
    stopping.set()
    with pytest.raises(JobInterrupted, match="shuts down"):
        context.progress(0.5, "x")
