"""What the check found, as the GPU section of docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- gpu-check: written by scripts/gpu_check.sh --write-docs -->", "<!-- end of gpu-check -->"
_STAGES = ("read and resize", "vision tower", "language model", "image encoder", "mask decoder", "masks")


def write_docs(found: Path, page: Path = PAGE) -> int:
    """Put what was found into the page; returns the exit status."""
    data = json.loads(found.read_text())
    if data["dry_run"]:
        print(
            "This was a dry run on a CPU: nothing of it says anything about a GPU, so the docs stay as they are."
        )
        return 1
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{section(data)}\n{END}{after}")
    print(f"wrote {page}")
    return 0


def section(data: Mapping[str, Any]) -> str:
    """Return the section of what was found; a stage without a result is named as such."""
    stages = data["stages"]
    results = {name: one["result"] for name, one in stages.items() if "result" in one}
    parts = [part for part in _parts(results) if part]
    missing = {name: one["problem"].strip().splitlines() for name, one in stages.items() if "problem" in one}
    if missing:
        lines = "\n".join(f"- {name}: {(text or ['no result'])[-1][:200]}" for name, text in missing.items())
        parts.append(f"Without a result:\n\n{lines}")
    return "\n\n".join(parts)


def _parts(results: Mapping[str, Any]) -> Iterator[str]:
    if machine := results.get("machine"):
        yield (
            f"{machine.get('gpu', machine['device'])}, {machine.get('memory_gb', '?')} GB, torch {machine['torch']}, "
            f"CUDA {machine['cuda']}, transformers {machine['transformers']}. Weights are random, in the published "
            "shapes; bf16; clips of 100 frames of 1280x720; GB are 10^9 bytes and the most that torch held."
        )
    if paths := results.get("paths"):
        failed = "; ".join(paths["failed"]) or "none"
        yield f"**Paths** with the CPU's masks in fp32: {paths['passed']} passed, failed: {failed}."
    if precision := results.get("precision"):
        rows = [
            (case, *(one[kind] for kind in ("bfloat16", "float16"))) for case, one in precision["iou"].items()
        ]
        yield "**Half precision**, IoU with fp32's masks on the golden cases:\n\n" + _table(
            ("case", "bf16", "fp16"), rows
        )
    yield _speed(
        {name.removeprefix("speed: "): one for name, one in results.items() if name.startswith("speed: ")}
    )
    longer = {name.removeprefix("long: "): one for name, one in results.items() if name.startswith("long: ")}
    if longer:
        rows = [
            (name, one["seconds_100"], one["peak_gb_100"], one["seconds_1000"], one["peak_gb_1000"])
            for name, one in longer.items()
        ]
        head = ("", "100 frames, s", "GB", "1,000 frames, s", "GB")
        yield "**Long videos**, one expression:\n\n" + _table(head, rows)
    trained = {n.removeprefix("training: "): one for n, one in results.items() if n.startswith("training: ")}
    if trained:
        rows = [
            (name, one["steps"], one["seconds"], one["peak_gb"], one["computed_gb"])
            for name, one in trained.items()
        ]
        head = ("", "steps", "seconds", "GB measured", "GB computed")
        yield "**Fine-tuning** with the published options:\n\n" + _table(head, rows)
    if compiled := results.get("compiled"):
        rows = [(name, one["first_s"], one["second_s"], one["peak_gb"]) for name, one in compiled.items()]
        yield "**`SVAC_COMPILE`**, Sa2VA-1B's shape, one expression:\n\n" + _table(
            ("", "first run, s", "second run, s", "GB"), rows
        )
    if little := results.get("little memory"):
        yield (
            f"**Little memory**: windows of {little['window']} frames with {little['free_gb']:.0f} GB free; when "
            f"memory ran out they went down to {little['smallest']}, and {little['pixels_different']} mask pixels "
            f"differed. Where nothing fits: \u201c{little['failure']}\u201d"
        )
    if two := results.get("two processes"):
        same = "the same masks" if two["same_masks"] else "OTHER MASKS"
        yield (
            f"**Two processes** on one GPU: {same}; alone {two['alone_s']} s, both {two['together_s']} s, "
            "start included."
        )


def _speed(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    head = (
        "",
        "published, s",
        "ours, s",
        "times faster",
        "ours frames/s",
        "5 expressions, s",
        "GB",
        "published GB",
    )
    rows = []
    stages = []
    for name, one in found.items():
        ours, five, old = one["ours_1"], one["ours_5"], one["published_1"]
        rows.append(
            (
                name,
                old["seconds"],
                ours["seconds"],
                one["times_faster"],
                ours["frames_per_s"],
                five["seconds"],
                ours["peak_gb"],
                old["peak_gb"],
            )
        )
        stages.append((name, *(ours["ms"][stage] for stage in _STAGES)))
    return (
        "**Speed**, 100 frames, one expression where nothing else is said:\n\n"
        + _table(head, rows)
        + "\n\nOurs, milliseconds a stage:\n\n"
        + _table(("", *_STAGES), stages)
    )


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])
