"""JSON files too large for the memory.

When written, their lists and mappings grow in files of their own, which are joined at the end. When read, the entries
of a list go into a temporary database, from which those of one video are taken.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson

_FLUSH_CHARS = 1 << 18


class JsonStream:
    """A JSON object that is written entry by entry; memory does not grow with it.

    Args:
        path: the file; it and its folder are made by `close`.
        lists: names of the object's lists.
        mappings: names of the object's mappings. The name "" stands for the object itself.
    """

    def __init__(self, path: Path, *, lists: Iterable[str] = (), mappings: Iterable[str] = ()) -> None:
        self.path = path
        self._brackets = dict.fromkeys(lists, "[]") | dict.fromkeys(mappings, "{}")
        self._waiting: dict[str, list[str]] = {name: [] for name in self._brackets}
        self._chars = 0
        self._counts = dict.fromkeys(self._brackets, 0)
        path.parent.mkdir(parents=True, exist_ok=True)

    def count(self, name: str) -> int:
        """Return how many entries a list or mapping has."""
        return self._counts[name]

    def append(self, name: str, value: Any) -> None:
        """Add a value to a list. Raises OSError."""
        self._add(name, json.dumps(value))

    def put(self, name: str, key: str, value: Any) -> None:
        """Add a key, which must be new, to a mapping. Raises OSError."""
        self._add(name, f"{json.dumps(key)}: {json.dumps(value)}")

    def close(self, head: Mapping[str, Any] | None = None) -> None:
        """Write the file: `head`, then the lists and mappings in the order in which they were named. Raises OSError."""
        self._flush()
        with self.path.open("w", encoding="utf-8") as file:
            between = "{"
            for key, value in (head or {}).items():
                file.write(f"{between}{json.dumps(key)}: {json.dumps(value)}")
                between = ", "
            for name, brackets in self._brackets.items():
                file.write(f"{between}{json.dumps(name)}: {brackets[0]}" if name else between)
                if self._part(name).is_file():
                    with self._part(name).open(encoding="utf-8") as part:
                        shutil.copyfileobj(part, file)
                    self._part(name).unlink()
                file.write(brackets[1] if name else "")
                between = ", "
            file.write("}")

    def _add(self, name: str, text: str) -> None:
        self._waiting[name].append(f",\n{text}" if self._counts[name] else text)
        self._counts[name] += 1
        self._chars += len(text)
        if self._chars > _FLUSH_CHARS:
            self._flush()

    def _flush(self) -> None:
        for name, texts in self._waiting.items():
            if texts:
                with self._part(name).open("a", encoding="utf-8") as part:
                    part.write("".join(texts))
                texts.clear()
        self._chars = 0

    def _part(self, name: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{name}.part")


def entries(path: Path, name: str) -> Iterator[Any]:
    """Yield, one by one, the entries of a list in a file's JSON object.

    Raises:
        KeyError: the object has no such list, or the file holds no object.
        ValueError: it is not JSON.
        OSError: it can't be read.
    """
    empty = True
    with path.open("rb") as file:
        try:
            for entry in ijson.items(file, f"{name}.item", use_float=True):
                empty = False
                yield entry
            if empty:
                file.seek(0)
                if (name, "start_array") not in ((at, event) for at, event, _ in ijson.parse(file)):
                    raise KeyError(name)
        except ijson.JSONError as error:
            raise ValueError(f"it is not JSON ({error})") from error


class Grouped:
    """The entries of a list, grouped by the value of one of their keys, in a temporary file instead of the memory.

    Args:
        path: a file with a JSON object.
        name: the list's name.
        key: the key of its entries to group by.
        optional: treat a missing list as empty.

    Raises:
        KeyError, TypeError: there is no such list, or an entry without the key.
        ValueError, OSError: as `entries`.
    """

    def __init__(self, path: Path, name: str, key: str, *, optional: bool = False) -> None:
        self._database = sqlite3.connect("")  # a temporary file that disappears with the connection
        self._database.execute("CREATE TABLE entries (owner TEXT, entry TEXT)")
        rows = ((json.dumps(entry[key]), json.dumps(entry)) for entry in entries(path, name))
        try:
            self._database.executemany("INSERT INTO entries VALUES (?, ?)", rows)
        except KeyError as error:
            if not optional or error.args != (name,):
                raise
        self._database.execute("CREATE INDEX by_owner ON entries (owner)")

    def of(self, owner: Any) -> list[dict[str, Any]]:
        """Return the entries with a value, in the order of the file."""
        query = "SELECT entry FROM entries WHERE owner = ? ORDER BY rowid"
        return [json.loads(entry) for (entry,) in self._database.execute(query, [json.dumps(owner)])]

    def close(self) -> None:
        """Delete the temporary file."""
        self._database.close()
