"""The report page: one HTML file with figures and the worst cases as pictures, which opens anywhere.

The template of the report page (Jinja2). Nothing in it is loaded from elsewhere.
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
from svac_backend.evaluation.benchmark import Benchmark
from svac_backend.evaluation.predictions import Predictions, read_mask, write_text, writing
from svac_backend.evaluation.score import ExpressionScore, Results
from svac_backend.evaluation.truth import Truth
from svac_backend.masks.render import overlay
from svac_backend.video.images import ImageFolderVideo

PAGE = """\
{% macro percent(value) %}{% if value is none %}&ndash;{% else %}{{ "%.1f"|format(value) }}{% endif %}{% endmacro %}
{% macro row(figures) %}
<tr>
  <th scope="row">{{ figures.name }}</th>
  <td>{{ figures.expressions }}</td>
  <td class="main"><span class="bar" style="width: {{ "%.1f"|format(figures.j_and_f * 0.6) }}px"></span>
    {{ percent(figures.j_and_f) }}</td>
  <td>{{ percent(figures.j) }}</td>
  <td>{{ percent(figures.f) }}</td>
  {% if results.dataset == "revos" %}
  <td>{{ percent(figures.accuracy) }}</td>
  <td>{{ percent(figures.robustness) }}</td>
  {% endif %}
  {% if results.missing %}<td>{{ figures.missing or "" }}</td>{% endif %}
</tr>
{% endmacro %}
{% macro counted(number, what) %}{{ number }} {{ what }}{{ "s" if number != 1 }}{% endmacro %}
{% macro table(rows, what) %}
<div class="wide"><table>
<thead><tr><th scope="col">{{ what }}</th><th scope="col">expressions</th><th scope="col">J&amp;F</th>
<th scope="col">J</th><th scope="col">F</th>
{% if results.dataset == "revos" %}<th scope="col">A</th><th scope="col">R</th>{% endif %}
{% if results.missing %}<th scope="col">missing</th>{% endif %}</tr></thead>
<tbody>
{% for figures in rows %}{{ row(figures) }}{% endfor %}
</tbody>
</table></div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ results.dataset }} {{ results.split }}: J&amp;F {{ percent(results.overall.j_and_f) }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 62rem;
         margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
  .sub { color: #555; margin: .2rem 0 1.4rem; }
  .tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
  .tile { border: 1px solid #ddd; border-radius: 6px; padding: .6rem 1rem; min-width: 6rem; }
  .tile b { display: block; font-size: 1.6rem; font-variant-numeric: tabular-nums; }
  .tile span { color: #555; }
  .note { border-left: 4px solid #e69f00; background: #fff8e6; padding: .5rem .8rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { text-align: right; padding: .25rem .8rem; border-bottom: 1px solid #eee; }
  th:first-child { text-align: left; font-weight: 500; min-width: 8rem; overflow-wrap: anywhere; }
  .wide { overflow-x: auto; }
  thead th { color: #555; font-weight: 500; }
  .main { font-weight: 600; white-space: nowrap; }
  .bar { display: inline-block; height: .6rem; background: #0072b2; border-radius: 2px; margin-right: .4rem; }
  .case { margin: 0 0 1.6rem; }
  .case figcaption { margin-bottom: .3rem; overflow-wrap: anywhere; }
  .case .pair { display: flex; flex-wrap: wrap; gap: .6rem; }
  .case .pair div { flex: 1 1 18rem; max-width: 420px; } .case img { width: 100%; display: block; }
  .case small { color: #555; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: #555; } dd { margin: 0; }
</style>
</head>
<body>
<h1>{{ results.dataset }}, {{ results.split }}</h1>
<p class="sub">{{ counted(results.scores|length, "expression") }} on
{{ counted(results.sequences|length, "video") }}</p>
{% if results.sequences|length < results.videos_of %}
<p class="note">Only {{ results.sequences|length }} of the {{ results.videos_of }} videos of this split were scored:
these figures are not those that papers report.</p>
{% endif %}
{% if results.missing %}
<p class="note">Without a prediction, and so with a score of 0: {{ counted(results.missing|length, "expression") }},
{{ results.missing[:10]|join(", ") }}{% if results.missing|length > 10 %} ...{% endif %}</p>
{% endif %}
<div class="tiles">
  <div class="tile"><b>{{ percent(results.overall.j_and_f) }}</b><span>J&amp;F</span></div>
  <div class="tile"><b>{{ percent(results.overall.j) }}</b><span>J, region</span></div>
  <div class="tile"><b>{{ percent(results.overall.f) }}</b><span>F, boundary</span></div>
  {% if results.overall.accuracy is not none %}
  <div class="tile"><b>{{ percent(results.overall.accuracy) }}</b><span>A, accuracy</span></div>
  {% endif %}
  {% if results.overall.robustness is not none %}
  <div class="tile"><b>{{ percent(results.overall.robustness) }}</b><span>R, robustness</span></div>
  {% endif %}
  {% if results.frames_per_second is not none %}
  <div class="tile"><b>{{ "%.1f"|format(results.frames_per_second) }}</b><span>frames/s</span></div>
  {% endif %}
</div>
<h2>What was measured</h2>
<dl>
  {% if results.manifest %}
  <dt>model</dt><dd>{{ results.manifest.model_version }} ({{ results.manifest.model }})</dd>
  <dt>preset</dt><dd>{{ results.manifest.preset }}</dd>
  {% else %}
  <dt>model</dt><dd>not known: the predictions have no manifest</dd>
  {% endif %}
  {% if results.run %}
  <dt>speed</dt><dd>{{ counted(results.run.frames, "frame") }}, {{ counted(results.run.expressions, "expression") }} in
  {{ "%.1f"|format(results.run.seconds) }} s, {{ results.run.workers }} process{{ "es" if results.run.workers > 1 }}
  {%- if results.run.skipped %}; {{ counted(results.run.skipped, "expression") }} had been predicted before{% endif %}.
  A frame counts once for all expressions of its video.</dd>
  {% else %}
  <dt>speed</dt><dd>not known</dd>
  {% endif %}
  <dt>score</dt><dd>means over all frames of an expression, then over expressions, in per cent. Both masks empty: 1.
  {% if results.dataset == "revos" %}Overall: the mean of referring and reasoning. {% endif %}</dd>
</dl>
{% if results.types %}
<h2>By type of expression</h2>
{{ table(results.types, "type") }}
{% endif %}
<h2>By sequence</h2>
{{ table(results.sequences|sort(attribute="j_and_f"), "video") }}
{% if cases %}
<h2>Worst cases, each at its worst frame</h2>
{% for case in cases %}
<figure class="case">
<figcaption><b>{{ case.score.text }}</b> &middot; J&amp;F {{ percent(case.score.j_and_f * 100) }}
<small>(here J {{ percent(case.j * 100) }}, F {{ percent(case.f * 100) }};
{{ case.score.video }}, expression {{ case.score.expression }}, frame {{ case.frame }}
{%- if case.score.type %}, {{ case.score.type }}{% endif %})</small></figcaption>
<div class="pair">
<div><img src="{{ case.truth }}" alt="truth: {{ case.score.text }}"><small>truth</small></div>
<div><img src="{{ case.prediction }}" alt="prediction: {{ case.score.text }}"><small>prediction</small></div>
</div>
</figure>
{% endfor %}
{% endif %}
</body>
</html>
"""


WORST_CASES = 12
_PICTURE_WIDTH = 420
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Case:
    """An expression with a low score, at its worst frame.

    Attributes:
        score: its score.
        frame: name of the frame.
        j, f: of this frame, 0..1.
        truth, prediction: pictures as data addresses.
    """

    score: ExpressionScore
    frame: str
    j: float
    f: float
    truth: str
    prediction: str


def worst_cases(
    benchmark: Benchmark,
    truth: Truth,
    predictions: Predictions,
    scores: Sequence[ExpressionScore],
    count: int = WORST_CASES,
) -> list[Case]:
    """Return the predicted expressions with the lowest J&F, the lowest first.

    Frames that are not there (someone scores without the data set's pictures) are grey.
    """
    videos = {video.name: video for video in benchmark.videos}
    cases = []
    for score in sorted((s for s in scores if s.predicted), key=lambda s: s.j_and_f)[:count]:
        video = videos[score.video]
        expression = next(e for e in video.expressions if e.id == score.expression)
        i = score.worst_frame
        predicted = read_mask(predictions.of(video.name, expression.id) / f"{video.frames[i]}.png")
        expected = truth.target(video, expression).mask(i)
        if expected is None:
            expected = np.zeros_like(predicted)
        try:
            picture = ImageFolderVideo(video.folder, [video.frames[i]]).frame(0)
        except SvacError:
            picture = np.full((*predicted.shape, 3), 128, np.uint8)
        if picture.shape[:2] != predicted.shape:
            picture = np.full((*predicted.shape, 3), 128, np.uint8)
        cases.append(
            Case(
                score,
                video.frames[i],
                score.j_per_frame[i],
                score.f_per_frame[i],
                _drawn(picture, expected),
                _drawn(picture, predicted),
            )
        )
    return cases


def write_report(results: Results, cases: Sequence[Case], path: Path) -> None:
    """Write the page. Raises `SvacError` where the folder can't be written."""
    # Prompts and names come from files of strangers: everything is escaped.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(PAGE).render(results=results, cases=cases)
    with writing(path.parent):
        write_text(path, page)


def _drawn(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """Return a frame with a mask over it as a data address."""
    drawn = overlay(picture, mask[None])
    scale = min(1.0, _PICTURE_WIDTH / drawn.shape[1])
    size = (max(1, round(drawn.shape[1] * scale)), max(1, round(drawn.shape[0] * scale)))
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise SvacError("A picture of the report could not be written.", "Check the installation of OpenCV.")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
