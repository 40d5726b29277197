"""What may import what: layers point downwards, nothing goes round in circles, and the web process has no torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import svac_backend

PACKAGE = Path(svac_backend.__file__).parent

# The lowest first. A part may import its own layer and those below; `None` marks what serves all.
LAYERS = {
    "errors": 0,
    "atomic": 0,
    "settings": 0,
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
TORCH_FREE = ("server", "editor", "labelstudio", "store")
# Needs a package that is not on the index; its imports are those of server.predicting.
NOT_IMPORTABLE = {"svac_backend.server.label_studio_ml"}


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
