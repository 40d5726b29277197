"""Drafts as they are now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.client import LabelStudioClient
from tests.jobs.conftest import SmallLabelStudio, serve


@pytest.fixture
def server() -> Iterator[SmallLabelStudio]:
    yield from serve()


def test_drafts_come_with_their_results(server: SmallLabelStudio) -> None:
    draft = {"id": 5, "updated_at": "T1", "result": [{"id": "x"}]}
    server.drafts = [draft]
    client = LabelStudioClient(server.url, "ab" * 20)
    assert client.list_drafts(7) == [draft]
    assert server.tokens == [f"Token {'ab' * 20}"]


def test_a_label_studio_that_does_not_answer_is_said() -> None:
    with pytest.raises(SvacError, match="list the drafts of task 7"):
        LabelStudioClient("http://127.0.0.1:9", "ab" * 20).list_drafts(7)


@pytest.mark.parametrize("answer", [{}, {"drafts": []}, ["5"], None])
def test_what_is_no_list_of_drafts_does_not_come_from_label_studio(
    server: SmallLabelStudio, answer: Any
) -> None:
    server.drafts = answer
    with pytest.raises(SvacError, match=r"is not Label Studio \(tried to list the drafts of task 7\)"):
        LabelStudioClient(server.url, "ab" * 20).list_drafts(7)
