"""`results.jsonl`: one line for each claim, variant and seed, written as soon as it is known. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from svac_backend.errors import SvacError

Line = dict[str, Any]
NAME = "results.jsonl"


class Results:
    """The lines of a folder.

    Args:
        folder: made when something is added.
        settings: what all lines must have been made with; None only reads.

    Raises:
        SvacError: lines of other settings, or no lines of ours.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.path, self.settings = folder / NAME, settings
        self.lines: list[Line] = read(self.path)
        for line in self.lines if settings is not None else []:
            kept = line["settings"]
            other = sorted(k for k in {*kept, *(settings or {})} if kept.get(k) != (settings or {}).get(k))
            if other:
                raise SvacError(
                    f"{self.path} was made with {other[0]}={kept.get(other[0])!r},"
                    f" not {(settings or {}).get(other[0])!r}.",
                    "Give another --out, or the settings of the first run.",
                )

    def find(self, claim: str, variant: str, seed: int) -> Line | None:
        """Return a line that is there."""
        for line in self.lines:
            if (line["claim"], line["variant"], line["seed"]) == (claim, variant, seed):
                return line
        return None

    def same(self, identity: Iterable[object], seed: int) -> Line | None:
        """Return the line of another claim whose variant is the same thing, with the same weights."""
        wanted = json.loads(json.dumps(list(identity)))
        return next((x for x in self.lines if x["identity"] == wanted and x["seed"] == seed), None)

    def add(self, line: Line) -> None:
        """Write a line. Another process may write to the same file; a line that a crash cut off is dropped first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**line, "settings": dict(self.settings or {})})
        with FileLock(self.path.with_suffix(".lock")):
            if self.path.is_file() and not self.path.read_bytes().endswith(b"\n"):
                part = self.path.with_suffix(".part")
                part.write_text("".join(json.dumps(whole) + "\n" for whole in read(self.path)))
                part.replace(self.path)
            with self.path.open("a") as file:
                file.write(text + "\n")
            self.lines = read(self.path)


def read(path: Path) -> list[Line]:
    """Return the lines of a file, none if it is not there. A last line that was cut off does not count.

    Raises:
        SvacError: another line is no result.
    """
    if not path.is_file():
        return []
    texts, lines = path.read_text().split("\n"), []
    for number, text in enumerate(texts[:-1]):  # behind the last line break is nothing, or what was cut off
        try:
            line = json.loads(text)
            line["claim"], line["variant"], line["seed"], line["identity"], line["settings"]
        except (ValueError, KeyError, TypeError) as error:
            raise SvacError(
                f"Line {number + 1} of {path} is no result of the study ({error!r}).", "Give another --out."
            ) from error
        lines.append(line)
    return lines
