"""The report of a fine-tuning: scores, curves and before/after pictures in one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from svac_backend.errors import SvacError
from svac_backend.evaluation.report import data_address, render_page
from svac_backend.learning.curves import drawn_curves
from svac_backend.learning.examples import Example
from svac_backend.learning.gate import Decision
from svac_backend.learning.measure import ExampleScore, mean_j_and_f, truth_of
from svac_backend.masks.render import overlay
from svac_backend.masks.rle import from_coco
from svac_backend.svac.files.adapters import AdapterInfo

Judged = tuple[Example, ExampleScore, ExampleScore]

_HELD_CASES, _REGRESSION_CASES = 8, 4
_PICTURE_WIDTH, _JPEG_QUALITY = 300, 85


@dataclass(frozen=True)
class ComparedExample:
    """One example in pictures.

    Attributes:
        expression, video, frame: what was asked, and where.
        before, after: J&F, 0..100.
        pictures: (name, data address).
    """

    expression: str
    video: str
    frame: int
    before: float
    after: float
    pictures: tuple[tuple[str, str], ...]


def write_report(
    path: Path,
    decision: Decision,
    info: AdapterInfo,
    *,
    curves: Path,
    held: Sequence[Judged],
    regression: Sequence[Judged],
    ended: str,
) -> Path:
    """Write the page.

    Args:
        path: the file to write.
        decision: the gate's decision.
        info: the new adapter.
        curves: JSON lines of the training.
        held, regression: examples with the old and the new version's score.
        ended: why the training ended.

    Raises:
        SvacError: a picture can't be drawn, or the page can't be written.
    """
    rows = []
    for name, judged in (("held-out corrections", held), ("regression set", regression)):
        if judged:
            before, after = (mean_j_and_f([row[k] for row in judged]) for k in (1, 2))  # type: ignore[misc]
            rows.append((name, len(judged), before, after))
    changed = sorted(regression, key=lambda row: row[2].j_and_f - row[1].j_and_f)
    page = render_page(
        Path(__file__).with_name("report.html.j2"),
        decision=decision,
        info=info,
        rows=rows,
        ended=ended,
        curves=drawn_curves(curves),
        held=[_case(row) for row in held[:_HELD_CASES]],
        regression=[_case(row) for row in _ends(changed, _REGRESSION_CASES)],
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SvacError(
            f"{path} can't be written ({error.strerror}).", "Check the space on its disk."
        ) from error
    return path


def _ends(rows: Sequence[Judged], count: int) -> list[Judged]:
    """Return the first and the last rows."""
    if len(rows) <= count:
        return list(rows)
    return [*rows[: count - count // 2], *rows[len(rows) - count // 2 :]]


def _case(row: Judged) -> ComparedExample:
    example, old, new = row
    with example.video.open() as video:
        picture = video.frame(old.frame)
    truth = truth_of(example, old.frame, (picture.shape[0], picture.shape[1]))
    masks = (("corrected", truth), ("before", from_coco(old.mask)), ("after", from_coco(new.mask)))
    shown = {"frame": picture, **{name: overlay(picture, mask[None]) for name, mask in masks}}
    pictures = tuple((name, data_address(one, _PICTURE_WIDTH, _JPEG_QUALITY)) for name, one in shown.items())
    name = Path(example.video.key).name or example.video.key
    return ComparedExample(example.expression, name, old.frame, old.j_and_f, new.j_and_f, pictures)
