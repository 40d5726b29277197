"""The model card says what the figures say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from lab.train_tiny.card import write_card
from lab.train_tiny.controls import ALL, BLIND, FULL, OTHER_SENTENCE, OTHER_VIDEO, SHUFFLED, SINGLE, Controls
from lab.train_tiny.figures import ExpressionResult, Measured
from lab.train_tiny.measure import write_split
from lab.train_tiny.report import measure_and_write_card

from svac_backend.svac.files.weights import EMBEDDED
from svac_backend.synthetic.rich.phrases import GROUPS
from svac_backend.synthetic.rich.scene import RichConfig

pytestmark = pytest.mark.slow

TRAVELLED = {
    **{name: [90.0] * 16 for name in ("copied", "forward", "backward", "two masks", "click then memory")},
    **{
        name: [61.0]
        for name in (
            "click",
            "click and negative",
            "box",
            "box and click",
            "hidden",
            "seen",
            "came back",
            "never left",
        )
    },
}


def rows(score: float, **by_kind: float) -> tuple[ExpressionResult, ...]:
    found = []
    for video in ("a", "b", "c"):
        for n, (kind, group) in enumerate(GROUPS.items()):
            value = by_kind.get(kind, score)
            drawn = (0 if value == 100 else 3) if kind == "absent" else None
            time = group == "time"
            found.append(
                ExpressionResult(video, str(n), "x", kind, group, time, (), value, value, 20.0, 5.0, 8, drawn)
            )
    return tuple(found)


def card(
    tmp_path: Path, measured: tuple[ExpressionResult, ...], controls: dict[str, tuple[ExpressionResult, ...]]
) -> str:
    shutil.copytree(EMBEDDED["svac-tiny"], tmp_path / "model")
    write_card(
        tmp_path / "model",
        Measured("svac-12345678", measured),
        Controls(controls),
        Controls({name: tuple(r for r in of if r.kind == "motion") for name, of in controls.items()}),
        TRAVELLED,
        {"masks": 1000, "joint": 50},
    )
    return (tmp_path / "model" / "README.md").read_text()


def test_a_model_that_understands(tmp_path: Path) -> None:
    good = rows(82.0, absent=100.0)
    controls = {name: rows(5.0) for name in ALL} | {FULL: good} | {name: rows(30.0) for name in SINGLE}
    text = card(tmp_path, good, controls)
    assert "1000 + 50 steps (masks, joint)" in text
    assert "| **time** | 15 | 82.0 | 82.0 | 82.0 | 20.0 |" in text
    assert "| motion (`the dog moving left`) | 3 | 82.0 |" in text
    assert "0 % of 3 expressions get a mask on some frame, 0 % of their frames have one" in text
    assert "not met" not in text
    assert "| motion | 3 | +52.0 (+52.0 to +52.0) | first frame |" in text
    assert (
        "3 about 3 of them: J&F 82.0; shuffled 5.0;\nsingle frames 30.0 (first frame), 30.0 (middle" in text
    )
    assert "The gain over the best single frame is +52.0 (+52.0 to +52.0)." in text
    assert "| one mask, forwards | 90 |" in text
    limits = text.split("## What it does not understand yet\n\n")[1].splitlines()
    assert [line.split()[1] for line in limits] == ["Words", "In", "Expressions"]


def test_a_model_that_does_not(tmp_path: Path) -> None:
    poor = rows(45.0, texture=30.0, motion=34.0)
    poor = tuple(replace(r, novel=("combination",), j=20.0, f=20.0) if r.kind == "color" else r for r in poor)
    controls = dict.fromkeys(ALL, poor)
    text = card(tmp_path, poor, controls)
    assert "| appearance | 35.0 | 75, not met | 80, not met |" in text
    assert "| time | 42.8 | motion above one frame, not met | 65, not met |" in text
    assert "| 100.0 | none | at most 10, not met |" in text
    limits = text.split("## What it does not understand yet\n\n")[1]
    chance, wrong = limits.splitlines()[:2]
    assert [kind in chance for kind in ("colour (", "texture", "motion (", "size")] == [
        True,
        True,
        True,
        False,
    ]
    assert "size" in wrong
    assert "all frames gain nothing certain" in limits
    assert "with another one J&F is" in limits
    assert "shown another video, it leaves J&F at" in limits
    assert "of a model that sees another video J&F is" in limits
    assert "100 % of them get a mask" in limits
    assert "with a colour and a kind that training never puts together, J&F is 20.0 in place of" in limits


@pytest.mark.parametrize("control", [OTHER_SENTENCE, OTHER_VIDEO, BLIND])
def test_a_control_that_stays_above_chance_is_told(tmp_path: Path, control: str) -> None:
    good = rows(82.0, absent=100.0)
    controls = {name: rows(5.0) for name in ALL} | {FULL: good, control: rows(40.0)}
    limits = card(tmp_path, good, controls).split("## What it does not understand yet\n\n")[1]
    assert len(limits.splitlines()) == 4
    assert "J&F is 40.0" in limits or "J&F at 40.0" in limits


def test_figures_are_kept_and_the_card_is_written(random_model: Path, tmp_path: Path) -> None:
    shutil.copytree(random_model, tmp_path / "model")
    config = RichConfig(width=96, height=64, frames=8, split="validation", per_kind=2)
    split = write_split(tmp_path / "split", seeds=range(5000, 5002), config=config, expressions=3)
    every = write_split(tmp_path / "every", seeds=range(5000, 5002), config=config, expressions=None)
    motions = every.only("motion")
    asked = [e for video in motions.benchmark.videos for e in video.expressions]
    assert asked
    assert {e.type for e in asked} == {row.kind for row in motions.rows} == {"motion"}
    assert len(asked) == len(motions.rows) < len(every.rows)
    said: list[str] = []
    measured, controls = measure_and_write_card(
        tmp_path / "model",
        tmp_path,
        TRAVELLED,
        {"masks": 7},
        device="cpu",
        split=split,
        motions=motions,
        say=said.append,
    )
    assert Measured.load(tmp_path / "measured.json") == measured
    assert Controls.load(tmp_path / "controls.json") == controls
    motion = Controls.load(tmp_path / "motion.json")
    assert len(motion.rows[FULL]) == len(motion.rows[SHUFFLED]) == len(asked)
    text = (tmp_path / "model" / "README.md").read_text()
    assert "with 7 steps (masks)" in text
    assert f"means over 6 expressions of {measured.videos} videos" in text
    figures = [line.rsplit("J&F", 1)[0].strip() for line in said]
    first = figures.index("full")
    assert figures[first : first + 5] == [FULL, OTHER_SENTENCE, BLIND, OTHER_VIDEO, SHUFFLED]
    assert [f.split()[1] for f in figures[-7:-1]] == ["full", "shuffled", "first", "middle", "last", "own"]
    assert said[-1].startswith("motion over the")
