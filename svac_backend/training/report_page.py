"""The template of fine-tuning's report page (Jinja2). Nothing in it is loaded from elsewhere."""

from __future__ import annotations

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
