"""Lists of videos: what their cells mean, and that a bad row stops no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from svac_backend.cli.imported import Imported, ImportedVideo, Row, import_list, read_list
from svac_backend.errors import SvacError


def written(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_cells(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "Video,prompts,labels,project\n"
        'a.mp4,"the dog, that jumps","dog",Dogs\n'
        "/abs/b.mp4, the car | the  bus ,vehicle,7\n"
        "c.mp4,one|two,x|y,\n"
        "\n"
        "d.mp4,,,\n",
    )
    rows, failed = read_list(path)
    assert failed == []
    assert rows == [
        Row(2, tmp_path / "a.mp4", ("dog: the dog, that jumps",), "Dogs"),
        Row(3, Path("/abs/b.mp4"), ("vehicle: the car", "vehicle: the bus"), "7"),
        Row(4, tmp_path / "c.mp4", ("x: one", "y: two"), ""),
        Row(6, tmp_path / "d.mp4", (), ""),
    ]
    assert read_list(written(tmp_path, "video\nx.mp4\n"))[0] == [Row(2, tmp_path / "x.mp4", (), "")]


def test_bad_rows_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, "video,prompts,labels\na.mp4,x|y,l|m|n\nb.mp4,the dog, far\n,x,\nc.mp4,a,b,c\nd.mp4,x,\n"
    )
    rows, failed = read_list(path)
    assert [row.video.name for row in rows] == ["b.mp4", "d.mp4"]
    assert [(one.place, one.error) for one in failed] == [
        (2, "Line 2 has 3 labels for 2 prompts."),
        (4, "Line 4 names no video."),
        (5, "Line 5 has a different number of cells than the first line."),
    ]
    assert all(one.hint for one in failed)


@pytest.mark.parametrize(
    "text", ["", "file,prompts\na,b\n", "video,video\na,b\n", "video,prompt\na,b\n", "video\n"]
)
def test_files_that_are_no_list(tmp_path: Path, text: str) -> None:
    with pytest.raises(SvacError):
        read_list(written(tmp_path, text))
    with pytest.raises(SvacError, match="cannot be read"):
        read_list(tmp_path / "missing.csv")


def test_rows_go_to_their_projects_and_one_that_cannot_be_opened_stops_no_other(tmp_path: Path) -> None:
    path = written(tmp_path, "video,project\na.mp4,7\nb.mp4,Dogs\nc.mp4,\n,Dogs\nd.mp4,7\n")
    asked: list[tuple[int | None, str | None, list[str]]] = []

    def run(rows: Sequence[Row], number: int | None, title: str | None) -> Imported:
        asked.append((number, title, [row.video.name for row in rows]))
        if title == "Dogs":
            raise SvacError("There is a project 'Dogs' already.", "Give another title.")
        return Imported(
            number or 9, "", videos=[ImportedVideo(str(row.video), [row.line], "") for row in rows]
        )

    done = import_list(path, None, "Rest", run)
    assert asked == [(7, None, ["a.mp4", "d.mp4"]), (None, "Dogs", ["b.mp4"]), (None, "Rest", ["c.mp4"])]
    assert [task for one in done for task in one.tasks] == [2, 6, 4]
    assert [(one.place, one.error) for found in done for one in found.failed] == [
        (5, "Line 5 names no video."),
        (3, "There is a project 'Dogs' already."),
    ]
