"""What may import what: layers point downwards, nothing goes round in circles, and the web process has no torch."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import svac_backend

PACKAGE = Path(svac_backend.__file__).parent

# The lowest first. A part may import its own layer and those below.
LAYERS = {
    "errors": 0,
    "atomic": 0,
    "settings": 0,
    "storage": 1,
    "masks": 1,
    "video": 1,
    "svac": 2,
    "synthetic": 2,
    "labelstudio": 2,
    "store": 2,
    # The front door, through which users come; nothing in the package imports from it.
    "__init__": 3,
    "pipeline": 3,
    "versions": 3,
    "evaluation": 4,
    "learning": 5,
    "datasets": 5,
    "jobs": 6,
    "editor": 7,
    "server": 8,
    "cli": 9,
    "quickstart": 9,
}
# Held by the web process, so free of torch.
TORCH_FREE = ("server", "editor", "labelstudio", "storage", "store")
# Needs a package that is not on the index; its imports are those of server.predicting.
NOT_IMPORTABLE = {"svac_backend.server.label_studio_ml"}

# What the package must not import, and what is not in the wheel.
OUTSIDE = {"lab", "scripts", "tests"}
# The measures of the house. The regrouping aimed at 35,000 lines; a later capability raises MOST_LINES by its own.
MOST_FILES, MOST_LINES, LONGEST, MEDIAN, SMALL, MOST_SMALL = 254, 48_640, 500, (130, 260), 60, 25


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Return the modules of this package that a file imports, also within functions and for type checking."""
    known = modules()
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in known else str(node.module))
    return {name for name in found if name.split(".")[0] == "svac_backend"}


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_downwards(module: str) -> None:
    assert part(module) in LAYERS, f"{part(module)} is new: give it a layer"
    above = {name for name in imports(modules()[module]) if LAYERS[part(name)] > LAYERS[part(module)]}
    assert not above, f"{module} imports from a layer above: {above}"


def test_no_circles() -> None:
    """An import hidden in a function closes a circle as well as one at the top."""
    graph = {name: imports(path) - {name} for name, path in modules().items()}
    # Raises CycleError, which names the circle.
    order = list(TopologicalSorter(graph).static_order())
    assert len(order) >= len(graph)


def test_the_check_of_layers_sees_an_upward_import(tmp_path: Path) -> None:
    """A check that finds nothing because it looks at nothing would be worse than none."""
    file = tmp_path / "probe.py"
    file.write_text("def f():\n    from svac_backend.server import app\n    import svac_backend.store.jobs\n")
    assert imports(file) == {"svac_backend.server.app", "svac_backend.store.jobs"}


def lab_imports(files: Iterable[Path]) -> list[str]:
    """Return what of the laboratory, of the tests or of the scripts some files import."""
    found = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in OUTSIDE]
    return found


def test_the_package_imports_nothing_of_the_laboratory() -> None:
    assert lab_imports(modules().values()) == []


def test_the_check_of_the_laboratory_sees_an_import(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from label_studio_sdk import x\nimport labels\n")
    (tmp_path / "b.py").write_text(
        "def f():\n    from lab.train_tiny import recipe\n    import tests.small\n"
    )
    assert lab_imports(sorted(tmp_path.glob("*.py"))) == ["b.py: lab.train_tiny", "b.py: tests.small"]


def faults_of_size(files: Iterable[Path]) -> list[str]:
    """Return how files break the measures of the house: no drawers, no crumbs, nothing too long to read."""
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    median = statistics.median(lengths.values())
    small = [path for path, count in lengths.items() if count < SMALL and path.name != "__init__.py"]
    faults = [f"{path.name} has {count} lines" for path, count in lengths.items() if count > LONGEST]
    if not MEDIAN[0] <= median <= MEDIAN[1]:
        faults.append(f"the median file has {median:g} lines")
    if len(small) > MOST_SMALL:
        faults.append(f"{len(small)} files have under {SMALL} lines")
    if len(lengths) > MOST_FILES:
        faults.append(f"there are {len(lengths)} files")
    if sum(lengths.values()) > MOST_LINES:
        faults.append(f"there are {sum(lengths.values())} lines")
    return faults


def test_files_have_the_size_of_one_idea() -> None:
    assert faults_of_size(modules().values()) == []


def test_the_check_of_sizes_sees_each_fault(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.py" for number in range(MOST_FILES + 1)]
    for path in files:
        path.write_text("x = 1\n" * 10)
    files[0].write_text("x = 1\n" * MOST_LINES)
    assert faults_of_size(files) == [
        f"0.py has {MOST_LINES} lines",
        "the median file has 10 lines",
        f"{MOST_FILES} files have under {SMALL} lines",
        f"there are {MOST_FILES + 1} files",
        f"there are {MOST_LINES + 10 * MOST_FILES} lines",
    ]
    good = files[:9]
    for path in good:
        path.write_text("x = 1\n" * 200)
    assert faults_of_size(good) == []


def test_the_web_process_never_imports_torch() -> None:
    """In a process of its own, since other tests have torch; with everything that a request imports late."""
    names = [name for name in modules() if part(name) in TORCH_FREE and name not in NOT_IMPORTABLE]
    assert "svac_backend.server.app" in names
    script = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "import label_studio_sdk\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert "flask" in loaded
    assert not {"torch", "transformers", "sam2", "accelerate", "peft"} & set(loaded)
