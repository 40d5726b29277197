"""Means, spreads and plots, from lines that are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from svac_backend.errors import SvacError

SETTINGS = {
    "model": "svac-0",
    "scenes": 1,
    "sentences": 4,
    "scored": 4,
    "length": 20,
    "things": True,
    "adaptation": {"steps": 3, "lr": 1e-4, "scenes": 1, "sentences": 2, "frames": 2},
}


def line(claim: str, variant: str, seed: int, values: tuple[float, ...], **more: Any) -> dict[str, Any]:
    kinds = (("color", False, 0.1), ("motion", True, 0.9), ("absent", True, None))
    return {
        "claim": claim,
        "variant": variant,
        "seed": seed,
        "label": variant.upper(),
        "series": variant,
        "weights_of": variant,
        "identity": [variant],
        "frames": 20,
        "images": 8,
        "tokens": 128,
        "segs": 4,
        "vision_ms": 1.0 + seed,
        "prefill_ms": 2.0,
        "peak_mb": None,
        "device": "cpu",
        "settings": SETTINGS,
        "scores": [[*kind, value] for kind, value in zip(kinds, values, strict=True)],
        **more,
    }


LINES = [
    line("csa", "per-clip", 0, (50.0, 40.0, 100.0)),
    line("csa", "per-clip", 1, (60.0, 60.0, 0.0)),
    line("csa", "one", 0, (50.0, 30.0, 100.0)),
    line("csa", "one", 1, (62.0, 20.0, 0.0)),
    line("csa", "one", 2, (0.0, 0.0, 0.0)),
]


def test_means_spreads_and_differences() -> None:
    from lab.reproduction.summary import rows_of

    many, one = rows_of(LINES, "csa")
    assert many.seeds == (0, 1)
    assert many.groups["time"].mean == 50
    assert many.groups["time"].deviation == pytest.approx(200**0.5)
    assert many.groups["time"].count == 2
    assert many.groups["all"].mean == pytest.approx((190 / 3 + 120 / 3) / 2)
    assert many.groups["fast: over 0.8"].mean == 50
    assert many.groups["still: up to 0.18"].mean == 55
    assert "slow: 0.18 to 0.5" not in many.groups
    # Seed by seed, and only of the seeds that both have.
    assert many.differences["time"].mean == 25
    assert many.differences["time"].deviation == pytest.approx(450**0.5)
    assert many.differences["moment"].mean == -1
    assert one.differences == {}
    assert one.groups["time"].count == 3
    assert many.cost == {"vision_ms": 1.5, "prefill_ms": 2.0, "peak_mb": None}


def test_one_seed_has_no_spread() -> None:
    from lab.reproduction.summary import rows_of

    (row,) = rows_of(LINES[:1], "csa")
    assert str(row.groups["time"]) == "40.0"
    assert row.groups["time"].deviation is None


def test_tables_say_what_was_found(tmp_path: Path) -> None:
    from lab.reproduction.report import write_report

    written = write_report(LINES, tmp_path)
    assert [path.name for path in written] == ["results.md", "reproduction-csa.svg"]
    text = written[0].read_text()
    assert "| PER-CLIP | 8 | 128 | 2 |" in text
    assert "+25.0 ± 21.2" in text
    assert "-1.0 ± 1.4" in text
    assert "3 steps of 1 scenes" in text
    assert "| fast: over 0.8 | 3 | 50.0 ± 14.1 |" in text


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    from lab.reproduction.report import write_report

    with pytest.raises(SvacError, match="no results"):
        write_report([], tmp_path)


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    from lab.reproduction.report import write_report

    document = tmp_path / "page.md"
    document.write_text("nothing\n")
    with pytest.raises(SvacError, match="no place"):
        write_report(LINES, tmp_path / "out", document)
    assert document.read_text() == "nothing\n"


def test_plots_place_what_they_draw() -> None:
    from lab.reproduction.plots import Panel, Point, Series, svg

    points = (Point(1, 10, 2), Point(10, 20), Point(100, 30, hollow=True))
    panel = Panel("T", "x < y", "J&F", (Series("a", 0, points),), ((1, "1"), (100, "100")), log_x=True)
    text = svg([panel])
    assert "x &lt; y" in text
    assert "J&amp;F" in text
    marks = [part for part in text.split("<circle ")[1:] if 'r="4.5"' in part]
    places = [
        (float(m.split('cx="')[1].split('"')[0]), float(m.split('cy="')[1].split('"')[0])) for m in marks
    ]
    # Equal steps of a logarithm and of the values; the fourth is the legend's.
    assert places[1][0] - places[0][0] == pytest.approx(places[2][0] - places[1][0], abs=0.2)
    assert places[0][1] - places[1][1] == pytest.approx(places[1][1] - places[2][1], abs=0.2)
    assert places[0][1] > places[1][1]
    assert marks[2].startswith(f'cx="{places[2][0]:.1f}"')
    assert 'fill="#fff"' in marks[2]
