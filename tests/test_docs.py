"""What the documentation says about settings, commands, files and Python is true."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.browser.pictures import IN_DOCS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md") if (ROOT / name).exists()),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def update_docs() -> ModuleType:
    path = ROOT / "scripts" / "update_docs.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [".env.example", "docs/reference/settings.md", "docs/reference/command-line.md"]
)
def test_what_is_written_from_the_code_is_as_the_code(name: str) -> None:
    documents = update_docs().documents()
    assert (ROOT / name).read_text() == documents[ROOT / name], "run .venv/bin/python scripts/update_docs.py"


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site both make them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def links(text: str) -> list[tuple[str, str]]:
    """Return (path, anchor) of the links within the project."""
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", FENCE.sub("", text))
    return [(str(path), str(anchor)) for path, anchor in found]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for path, anchor in links(document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), path
        if anchor:
            assert anchor in anchors(target.read_text()), f"{path}#{anchor}"


def known_commands() -> dict[str, set[str]]:
    """Return every command, such as `models list`, with its options."""
    return {
        name: {text for one in command.params for text in [*one.opts, *one.secondary_opts]} | {"--help"}
        for name, command in update_docs().commands()
    }


def named_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each `svac-backend ...` in a text's code."""
    blocks = [body for language, body in FENCE.findall(text) if language in ("", "bash", "sh", "console")]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(svac-backend [^`]*)`", FENCE.sub("", text))
    for line in lines:
        for command in re.findall(r"(?:^|[\s(])svac-backend ((?:[^#|&]|\| )+)", line.split(" #")[0]):
            yield shlex.split(command.replace("...", "").replace("`", ""))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_and_their_options_exist(document: Path) -> None:
    known = known_commands()
    groups = {name.split()[0] for name in known if " " in name}
    for words in named_commands(document.read_text()):
        alternatives = [word.strip(",") for word in words if re.fullmatch(r"[a-z]+,?", word)]
        if words[0] == "COMMAND":
            continue
        if words[0] in groups:
            # `models list`, or in prose `models list | verify`, or the group's name alone.
            inner = [word for word in alternatives[1:] if f"{words[0]} {word}" in known]
            assert inner or len(words) == 1, f"no command {words}"
            options = set().union(*(known[f"{words[0]} {word}"] for word in inner)) if inner else set()
        else:
            assert words[0] in known, f"no command {words}"
            options = known[words[0]]
        given = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options, f"{words}: no option {given - options}"


def test_the_check_of_commands_sees_what_is_wrong() -> None:
    """A check that finds nothing because it looks at nothing would be worse than none."""
    text = "```bash\nsvac-backend models list\nsvac-backend nonsense --x\n```\nor `svac-backend export --no`"
    assert list(named_commands(text)) == [["models", "list"], ["nonsense", "--x"], ["export", "--no"]]
    assert links("[a](b.md#c) [d](#e) [f](https://g)") == [("b.md", "c"), ("", "e")]
    assert anchors("# A `b`: c\n```\n# no\n```\n") == {"a-b-c"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_scripts_and_their_options_exist(document: Path) -> None:
    text = document.read_text()
    for script, arguments in re.findall(r"\./scripts/([\w.]+)([^`\n#|]*)", text):
        source = (ROOT / "scripts" / script).read_text()
        unknown = [option for option in re.findall(r"(?<!\S)--[a-z-]+", arguments) if option not in source]
        assert unknown == [], f"{script} has no {unknown}"
    for script in re.findall(r"(?<!\./)\bscripts/([\w./]+\.(?:py|sh))", text):
        changed = document.name == "CHANGELOG.md" and not (ROOT / "scripts" / script).exists()
        assert changed or (ROOT / "scripts" / script).exists(), script


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_modules_that_are_named_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":  # it tells of the past
        return
    for path in re.findall(r"`(?:svac_backend/)?((?:[a-z_]+/)+[a-z_]+\.py)", document.read_text()):
        assert (ROOT / "svac_backend" / path).exists() or (ROOT / path).exists(), path


@pytest.mark.integration
@pytest.mark.parametrize("name", ["README.md", "docs/start.md"])
def test_the_python_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from svac_backend.synthetic.scene import SceneConfig, make_scene
    from svac_backend.synthetic.video import write_mp4

    [example] = [body for language, body in FENCE.findall((ROOT / name).read_text()) if language == "python"]
    assert len(example.splitlines()) <= 6
    write_mp4(make_scene(3, SceneConfig(160, 96, 8)).frames, tmp_path / "clip.mp4", 10.0)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, name, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8
    assert printed[3].startswith("3 (2, 96, 160)")


def test_pictures_of_the_editor_and_the_pages_are_those_that_the_browser_tests_make() -> None:
    made = {picture.name for picture in IN_DOCS.values()}
    for page in ("annotate.md", "manage.md"):
        shown = set(re.findall(r"\]\(images/([\w-]+)\.\w+\)", (ROOT / "docs" / page).read_text()))
        assert shown
        assert shown <= made | {"editor"}, page  # that one is of the quickstart's demo, as in the README
    assert {f"{name}.jpg" for name in made} <= {file.name for file in (ROOT / "docs" / "images").iterdir()}
    tests = "".join(file.read_text() for file in (ROOT / "tests" / "browser").glob("test_*.py"))
    for name in IN_DOCS:
        kind = name.removeprefix("pages-").split("-")[0].removesuffix("_brush")
        assert kind in tests, name


def test_documents_are_found() -> None:
    assert len(DOCUMENTS) >= 15
