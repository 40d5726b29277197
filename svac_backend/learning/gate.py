"""The gate: whether a new version may replace the old one, and why. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from svac_backend.settings import Settings


@dataclass(frozen=True)
class GateOptions:
    """What a new version must achieve.

    Attributes:
        min_gain: J&F points that it must gain on the held-out corrections.
        max_loss: J&F points that it may lose on the regression set.
        min_above_chance: IoU points by which its masks must fit their own videos better than other videos.
        min_videos: least number of corrected videos for a training to start.
        min_held_out: least number of them to hold out.
        held_out_share: share of the videos to hold out.
    """

    min_gain: float = 1.0
    max_loss: float = 2.0
    min_above_chance: float = 8.0
    min_videos: int = 8
    min_held_out: int = 2
    held_out_share: float = 0.2

    @classmethod
    def from_settings(cls, settings: Settings) -> GateOptions:
        """Return the options in the settings."""
        return cls(
            min_gain=settings.finetune_min_gain,
            max_loss=settings.finetune_max_loss,
            min_videos=settings.finetune_min_videos,
        )


@dataclass(frozen=True)
class Scores:
    """J&F of one version, 0..100.

    Attributes:
        held_out: on the corrections that it was not trained on.
        regression: on the regression set; None if there is none.
        chance: mean IoU, 0..100, of its masks with the corrections of *other* held-out videos; None with one video.
        own: mean IoU, 0..100, of its masks with the corrections of their own videos.
    """

    held_out: float
    regression: float | None = None
    chance: float | None = None
    own: float | None = None


@dataclass(frozen=True)
class Decision:
    """The decision about a new version.

    Attributes:
        promote: whether it replaces the old one.
        reason: why or why not, in sentences.
        figures: `held_out_before`, `held_out_after`, `regression_before`, `regression_after`, `own` and `chance`
            of the new version.
    """

    promote: bool
    reason: str
    figures: Mapping[str, float | None] = field(default_factory=dict)


def too_few(videos: int, options: GateOptions) -> Decision | None:
    """Return why there can be no training yet; None if there can."""
    missing = options.min_videos - videos
    if missing <= 0:
        return None
    return Decision(
        False,
        f"{videos} corrected video{'' if videos == 1 else 's'} so far: {missing} more "
        f"{'is' if missing == 1 else 'are'} needed before a training can be judged.",
    )


def decide(old: Scores, new: Scores, options: GateOptions) -> Decision:
    """Compare two versions on the same examples."""
    figures = {
        "held_out_before": old.held_out,
        "held_out_after": new.held_out,
        "regression_before": old.regression,
        "regression_after": new.regression,
        "own": new.own,
        "chance": new.chance,
    }
    gain = new.held_out - old.held_out
    told = f"J&F on held-out corrections went from {old.held_out:.1f} to {new.held_out:.1f}"
    reasons = []
    if gain < options.min_gain:
        reasons.append(f"{told}; a gain of at least {options.min_gain:g} points is asked for.")
    if new.own is not None and new.chance is not None and new.own - new.chance < options.min_above_chance:
        reasons.append(
            f"Its masks fit the corrections of other videos (IoU {new.chance:.1f}) nearly as well as "
            f"those of their own ({new.own:.1f}): the corrections are wrong, or there are too few to learn from."
        )
    lost = ""
    if old.regression is not None and new.regression is not None:
        loss = old.regression - new.regression
        lost = f"on the regression set it went from {old.regression:.1f} to {new.regression:.1f}"
        if loss > options.max_loss:
            reasons.append(
                f"J&F on the regression set fell from {old.regression:.1f} to {new.regression:.1f}; "
                f"{options.max_loss:g} points is the most that may be lost."
            )
    if reasons:
        return Decision(False, "Not promoted. " + " ".join(reasons), figures)
    tail = f", and {lost}" if lost else "; there is no regression set"
    return Decision(True, f"Promoted. {told}{tail}.", figures)
