"""Tables and plots from the lines of `results.jsonl` alone. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.reproduction.plots import Panel, Point, Series, svg
from lab.reproduction.results import Line
from lab.reproduction.summary import REFERENCE, SPEEDS, Spread, SummaryRow, adapted, rows_of
from lab.reproduction.variants import CLAIMS
from svac_backend.errors import SvacError

BEGIN, END = "<!-- results: written by scripts/reproduce.py --draw -->", "<!-- end of results -->"
TITLES = {
    "frames": "More frames",
    "tokens": "Equal visual tokens",
    "csa": "One [SEG] per clip",
}
_GROUPS = ("all", "time", "moment", "absent")
_MARGIN = 0.2  # of plots over words


def write_report(lines: Sequence[Line], out: Path, into: Path | None = None) -> list[Path]:
    """Write `results.md` and a plot for each claim that has results.

    Args:
        lines: of `results.jsonl`.
        out: where.
        into: a document that gets the same between its marks, with the plots in `images` beside it.

    Returns:
        What was written.

    Raises:
        SvacError: there is no result, or the document has no marks.
    """
    claims = [claim for claim in CLAIMS if any(line["claim"] == claim for line in lines)]
    if not claims:
        raise SvacError(f"There are no results in {out}.", "Run scripts/reproduce.py without --draw first.")
    plots = {f"reproduction-{claim}.svg": svg(PANELS[claim](rows_of(lines, claim))) for claim in claims}
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "results.md", *(out / name for name in plots)]
    written[0].write_text(markdown(lines, claims, ""))
    for name, text in plots.items():
        (out / name).write_text(text)
    if into is None:
        return written
    try:
        document = into.read_text()
    except OSError as error:
        raise SvacError(f"{into} can't be read ({error.strerror}).", "Give docs/reproduction.md.") from error
    marks = re.compile(re.escape(BEGIN) + r"\n.*?" + re.escape(END), re.DOTALL)
    if not marks.search(document):
        raise SvacError(
            f"{into} has no place for results.", f"Put the lines {BEGIN} and {END} where they belong."
        )
    images = into.parent / "images"
    images.mkdir(exist_ok=True)
    for name, text in plots.items():
        (images / name).write_text(text)
    body = f"{BEGIN}\n{markdown(lines, claims, 'images/')}{END}"
    into.write_text(marks.sub(lambda _: body, document))
    return [*written, into, *(images / name for name in plots)]


def markdown(lines: Sequence[Line], claims: Sequence[str], images: str) -> str:
    """Return the results as Markdown; plots lie in the folder `images` (with a slash, or empty)."""
    text = [
        _how(lines[0], sorted({line["seed"] for line in lines}), sorted({line["device"] for line in lines}))
    ]
    for claim in claims:
        rows = rows_of(lines, claim)
        text += [
            f"### {TITLES[claim]}",
            f"![{TITLES[claim]}]({images}reproduction-{claim}.svg)",
            _table(rows),
        ]
        if claim == "csa":
            text.append(_speed_table(rows))
        if any(row.borrowed for row in rows):
            text.append(
                "* with the weights that were adapted to the most frames below the limit of visual tokens"
                " (rings in the plot)."
            )
    return "\n\n".join(text) + "\n"


def _how(line: Line, seeds: Sequence[int], devices: Sequence[str]) -> str:
    s, a = line["settings"], line["settings"]["adaptation"]
    trained = (
        f"{a['steps']} steps of {a['scenes']} scenes with {a['sentences']} sentences each, learning rate {a['lr']:g}"
        if adapted(line)
        else "nothing: the weights as they are"
    )
    shapes = "" if s["things"] else " Shapes only: the font of the things was not installed."
    return (
        f"Model `{s['model']}`; seeds {', '.join(map(str, seeds))}; of each, {s['scenes']} scenes of {s['length']}"
        f" frames with up to {s['sentences']} sentences, scored on {s['scored']} frames. Adapted for each variant and"
        f" seed: {trained}. J&F is the mean over the seeds ± their standard deviation. Costs are medians, on"
        f" {', '.join(devices)}.{shapes}"
    )


def _table(rows: Sequence[SummaryRow]) -> str:
    reference = _reference(rows)
    against = f"all, against {_short(reference)}" if reference else ""
    heads = ["", "images", "visual tokens", "seeds", "all", "needs time", "needs no time", "absent"]
    heads += [against, "needs time, against it"] if reference else []
    heads += ["vision ms", "prefill ms", "prefill MB"]
    body = []
    for row in rows:
        line = row.line
        cells = [line["label"] + (" *" if row.borrowed else ""), str(line["images"]), str(line["tokens"])]
        cells += [str(len(row.seeds)), *(_cell(row.groups.get(group)) for group in _GROUPS)]
        if reference:
            cells += [_cell(row.differences.get(group), signed=True) for group in ("all", "time")]
        cells += [_number(row.cost[key]) for key in ("vision_ms", "prefill_ms", "peak_mb")]
        body.append(cells)
    return _markdown_table(heads, body)


def _speed_table(rows: Sequence[SummaryRow]) -> str:
    """Return J&F by speed, and the number of sentences."""
    heads = ["speed of the target, short sides per clip", "sentences", *(_short(row) for row in rows)]
    differing = [row for row in rows if row.differences]
    heads += [f"{_short(row)}: difference" for row in differing]
    body = []
    for _, name in SPEEDS:
        known = [row.groups[name].count for row in rows if name in row.groups]
        cells = [name, str(max(known, default=0)), *(_cell(row.groups.get(name)) for row in rows)]
        body.append(cells + [_cell(row.differences.get(name), signed=True) for row in differing])
    return _markdown_table(heads, body)


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *rows))


def _short(row: SummaryRow) -> str:
    return str(row.line["label"])


def _cell(value: Spread | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"+{value}" if signed and value.mean >= 0 else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _series(rows: Sequence[SummaryRow]) -> dict[str, list[SummaryRow]]:
    """Return the rows by series, in order of frames."""
    found: dict[str, list[SummaryRow]] = {}
    for row in sorted(rows, key=lambda row: row.line["frames"]):
        found.setdefault(row.line["series"], []).append(row)
    return dict(sorted(found.items(), reverse=True))


def _frames_panels(rows: Sequence[SummaryRow]) -> list[Panel]:
    ticks = tuple((n, str(n)) for n in sorted({row.line["frames"] for row in rows}))
    quality, prefill = [], []
    for color, (name, members) in enumerate(_series(rows).items()):
        for group, words, dashed in (("all", "all sentences", False), ("time", "needs time", True)):
            points = tuple(
                Point(r.line["frames"], r.groups[group].mean, r.groups[group].deviation, r.borrowed)
                for r in members
                if group in r.groups
            )
            if points:
                quality.append(Series(f"{name}, {words}", color, points, dashed=dashed))
        paid = tuple(
            Point(r.line["frames"], r.cost["prefill_ms"], hollow=r.borrowed)
            for r in members
            if r.cost["prefill_ms"]
        )
        prefill.append(Series(f"{name}, all sentences", color, paid))
    label = "frames that the MLLM sees"
    return [
        Panel("Quality", label, "J&F", tuple(quality), ticks, log_x=True),
        Panel("Cost", label, "prefill, ms", tuple(prefill), ticks, log_x=True, log_y=True),
    ]


def _tokens_panels(rows: Sequence[SummaryRow]) -> list[Panel]:
    names = (("all", "all sentences"), ("time", "needs time"), ("moment", "needs no time"))
    return _by_group(rows, names, "At equal visual tokens", "", joined=False)


def _csa_panels(rows: Sequence[SummaryRow]) -> list[Panel]:
    names = tuple((name, name.split(":")[0]) for _, name in SPEEDS)
    return _by_group(rows, names, "By speed of the target", "speed in the frame", joined=True)


def _by_group(
    rows: Sequence[SummaryRow], names: Sequence[tuple[str, str]], title: str, label: str, *, joined: bool
) -> list[Panel]:
    """Return J&F by group of sentences, and beside it the difference to the claim's reference, seed by seed."""
    ticks = tuple((float(k), words) for k, (_, words) in enumerate(names))
    apart = 0.0 if joined else 0.5 / max(len(rows), 1)

    def series(kind: Callable[[SummaryRow], dict[str, Spread]]) -> tuple[Series, ...]:
        found = []
        for number, row in enumerate(rows):
            values, shift = kind(row), (number - (len(rows) - 1) / 2) * apart
            points = tuple(
                Point(k + shift, values[group].mean, values[group].deviation)
                for k, (group, _) in enumerate(names)
                if group in values
            )
            if points:
                name = f"{_short(row)} ({row.line['tokens']} tokens)"
                found.append(Series(name, number, points, joined=joined))
        return tuple(found)

    panels = [Panel(title, label, "J&F", series(lambda row: row.groups), ticks, margin=_MARGIN)]
    reference, differences = _reference(rows), series(lambda row: row.differences)
    if reference and differences:
        against = f"Against {_short(reference)}"
        panels.append(Panel(against, label, "J&F, difference", differences, ticks, margin=_MARGIN, zero=True))
    return panels


def _reference(rows: Sequence[SummaryRow]) -> SummaryRow | None:
    """Return what the others are compared with, if it is there."""
    return next((row for row in rows if row.line["variant"] == REFERENCE[row.line["claim"]]), None)


PANELS = {"frames": _frames_panels, "tokens": _tokens_panels, "csa": _csa_panels}
