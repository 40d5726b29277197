"""Which of a task's annotations, drafts and predictions counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from svac_backend.errors import SvacError

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Chosen:
    """What counts of a task.

    Attributes:
        results: the regions.
        sent: those of the prediction that a person started from; empty where there was none.
        saved: when, in seconds since 1970.
        is_draft: it was saved and not submitted.
    """

    results: Sequence[Result]
    sent: Sequence[Result] = ()
    saved: float = 0.0
    is_draft: bool = False

    def size(self) -> tuple[int, int] | None:
        """Return width and height of the video in pixels as a region says it, or None without regions."""
        for region in (*self.results, *self.sent):
            width, height = region.get("original_width"), region.get("original_height")
            if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
                return width, height
        return None


@dataclass(frozen=True)
class Choice:
    """The choice.

    Attributes:
        source: `annotations` or `predictions`.
        only_submitted: take no drafts.
        model_version: of predictions, the one that the project shows; the newest where there is none of it.
    """

    source: str = "annotations"
    only_submitted: bool = False
    model_version: str = ""

    def __post_init__(self) -> None:
        if self.source not in ("annotations", "predictions"):
            raise SvacError(
                f"There is no source '{self.source}'.", "Give --source annotations or --source predictions."
            )

    def of(self, task: Mapping[str, Any]) -> Chosen | None:
        """Return what counts of a task, None when there is nothing.

        Of several annotations the one marked as ground truth counts, else the one saved last; skipped ones never do. A
        draft counts where nothing was submitted.

        Args:
            task: with `annotations`, `drafts` and `predictions`, as Label Studio exports them.

        Raises:
            SvacError: they are malformed.
        """
        predictions = _listed(task, "predictions")
        shown = [one for one in predictions if self.model_version == one.get("model_version")] or predictions
        newest = max(shown, key=_saved, default=None)
        if self.source == "predictions":
            return None if newest is None else Chosen(_results(newest), (), _saved(newest))
        submitted = [one for one in _listed(task, "annotations") if not one.get("was_cancelled")]
        if submitted:
            best = max(submitted, key=lambda one: (bool(one.get("ground_truth")), _saved(one)))
            parent = next((p for p in predictions if p.get("id") == best.get("parent_prediction")), None)
            return Chosen(_results(best), _results(parent), _saved(best))
        drafts = [] if self.only_submitted else _listed(task, "drafts")
        if drafts:
            draft = max(drafts, key=_saved)
            return Chosen(_results(draft), _results(newest), _saved(draft), is_draft=True)
        return None


def _listed(task: Mapping[str, Any], name: str) -> list[Result]:
    """The entries that have results: an export may give only ids."""
    entries = task.get(name) or []
    if not isinstance(entries, list):
        raise SvacError(
            f"The {name} of task {task.get('id')} are malformed.",
            "Export the project from Label Studio as JSON (not JSON-MIN).",
        )
    return [
        entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("result"), list)
    ]


def _results(entry: Result | None) -> Sequence[Result]:
    return () if entry is None else [region for region in entry["result"] if isinstance(region, Mapping)]


def _saved(entry: Result) -> float:
    """When an entry was saved last, in seconds; 0.0 where it is not said."""
    value = entry.get("updated_at") or entry.get("created_at")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0.0
    if not isinstance(value, datetime):
        return 0.0
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
