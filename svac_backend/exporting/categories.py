"""Labels as the numbered categories of COCO and YouTube-VIS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from svac_backend.exporting.dataset import VideoTracks, damaged


def category_numbers(videos: Iterable[VideoTracks]) -> dict[str, int]:
    """Return the number of every label, from 1 on, by name: the same labels always have the same numbers."""
    labels = sorted({track.label for video in videos for track in video.tracks})
    return {label: number for number, label in enumerate(labels, start=1)}


def write_categories(numbers: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the list `categories`."""
    return [{"id": number, "name": label, "supercategory": "object"} for label, number in numbers.items()]


def read_categories(content: Mapping[str, Any], path: Path) -> dict[Any, str]:
    """Return category number -> label.

    Raises:
        SvacError: they are malformed.
    """
    try:
        return {category["id"]: str(category["name"]) for category in content["categories"]}
    except (KeyError, TypeError) as error:
        raise damaged(path, f"its categories are malformed ({error!r})") from error
