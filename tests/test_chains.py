"""The two chains of docs/architecture.md are as the code is: each step exists, and the step that is named calls it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "svac_backend"
SENTENCE, CORRECTION = "A sentence on its way to a mask", "A correction on its way to a version"


@dataclass(frozen=True)
class Step:
    """A row: `caller` is the function that calls it, empty where the world does; `kind` names the job or process."""

    file: str
    function: str
    caller: str
    kind: str


def chain(title: str, text: str | None = None) -> list[Step]:
    """Return the steps of a chain, as its table has them."""
    text = (ROOT / "docs" / "architecture.md").read_text() if text is None else text
    table = text.split(f"### {title}\n")[1].split("\n#")[0]
    steps = []
    for row in re.findall(r"^\| `(.+?)` \| `(.+?)` \| (.+?) \|$", table, re.MULTILINE):
        called = re.fullmatch(r"`([\w.]+)`(?:, as (?:`(\w+)`|a (process)))?", row[2])
        steps.append(
            Step(
                row[0], row[1], called[1] if called else "", (called[2] or called[3] or "") if called else ""
            )
        )
    return steps


def body(step: Step) -> ast.AST:
    """Return the definition of a step; of a class, all of its methods.

    Raises:
        KeyError: the file has no such function.
    """
    node: ast.AST = ast.parse((PACKAGE / step.file).read_text())
    for name in step.function.split("."):
        found = [
            one
            for one in ast.iter_child_nodes(node)
            if isinstance(one, ast.FunctionDef | ast.ClassDef) and one.name == name
        ]
        if not found:
            raise KeyError(f"{step.file} has no {step.function}")
        node = found[0]
    return node


def called_in(node: ast.AST) -> set[str]:
    """Return the names that a function calls, or hands over to be called."""
    names = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Load):
            names.add(one.attr)
        elif isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load):
            names.add(one.id)
    return names


def faults(steps: list[Step]) -> list[str]:
    """Return which steps are not there, or are not called by the one that is named."""
    found: list[str] = []
    known: dict[str, Step] = {}
    for step in steps:
        try:
            body(step)
        except KeyError as error:
            found.append(str(error.args[0]))
            continue
        known[step.function] = step
        if not step.caller:
            continue
        if step.caller not in known:
            found.append(f"{step.caller} does not stand above {step.function}")
            continue
        calls = called_in(body(known[step.caller]))
        name = step.function.rsplit(".", 1)[-1]
        if step.kind == "process":
            module = "svac_backend." + step.file.removesuffix(".py").replace("/", ".")
            started = module in (PACKAGE / known[step.caller].file).read_text()
            main = called_in(body(Step(step.file, "main", "", "")))
            if not (started and name in main):
                found.append(f"{step.caller} starts no process of {step.function}")
        elif step.kind:
            worker = (PACKAGE / "jobs" / "worker.py").read_text()
            registered = re.search(rf"\b{step.kind}: (\w+)\(", worker)
            if (
                step.kind not in calls
                or registered is None
                or step.function not in ("create_worker", registered[1])
            ):
                found.append(f"{step.caller} hands no job {step.kind} to {step.function}")
        elif name not in calls:
            found.append(f"{step.caller} does not call {step.function}")
    return found


@pytest.mark.parametrize(("title", "most"), [(SENTENCE, 20), (CORRECTION, 18)])
def test_a_chain_is_as_the_code_is_and_short(title: str, most: int) -> None:
    steps = chain(title)
    assert len(steps) > 15
    assert faults(steps) == []
    assert len({step.file for step in steps}) <= most


def test_the_check_sees_each_fault() -> None:
    text = """### x

| file | function | called by |
|---|---|---|
| `pipeline.py` | `prelabel` | the world |
| `svac/model.py` | `Svac.segment` | `prelabel` |
| `svac/model.py` | `Svac.propagate` | `prelabel` |
| `svac/model.py` | `Svac.gone` | `prelabel` |
| `jobs/prelabel.py` | `PrelabelHandler` | `prelabel`, as `PRELABEL` |
| `learning/process.py` | `finetune_run` | `prelabel`, as a process |
| `masks/rle.py` | `to_coco` | `nobody` |
"""
    assert faults(chain("x", text)) == [
        "prelabel does not call Svac.propagate",
        "svac/model.py has no Svac.gone",
        "prelabel hands no job PRELABEL to PrelabelHandler",
        "prelabel starts no process of finetune_run",
        "nobody does not stand above to_coco",
    ]
