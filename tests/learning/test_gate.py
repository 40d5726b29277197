"""The gate: better by the margin, no worse elsewhere, and of the video that was shown; reasons are sentences."""

from __future__ import annotations

import pytest

from svac_backend.learning.gate import GateOptions, Scores, decide, too_few
from svac_backend.settings import Settings

OPTIONS = GateOptions(min_gain=1.0, max_loss=2.0)


@pytest.mark.parametrize(
    ("old", "new", "promoted", "said"),
    [
        (Scores(40, 70), Scores(41.0, 68.0), True, "from 40.0 to 41.0, and on the regression set"),
        (Scores(40, 70), Scores(40.9, 75), False, "a gain of at least 1 points"),
        (Scores(40, 70), Scores(80, 67.9), False, "fell from 70.0 to 67.9; 2 points"),
        (Scores(40, 70), Scores(20, 50), False, "a gain of at least"),
        (Scores(40), Scores(60), True, "no regression set"),
        (Scores(10, 70), Scores(14, 70, chance=13, own=15), False, "corrections are wrong"),
        (Scores(10, 70), Scores(40, 70, chance=13, own=42), True, "Promoted"),
    ],
)
def test_decisions(old: Scores, new: Scores, promoted: bool, said: str) -> None:
    decision = decide(old, new, OPTIONS)
    assert decision.promote is promoted
    assert said in decision.reason
    assert decision.reason.endswith(".")
    assert decision.figures["held_out_after"] == new.held_out


def test_all_reasons_are_told() -> None:
    decision = decide(Scores(40, 70), Scores(30, 60, chance=20, own=21), OPTIONS)
    for said in ("went from 40.0 to 30.0", "IoU 20.0", "fell from 70.0 to 60.0"):
        assert said in decision.reason


def test_too_few_corrections_say_how_many_are_missing() -> None:
    options = GateOptions(min_videos=8)
    decision = too_few(5, options)
    assert decision is not None
    assert "3 more are needed" in decision.reason
    assert "3 more are needed" in decision.reason
    assert "1 more is needed" in getattr(too_few(7, options), "reason", "")
    assert too_few(8, options) is None


def test_settings_say_what_is_asked() -> None:
    settings = Settings(finetune_min_gain=3, finetune_max_loss=0.5, finetune_min_videos=4)
    options = GateOptions.from_settings(settings)
    assert (options.min_gain, options.max_loss, options.min_videos) == (3, 0.5, 4)
