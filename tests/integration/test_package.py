"""The wheel: all that users need is in it, nothing else, and it works in an environment that has only it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from svac_backend.synthetic.scene import SceneConfig, make_scene
from svac_backend.synthetic.video import write_mp4

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**known, **variables},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive, built from what git knows of this checkout."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    return folder / "dist"


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for folder in ("svac_backend", "labelstudio_config")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours - names == set()
    others = {name for name in names - ours if ".dist-info/" not in name}
    assert others == set()
    assert len(list(built.glob("*.tar.gz"))) == 1


def test_the_wheel_works_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    [wheel] = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", python)  # this one: bringing another takes seconds
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    # The dependencies are those of the tests' environment: installing torch again would take minutes. A plain path,
    # not `site.addsitedir`: that would also bring the editable install of this checkout.
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import svac_backend; print(svac_backend.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)

    write_mp4(make_scene(3, SceneConfig(160, 96, 8)).frames, tmp_path / "clip.mp4", 10.0)
    command = environment / "bin" / "svac-backend"
    run(command, "prelabel", "clip.mp4", "--prompt", "the object", "--out", "out", cwd=tmp_path)
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert "tracks.json" in made
    assert (tmp_path / "out" / "tracks.json").stat().st_size > 200
