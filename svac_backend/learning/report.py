"""Fine-tuning's report: figures, curves and before/after pictures in one HTML file, which opens anywhere.

The template of fine-tuning's report page (Jinja2). Nothing in it is loaded from elsewhere.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.learning.evaluation import ExampleScore, mean_j_and_f, truth_of
from svac_backend.learning.examples import Example
from svac_backend.learning.gate import Decision
from svac_backend.learning.trainer import read_curves
from svac_backend.masks.render import overlay
from svac_backend.masks.rle import from_coco
from svac_backend.svac.files.adapters import AdapterInfo

PAGE = """\
{% macro one(value) %}{% if value is none %}&ndash;{% else %}{{ "%.1f"|format(value) }}{% endif %}{% endmacro %}
{% macro cases(rows) %}
{% for case in rows %}
<figure class="case">
<figcaption><b>{{ case.expression }}</b> &middot; J&amp;F {{ one(case.before) }} before, {{ one(case.after) }} after
<small>({{ case.video }}, frame {{ case.frame }})</small></figcaption>
<div class="pictures">
{% for name, picture in case.pictures %}
<div><img src="{{ picture }}" alt="{{ name }}: {{ case.expression }}"><small>{{ name }}</small></div>
{% endfor %}
</div>
</figure>
{% endfor %}
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fine-tuning {{ info.adapter_id }}: {{ "promoted" if decision.promote else "not promoted" }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 62rem;
         margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
  .verdict { border-left: 4px solid {{ "#009e73" if decision.promote else "#e69f00" }}; padding: .5rem .8rem;
             background: {{ "#ecf8f4" if decision.promote else "#fff8e6" }}; margin: .8rem 0 1.2rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #eee; }
  th:first-child { text-align: left; font-weight: 500; } thead th { color: #555; font-weight: 500; }
  .curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
  .curves figure { margin: 0; }
  .curves svg { width: 100%; height: auto; display: block; } figcaption { margin-bottom: .3rem; }
  .case { margin: 0 0 1.4rem; } .case figcaption { overflow-wrap: anywhere; }
  .pictures { display: flex; flex-wrap: wrap; gap: .6rem; } .pictures div { flex: 1 1 10rem; max-width: 300px; }
  .pictures img { width: 100%; display: block; image-rendering: auto; } small { color: #555; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: #555; } dd { margin: 0; }
</style>
</head>
<body>
<h1>Fine-tuning {{ info.adapter_id }}</h1>
<p class="verdict">{{ decision.reason }}</p>
<table>
<thead><tr><th scope="col">J&amp;F</th><th scope="col">examples</th>
<th scope="col">before</th><th scope="col">after</th><th scope="col">change</th></tr></thead>
<tbody>
{% for name, count, before, after in rows %}
<tr><th scope="row">{{ name }}</th><td>{{ count }}</td><td>{{ one(before) }}</td><td>{{ one(after) }}</td>
<td>{% if before is not none and after is not none %}{{ "%+.1f"|format(after - before) }}{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
<h2>Training</h2>
<dl>
<dt>learned from</dt><dd>{{ "%d"|format(decision.figures.learned_from) }} corrections;
{{ "%d"|format(decision.figures.held_out) }} of other videos were held out</dd>
<dt>steps</dt><dd>{{ info.steps }} in {{ "%.1f"|format(decision.figures.minutes) }} minutes
{%- if ended == "time" %}; the time limit ended it{% endif %}</dd>
<dt>adapter</dt><dd>{{ "%.1f"|format(info.bytes / 1e6) }} MB, LoRA of rank {{ info.rank }}, alpha {{ info.alpha }};
{%- if info.parent %} on from {{ info.parent }}{% else %} from the base model{% endif %}</dd>
<dt>SHA-256</dt><dd>{{ info.sha256 }}</dd>
</dl>
{% if curves %}
<div class="curves">
{% for curve in curves %}
<figure><figcaption>{{ curve.name }}: {{ curve.first }} to {{ curve.last }}</figcaption>
<svg viewBox="0 0 320 120" role="img" aria-label="{{ curve.name }} by step">
<line x1="0" y1="119" x2="320" y2="119" stroke="#ccc"/>
<polyline fill="none" stroke="#0072b2" stroke-width="1.8" points="{{ curve.points }}"/></svg>
<small>steps {{ curve.from }} to {{ curve.to }}; {{ curve.low }} to {{ curve.high }}</small></figure>
{% endfor %}
</div>
{% endif %}
<h2>Held-out corrections</h2>
{{ cases(held) }}
{% if regression %}
<h2>Regression set: what changed most</h2>
{{ cases(regression) }}
{% endif %}
</body>
</html>
"""


Judged = tuple[Example, ExampleScore, ExampleScore]

_HELD_CASES, _REGRESSION_CASES = 8, 4
_PICTURE_WIDTH, _JPEG_QUALITY = 300, 85
_CURVES = {
    "loss": "loss",
    "iou": "IoU of the masks in training",
    "lm": "answer's cross-entropy",
    "lr": "rate",
}


@dataclass(frozen=True)
class Case:
    """One example in pictures.

    Attributes:
        expression, video, frame: which.
        before, after: J&F, 0..100.
        pictures: (name, data address).
    """

    expression: str
    video: str
    frame: int
    before: float
    after: float
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Curve:
    """A curve as the points of an SVG of 320 x 120, and its ends and bounds as text."""

    name: str
    points: str
    first: str
    last: str
    low: str
    high: str
    from_: int
    to: int


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
        path: of the page.
        decision: the gate's.
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
    # Texts come from people and their files: everything is escaped.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(PAGE).render(
        decision=decision,
        info=info,
        rows=rows,
        ended=ended,
        curves=[vars(curve) | {"from": curve.from_} for curve in drawn_curves(curves)],
        held=[_case(row) for row in held[:_HELD_CASES]],
        regression=[_case(row) for row in _ends(changed, _REGRESSION_CASES)],
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SvacError(
            f"{path} can't be written ({error.strerror}).", "Look for space on the disk."
        ) from error
    return path


def drawn_curves(path: Path) -> list[Curve]:
    """Return the curves that the page shows; none of a run of a single line."""
    lines = read_curves(path)
    found = []
    for key, name in _CURVES.items():
        at = [(line["step"], line[key]) for line in lines if key in line]
        if len(at) < 2:
            continue
        steps, values = np.array(at).T
        low, high = float(values.min()), float(values.max())
        x = 320 * (steps - steps[0]) / max(steps[-1] - steps[0], 1)
        y = 115 - 110 * (values - low) / ((high - low) or 1)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        first, last, least, most = (f"{value:.3g}" for value in (values[0], values[-1], low, high))
        found.append(Curve(name, points, first, last, least, most, int(steps[0]), int(steps[-1])))
    return found


def _ends(rows: Sequence[Judged], count: int) -> list[Judged]:
    """Return the first and the last rows."""
    if len(rows) <= count:
        return list(rows)
    return [*rows[: count - count // 2], *rows[len(rows) - count // 2 :]]


def _case(row: Judged) -> Case:
    example, old, new = row
    with example.video.open() as video:
        picture = video.frame(old.frame)
    truth = truth_of(example, old.frame, (picture.shape[0], picture.shape[1]))
    masks = (("corrected", truth), ("before", from_coco(old.mask)), ("after", from_coco(new.mask)))
    pictures = (("frame", _address(picture)), *((name, _drawn(picture, mask)) for name, mask in masks))
    name = Path(example.video.key).name or example.video.key
    return Case(example.expression, name, old.frame, old.j_and_f, new.j_and_f, pictures)


def _drawn(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    return _address(overlay(picture, mask[None]))


def _address(picture: NDArray[np.uint8]) -> str:
    """Return a picture as a data address."""
    scale = _PICTURE_WIDTH / picture.shape[1]
    size = (_PICTURE_WIDTH, max(1, round(picture.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    done, data = cv2.imencode(
        ".jpg",
        cv2.resize(picture, size, interpolation=way)[..., ::-1],
        [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY],
    )
    if not done:
        raise SvacError("A picture of the report could not be made.", "Check the installation of OpenCV.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
