"""Which token goes where, and pushing once. The client is real; Label Studio is a small server of its routes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from svac_backend.errors import SvacError
from svac_backend.labelstudio.api.access import (
    LabelStudioAccess,
    parent_of,
    predictions_before,
    task_number,
)
from svac_backend.settings import Settings
from svac_backend.store.database import Database
from svac_backend.store.events import ConnectionStore
from svac_backend.store.objects import Replaced

VIDEO = "/data/local-files/?d=clip.mp4"
TASK = ("38", "7")  # project, task
KEPT: list[Replaced] = []
JOB: dict[str, Any] = {"kind": "prelabel", "keep": KEPT.append}


def region(frame: int, rle: list[int]) -> dict[str, Any]:
    value = {"format": "rle", "rle": rle, "brushlabels": ["dog"]}
    return {
        "id": f"obj1-f{frame:05d}",
        "from_name": "mask",
        "to_name": "frames",
        "item_index": frame,
        "value": value,
    }


def prediction(version: str = "v1", rle: tuple[int, ...] = (1, 2, 3)) -> dict[str, Any]:
    return {"result": [region(0, list(rle)), region(1, list(rle))], "score": 0.5, "model_version": version}


def access(settings: Settings, database: Database, **changes: Any) -> LabelStudioAccess:
    # Not `model_copy`: whether the address was set must be known, as it is from the environment.
    known = {name: getattr(settings, name) for name in settings.model_fields_set}
    return LabelStudioAccess(Settings(_env_file=None, **{**known, **changes}), ConnectionStore(database))


def test_the_same_prediction_is_pushed_once(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    way = access(
        settings, database, label_studio_url=label_studio.url, label_studio_api_key=SecretStr("ab" * 20)
    )
    first, fresh = way.push(*TASK, prediction(), "job1", **JOB)
    again, fresh_again = way.push(*TASK, prediction(), "job2", **JOB)
    assert (fresh, fresh_again) == (True, False)
    assert first == again
    assert len(label_studio.predictions) == 1
    assert label_studio.predictions[0]["task"] == 7
    assert label_studio.predictions[0]["result"] == prediction()["result"]
    assert set(label_studio.tokens) == {f"Token {'ab' * 20}"}


def test_another_version_another_kind_and_another_task_are_pushed(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    way = access(
        settings, database, label_studio_url=label_studio.url, label_studio_api_key=SecretStr("ab" * 20)
    )
    way.push(*TASK, prediction(), "job3", **JOB)
    assert way.push(*TASK, prediction(rle=(4, 5)), "job4", **{**JOB, "kind": "propagate"})[1]
    assert way.push(*TASK, prediction(version="v2"), "job5", **JOB)[1]
    assert way.push("38", "8", prediction(), "job6", **JOB)[1]
    assert len(label_studio.predictions) == 4


def test_a_push_takes_the_place_of_the_one_before(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    """Eight tabs piled up; and an annotation whose prediction is deleted cannot be submitted any more."""
    way = access(
        settings, database, label_studio_url=label_studio.url, label_studio_api_key=SecretStr("ab" * 20)
    )
    KEPT.clear()
    foreign = {"id": 1, "task": 7, "model_version": "v1", "result": [region(0, [9])]}
    label_studio.predictions.append(foreign)
    first, _ = way.push(*TASK, prediction(), "job1", **JOB)
    assert way.push(*TASK, prediction(rle=(4, 5)), "job2", **JOB) == (first, True)
    assert label_studio.predictions == [foreign, {**label_studio.predictions[1], **prediction(rle=(4, 5))}]
    assert [(one.prediction, one.regions) for one in KEPT] == [(first, prediction()["result"])]
    assert way.push(*TASK, prediction(rle=(4, 5)), "job2", **JOB) == (first, False)


def test_an_annotation_is_compared_with_what_its_prediction_showed_then(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    way = access(
        settings, database, label_studio_url=label_studio.url, label_studio_api_key=SecretStr("ab" * 20)
    )
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:30Z"}
    about = {"task": 7, "model_version": "v1", "neighbors": {"svac_job": "j", "svac_kind": "propagate"}}
    old, new = [region(0, [1]), region(1, [1])], [region(0, [2]), region(1, [2])]
    label_studio.predictions.append({"id": 1, "result": new, **about, **times})
    replaced = [Replaced(1, 1767225600.0, old)]
    annotation = {"created_at": "2026-01-01T00:00:20Z", "parent_prediction": 1, "result": [old[0]]}
    client = way.client("38")
    before = predictions_before(client, "7", annotation, replaced)
    assert [item["result"] for item in before] == [old]  # the newer content holds what came out of it
    assert parent_of(annotation, before) == before[0]
    # Submitted after the newer one came, from an editor that was open before.
    annotation |= {"created_at": "2026-01-01T00:00:40Z"}
    before = predictions_before(client, "7", annotation, replaced)
    assert [item["result"] for item in before] == [old, new]
    assert parent_of(annotation, before) == before[0]
    assert parent_of({**annotation, "result": new}, before) == before[1]
    assert parent_of({**annotation, "parent_prediction": None}, before) is None


def test_without_a_token_in_the_settings_the_one_of_setup_is_used(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    ConnectionStore(database).put("38", label_studio.url, "cd" * 20, "<View/>")
    assert access(settings, database).push(*TASK, prediction(), "job7", **JOB)[1]
    assert set(label_studio.tokens) == {f"Token {'cd' * 20}"}


def test_the_settings_token_is_never_sent_where_setup_says(
    settings: Settings, database: Database, label_studio: Any
) -> None:
    ConnectionStore(database).put("38", "http://evil.invalid", "cd" * 20, "<View/>")
    way = access(
        settings, database, label_studio_url=label_studio.url, label_studio_api_key=SecretStr("ab" * 20)
    )
    assert way.client("38").url == label_studio.url
    # An address that the operator set counts for the token of /setup too.
    way = access(settings, database, label_studio_url=label_studio.url)
    assert way.client("38").url == label_studio.url


def test_without_any_token_it_says_how_to_get_one(settings: Settings, database: Database) -> None:
    with pytest.raises(SvacError, match="No Label Studio token") as caught:
        access(settings, database).push(*TASK, prediction(), "job8", **JOB)
    assert "SVAC_LABEL_STUDIO_API_KEY" in caught.value.hint


def test_a_label_studio_that_is_down_is_named(settings: Settings, database: Database) -> None:
    way = access(
        settings, database, label_studio_url="http://127.0.0.1:9", label_studio_api_key=SecretStr("ab" * 20)
    )
    with pytest.raises(SvacError, match=r"127\.0\.0\.1:9"):
        way.push(*TASK, prediction(), "job9", **JOB)


def test_a_local_file_needs_no_token(settings: Settings, database: Database) -> None:
    assert access(settings, database).fetch("38", "http://unknown.invalid", VIDEO, "7").name == "clip.mp4"


@pytest.mark.parametrize("task_id", ["", "-1", "7; DROP", "٣", "1e3"])
def test_a_task_id_is_a_number(task_id: str) -> None:
    with pytest.raises(SvacError, match="not the id of a task"):
        task_number(task_id)
    assert task_number("12") == 12


def test_a_label_studio_that_keeps_no_key_got_the_prediction_all_the_same(
    settings: Settings, database: Database, label_studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = {"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    way = access(settings, database, **token)
    monkeypatch.setattr(way.client("38"), "list_predictions", lambda _: [])
    assert way.push(*TASK, prediction(), "the job", **JOB) == (1, True)
    assert len(label_studio.predictions) == 1


def test_a_worker_that_was_frozen_while_it_pushed_leaves_no_second_prediction(
    settings: Settings, database: Database, label_studio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between "is it there?" and "create it" its job went to another worker, which pushed what it found itself."""
    token = {"label_studio_url": label_studio.url, "label_studio_api_key": SecretStr("ab" * 20)}
    way, other = access(settings, database, **token), access(settings, database, **token)
    client = way.client("38")
    create = client.create_prediction
    told: list[tuple[int, bool]] = []

    def frozen(task: int, body: Any) -> int:
        monkeypatch.setattr(client, "create_prediction", create)
        told.append(other.push(*TASK, prediction(rle=(4, 5)), "the job", **JOB))
        return create(task, body)

    monkeypatch.setattr(client, "create_prediction", frozen)
    assert way.push(*TASK, prediction(), "the job", **JOB) == (1, False)
    assert told == [(1, True)]
    assert [one["id"] for one in label_studio.predictions] == [1]
    assert label_studio.predictions[0]["neighbors"] == {"svac_job": "the job", "svac_kind": "prelabel"}
    # A call that seemed to fail, but did not, is not repeated either.
    assert way.push(*TASK, prediction(rle=(6, 7)), "the job", **JOB) == (1, False)
    assert len(label_studio.predictions) == 1
