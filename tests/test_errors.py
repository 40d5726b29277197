"""The error that users see."""

from __future__ import annotations

import io
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from svac_backend.errors import (
    JobCancelled,
    LogJson,
    LogLine,
    SvacError,
    log_ids,
    one_line,
    split_address,
    without_secrets,
)
from svac_backend.labelstudio.api.errors import ApiRefusal


def test_it_says_what_is_wrong_and_what_to_do() -> None:
    assert str(SvacError("It broke.", "Mend it.")) == "It broke. Mend it."


def test_it_survives_the_way_between_processes() -> None:
    for error in (SvacError("It broke.", "Mend it."), JobCancelled(), ApiRefusal("No.", "Ask.", 403)):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__


@pytest.mark.parametrize(
    "address", ["http://[host/x.mp4", "http://host:port/x", "http://host:99999/", "http://]x["]
)
def test_an_address_without_sense_is_none(address: str) -> None:
    assert split_address(address) is None


def test_an_address_with_sense_is_split() -> None:
    parts = split_address("http://user:pw@host:80/x?y=1")
    assert parts is not None
    assert (parts.hostname, parts.port, parts.query) == ("host", 80, "y=1")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("get http://ann:pw@host:80/a/b.mp4 now", "get http://host:80/a/b.mp4 now"),
        ("s3://key:secret@bucket/k?X-Amz-Signature=abc&e=1, then", "s3://bucket/k?... then"),
        ("'https://h/v.mp4?sig=1#part'", "'https://h/v.mp4?...'"),
        ("https://h/v.mp4#token=1", "https://h/v.mp4?..."),
        ("http://:pw@h/ and HTTP://U:P@h/?q", "http://h/ and HTTP://h/?..."),
        ("mail ann@example.com? yes", "mail ann@example.com? yes"),
        ("/data/local-files/?d=a/b.mp4", "/data/local-files/?d=a/b.mp4"),
    ],
)
def test_addresses_lose_their_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_line_stays_a_line() -> None:
    assert (
        one_line("a\nb\r\x1b[31m\u2028c\u202e\x85\x00 ü 漢")
        == "a\\nb\\r\\x1b[31m\\u2028c\\u202e\\x85\\x00 ü 漢"
    )
    assert one_line("\ud800") == "\\ud800"


@contextmanager
def logger_to(formatter: logging.Formatter) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """Yield a logger, and what its lines are written to."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("tests.logged")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger, stream
    finally:
        logger.removeHandler(handler)


def test_foreign_text_forges_no_log_line() -> None:
    forged = "7\n2026-01-01 00:00:00,000 INFO svac_backend: job 1 is done"
    with logger_to(LogLine()) as (logger, stream):
        logger.warning("task %s of http://u:secret@h/v?sig=secret failed", forged)
        try:
            raise ValueError(f"{forged} at http://u:secret@h/v?sig=secret")
        except ValueError:
            logger.exception("unexpected")
    lines = stream.getvalue().splitlines()
    assert sum(line.startswith("20") for line in lines) == 2
    assert all(line.startswith(("20", "  | ")) for line in lines)
    assert "secret" not in stream.getvalue()


def test_json_logs_carry_ids_and_no_secrets() -> None:
    with logger_to(LogJson()) as (logger, stream):
        with log_ids(request="r1"), log_ids(job="j1"):
            logger.warning("task %s of http://u:hush@h/v?sig=hush failed", "7\n8")
        try:
            raise ValueError("at http://u:hush@h/v?sig=hush")
        except ValueError:
            logger.exception("unexpected")
    assert "hush" not in stream.getvalue()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert datetime.fromisoformat(first.pop("time")).tzinfo is not None
    assert first == {
        "level": "WARNING",
        "logger": "tests.logged",
        "request": "r1",
        "job": "j1",
        "message": r"task 7\n8 of http://h/v?... failed",
    }
    assert "ValueError: at http://h/v?..." in second["traceback"]
    assert not {"job", "request"} & second.keys()
