"""The cache of predictions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from svac_backend.masks.tracks import CocoRle, ObjectPrompt, Track
from svac_backend.store.predictions import Prediction, PredictionStore, prediction_key, video_identity
from tests.databases import OpenDatabase

DOG = ObjectPrompt("obj1", "dog", "the brown dog")
CAT = ObjectPrompt("obj2", "cat", "the cat")


@pytest.fixture
def store(open_database: OpenDatabase, tmp_path: Path) -> PredictionStore:
    return PredictionStore(open_database(tmp_path))


def prediction(key: str = "k") -> Prediction:
    track = Track("obj1", "dog", "the brown dog", {3: CocoRle(size=[2, 4], counts="0`0")}, {3: 0.5, 4: 0.25})
    return Prediction(key, "svac-1", "38", "7", [track], 4, 2, 29.97, 289, 0.5, created=1.0)


def test_round_trip(store: PredictionStore) -> None:
    assert store.get("k") is None
    assert store.summary("k") is None
    store.put(prediction())
    assert store.get("k") == prediction()
    assert store.summary("k") == (0.5, 289)


def test_renderings_are_kept_by_config_and_go_with_their_prediction(store: PredictionStore) -> None:
    store.put(prediction())
    store.put_rendering("k", "brush", [{"id": "obj1-f00003"}])
    store.put_rendering("k", "brush", [{"id": "a second writer"}])
    store.put_rendering("k", "polygon", [])
    assert store.rendering("k", "none") is None
    assert json.loads(store.rendering("k", "brush") or b"") == [{"id": "obj1-f00003"}]
    assert store.rendering("k", "polygon") == b"[]"
    store.put(replace(prediction(), score=0.75))
    assert store.summary("k") == (0.75, 289)
    assert store.rendering("k", "brush") is None


def test_key_depends_on_video_prompts_and_model() -> None:
    key = prediction_key("video", [DOG, CAT], "svac-1")
    assert len(key) == 64
    assert key == prediction_key("video", (DOG, CAT), "svac-1")
    others = [
        prediction_key("video 2", [DOG, CAT], "svac-1"),
        prediction_key("video", [CAT, DOG], "svac-1"),
        prediction_key("video", [DOG], "svac-1"),
        prediction_key("video", [replace(DOG, label="cat"), CAT], "svac-1"),
        prediction_key("video", [DOG, CAT], "svac-2"),
    ]
    assert len({key, *others}) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "https://b.s3.amazonaws.com/v.mp4?X-Amz-Signature=a&X-Amz-Date=1&X-Amz-Expires=60",
            "https://b.s3.amazonaws.com/v.mp4?X-Amz-Signature=b&X-Amz-Date=2&X-Amz-Expires=60",
        ),
        ("https://h/v.mp4?sig=a&se=1&sv=2", "https://h/v.mp4?sig=b&se=9&sv=2"),
        ("https://h/v.mp4?Expires=1&Signature=a&GoogleAccessId=x", "https://h/v.mp4?Expires=2&Signature=b"),
        (
            "https://a.blob.core.windows.net/c/v.mp4?sp=r&st=2026-01-01&se=2026-01-02&spr=https&sv=2024-11-04&sr=b&sig=x",
            "https://a.blob.core.windows.net/c/v.mp4?sp=r&st=2026-02-01&se=2026-02-02&spr=https&sv=2024-11-04&sr=b&sig=y",
        ),
        (
            "https://d.cloudfront.net/v.mp4?Policy=a&Signature=b&Key-Pair-Id=c",
            "https://d.cloudfront.net/v.mp4",
        ),
        ("https://me/media/1/2/00001.jpg?signature=a.b", "https://me/media/1/2/00001.jpg?signature=c.d"),
    ],
)
def test_a_new_signature_is_the_same_video(one: str, other: str) -> None:
    assert video_identity("http://ls", one) == video_identity("http://ls", other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/data/local-files/?d=a.mp4", "/data/local-files/?d=b.mp4"),
        ("https://h/v.mp4?st=1", "https://h/v.mp4?st=2"),
        ("https://h/a.mp4?sig=1", "https://h/b.mp4?sig=1"),
        ("https://h/v.mp4?id=1&sig=x", "https://h/v.mp4?id=2&sig=x"),
        ("https://h/v.mp4?st=1&sig=x", "https://h/v.mp4?st=2&sig=x"),
        ("https://h/v.mp4?sr=1&sig=x", "https://h/v.mp4?sr=2&sig=x"),
        ("https://h/v.mp4?signature=1&sp=1", "https://h/v.mp4?signature=1&sp=2"),
        ("https://h/v.mp4?signature=jane", "https://h/v.mp4?signature=joe"),
        ("https://h/v.mp4?expires=1", "https://h/v.mp4?expires=2"),
        (
            "https://h/v.mp4?X-Amz-Signature=a&X-Amz-Meta-Clip=1",
            "https://h/v.mp4?X-Amz-Signature=a&X-Amz-Meta-Clip=2",
        ),
        ("https://h/v.mp4?sig=a&se=1&sv=2&camera=1", "https://h/v.mp4?sig=a&se=1&sv=2&camera=2"),
        ("https://h/v.mp4?n=%ff", "https://h/v.mp4?n=%fe"),
        ("https://h/v.mp4#clip=1", "https://h/v.mp4#clip=2"),
        ("/files/take #1.mp4", "/files/take #2.mp4"),
        ("/files/take.mp4", "/files/take.mp4#"),
        ("/data/upload/1/a#1.mp4", "/data/upload/1/a#2.mp4"),
        ("http://[host/a.mp4", "http://[host/b.mp4"),
    ],
)
def test_another_address_is_another_video(one: str, other: str) -> None:
    assert video_identity("http://ls", one) != video_identity("http://ls", other)


def test_a_relative_address_belongs_to_its_host() -> None:
    assert video_identity("http://a/", "/data/upload/1/v.mp4") == video_identity(
        "http://a", "/data/upload/1/v.mp4"
    )
    assert video_identity("http://a", "/data/upload/1/v.mp4") != video_identity(
        "http://b", "/data/upload/1/v.mp4"
    )
    assert video_identity("http://a", "https://h/v.mp4") == video_identity("http://b", "https://h/v.mp4")
