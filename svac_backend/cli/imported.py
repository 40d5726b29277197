"""The outcome of an import, and `svac-backend import --from list.csv`: many videos; a bad one does not stop others."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from svac_backend.errors import SvacError

# Between the prompts of a cell, and between its labels.
SEPARATOR = "|"
COLUMNS = ("video", "prompts", "labels", "project")


@dataclass(frozen=True)
class ImportedVideo:
    """A video that is in a project.

    Attributes:
        file: its path, as the user gave it.
        tasks: ids of its tasks.
        words: what was done, in words for people.
        is_new: whether this import made any of the tasks.
    """

    file: str
    tasks: list[int]
    words: str
    is_new: bool = False


@dataclass(frozen=True)
class FailedVideo:
    """A video that was not imported; `place` is its number among the videos, from 0, or its line in a list."""

    file: str
    error: str
    hint: str
    place: int


@dataclass
class Imported:
    """The outcome of an import.

    Attributes:
        project: the project's id.
        url: address of its tasks.
        model_version: the version whose predictions the tasks have; None if they have none.
        connected: whether the backend is connected to a new project; None if nobody asked for that.
        videos: the videos that are in the project now.
        failed: the videos that are not.
    """

    project: int
    url: str
    model_version: str | None = None
    connected: bool | None = None
    videos: list[ImportedVideo] = field(default_factory=list)
    failed: list[FailedVideo] = field(default_factory=list)

    @property
    def tasks(self) -> list[int]:
        """Ids of the tasks of all videos."""
        return [task for video in self.videos for task in video.tasks]


@dataclass(frozen=True)
class Row:
    """A line of a list.

    Attributes:
        line: its number in the file, from 1.
        video: the file.
        prompts: what to segment, as `label: sentence` if it has labels.
        project: id or title of the project; "" for the one on the command line.
    """

    line: int
    video: Path
    prompts: tuple[str, ...]
    project: str


def read_list(path: Path) -> tuple[list[Row], list[FailedVideo]]:
    """Read a list of videos: CSV with a header line, in which `video` is required.

    Paths are relative to the list. Prompts are separated by `|`, and so are their labels.

    Returns:
        The rows, and those that cannot be understood.

    Raises:
        SvacError: the file cannot be read, or has no such columns or rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
            unknown = [name for name in names if name not in COLUMNS]
            if "video" not in names or unknown or len(set(names)) < len(names):
                raise SvacError(
                    f"The first line of {path} has the columns {', '.join(names) or 'none'}.",
                    f"Name them {', '.join(COLUMNS)}; all but video may be left out.",
                )
            reader.fieldnames = names
            rows, failed = list[Row](), list[FailedVideo]()
            for entry in reader:
                try:
                    rows.append(_row(entry, reader.line_num, path.parent))
                except SvacError as error:
                    name = str(entry.get("video") or "")
                    failed.append(FailedVideo(name, error.message, error.hint, reader.line_num))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SvacError(f"The list {path} cannot be read: {why}.", "Give a CSV file in UTF-8.") from error
    if not rows and not failed:
        raise SvacError(f"The list {path} has no rows.", "Give one row for each video.")
    return rows, failed


def _row(entry: Mapping[str | None, str | list[str] | None], line: int, folder: Path) -> Row:
    if None in entry or any(value is None for value in entry.values()):
        raise SvacError(
            f"Line {line} has a different number of cells than the first line.",
            "Put a cell that holds a comma in quotation marks.",
        )
    cells = {str(name): str(value).strip() for name, value in entry.items()}
    if not cells["video"]:
        raise SvacError(f"Line {line} names no video.", "Give the path of a file.")
    prompts, labels = (_parts(cells.get(name, "")) for name in ("prompts", "labels"))
    if len(labels) not in (0, 1, len(prompts)):
        raise SvacError(
            f"Line {line} has {len(labels)} labels for {len(prompts)} prompts.",
            "Give one label for each prompt, or one for all.",
        )
    if labels:
        labels = labels * len(prompts) if len(labels) == 1 else labels
        prompts = [f"{label}: {prompt}" for label, prompt in zip(labels, prompts, strict=True)]
    return Row(line, folder / cells["video"], tuple(prompts), cells.get("project", ""))


def _parts(cell: str) -> list[str]:
    return [" ".join(part.split()) for part in cell.split(SEPARATOR) if part.strip()]


def import_list(
    path: Path,
    project: int | None,
    create: str | None,
    run: Callable[[Sequence[Row], int | None, str | None], Imported],
) -> list[Imported]:
    """Import the rows of a list, one project after the other; if a project cannot be opened, its rows have failed.

    Args:
        path: the list.
        project, create: the project of rows that name none: its id, or the title of a project to make.
        run: imports some rows into a project, given by id or title; see `import_videos.import_rows`.

    Raises:
        SvacError: the list cannot be read.
    """
    rows, failed = read_list(path)
    groups: dict[tuple[int | None, str | None], list[Row]] = {}
    for row in rows:
        own = row.project
        target = (int(own), None) if own.isascii() and own.isdigit() else (None, own)
        groups.setdefault(target if own else (project, create), []).append(row)
    done = [Imported(0, "", failed=failed)] if failed else []
    for (number, title), group in groups.items():
        try:
            found = run(group, number, title)
        except SvacError as error:
            lost = [FailedVideo(str(row.video), error.message, error.hint, row.line) for row in group]
            found = Imported(number or 0, "", failed=lost)
        done.append(found)
    return done
