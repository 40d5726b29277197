"""The figures of the model card are those of `svac-backend evaluate` on the same split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lab.train_tiny.figures import ExpressionResult, Measured, absence_of, by_group, by_kind
from lab.train_tiny.measure import Split, _blind, measure, scored, write_split

from svac_backend.cli import evaluate
from svac_backend.errors import SvacError
from svac_backend.evaluation.score import ExpressionScore
from svac_backend.settings import Settings
from svac_backend.synthetic.rich.scene import RichConfig

pytestmark = pytest.mark.slow

CONFIG = RichConfig(width=96, height=64, frames=8, split="validation", per_kind=2)
SEEDS = range(5000, 5002)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rich")


@pytest.fixture(scope="module")
def split(root: Path) -> Split:
    return write_split(root, seeds=SEEDS, config=CONFIG, expressions=5)


def made(video: str, kind: str = "motion", group: str = "time", **changes: object) -> ExpressionResult:
    row = ExpressionResult(video, "0", "the dog", kind, group, True, (), 40.0, 60.0, 20.0, 5.0, 8)
    return replace(row, **changes)  # type: ignore[arg-type]


def test_it_is_what_the_command_reports(root: Path, split: Split, tmp_path: Path) -> None:
    seen: list[float] = []
    found = measure(
        "svac-tiny", split, tmp_path / "ours", device="cpu", progress=lambda done, what: seen.append(done)
    )
    settings = Settings(_env_file=None, model="svac-tiny", device="cpu")
    evaluate.run(settings, "mevis", root, out=tmp_path / "theirs")
    results = json.loads((tmp_path / "theirs" / "results.json").read_text())
    assert {row.key: pytest.approx((row.j, row.f), abs=1e-3) for row in found.rows} == {
        (e["video"], e["expression"]): (e["j"], e["f"]) for e in results["expressions"]
    }
    kinds = by_kind(found.rows)
    assert {figures["name"]: figures["expressions"] for figures in results["types"]} == {
        kind: figures.count for kind, figures in kinds.items()
    }
    assert found.model_version == results["predictions"]["model_version"]
    assert (found.videos, len(found.rows), seen[-1]) == (2, 10, 1.0)
    found.save(tmp_path / "measured.json")
    assert Measured.load(tmp_path / "measured.json") == found
    with pytest.raises(SvacError, match="no measured figures"):
        Measured.load(tmp_path / "theirs" / "results.json")


def test_rows_say_what_was_asked(split: Split) -> None:
    said = json.loads((split.benchmark.data / "meta_expressions.json").read_text())["videos"]
    for row in split.rows:
        entry = said[row.video]["expressions"][row.expression]
        assert (row.text, row.kind, row.group, list(row.novel)) == (
            entry["exp"],
            entry["kind"],
            entry["group"],
            entry["novel"],
        )
        if entry["obj_id"]:
            assert 0 <= row.other < row.chance < 100


def test_a_split_is_written_in_place_of_another(tmp_path: Path) -> None:
    first = write_split(tmp_path, seeds=SEEDS, config=CONFIG, expressions=3)
    second = write_split(tmp_path, seeds=SEEDS[:1], config=CONFIG, expressions=3)
    assert second.rows == first.rows[:3]
    assert len(list((tmp_path / "mevis" / "valid_u" / "JPEGImages").iterdir())) == 1


def test_blind_choices_by_hand() -> None:
    masks = np.zeros((3, 2, 40, 60), np.bool_)
    for n in range(3):
        masks[n, :, 10:20, 20 * n : 20 * n + 10] = True
    assert _blind(masks, (1,)) == pytest.approx((100 / 3, 0.0))
    # Two of three are meant: each has J 1/2, precision 1 and recall 1/2 (F 2/3); the third is wrong.
    alone = 100 * (1 / 2 + 2 / 3) / 2
    assert _blind(masks, (0, 1)) == pytest.approx((2 * alone / 3, 0.0), abs=0.5)
    assert _blind(masks, (0, 1, 2))[1] == 0.0
    # Nothing is meant: any mask is wrong on the frames that show it.
    masks[2, 1] = False
    assert _blind(masks, ()) == pytest.approx((100 / 6, 100 / 6))


def test_absent_things_count_frames_with_a_mask() -> None:
    def score(*j: float) -> ExpressionScore:
        return ExpressionScore("v", "0", "the cat", "absent", True, j, j)

    rows = [
        scored(made("a", "absent", "absent", frames=4), score(1, 1, 0, 1)),
        scored(made("b", "absent", "absent", frames=4), score(1, 1, 1, 1)),
        scored(made("c"), score(0.5, 0.5, 0, 0)),
    ]
    assert [row.drawn for row in rows] == [1, 0, None]
    absence = absence_of(rows)
    assert absence is not None
    assert (absence.count, absence.drawn, absence.frames) == (2, 50.0, 12.5)
    assert absence_of(rows[2:]) is None


def test_means_by_group_in_the_order_of_the_groups() -> None:
    rows = [made("a"), made("b", j=80.0, f=80.0), made("c", "category", "category")]
    groups = by_group(rows)
    assert list(groups) == ["category", "time"]
    assert (groups["time"].count, groups["time"].j, groups["time"].j_and_f) == (2, 60.0, 65.0)
