"""A file that Label Studio exported as JSON: its tasks, read one by one, and the config that they imply.

If an export comes without its project's labelling config, one is inferred from its regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import ijson

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import regions_of

Task = Mapping[str, Any]
# Type of a region -> tag of its control.
_TAGS = {
    "brushlabels": "BrushLabels",
    "polygonlabels": "PolygonLabels",
    "vectorlabels": "VectorLabels",
    "bitmasklabels": "BitmaskLabels",
    "rectanglelabels": "RectangleLabels",
}
_BOM = b"\xef\xbb\xbf"


class ExportFile:
    """The tasks of a file, which may be larger than the memory and may be read several times.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Task]:
        """Yield the tasks, each with its data.

        Raises:
            SvacError: the file cannot be read, is not JSON, or is not a list of tasks with data.
        """
        try:
            with self.path.open("rb") as file:
                if file.read(len(_BOM)) != _BOM:
                    file.seek(0)
                start = file.tell()
                if next(ijson.basic_parse(file))[0] != "start_array":
                    raise self._no_tasks()
                file.seek(start)
                for task in ijson.items(file, "item", use_float=True):
                    if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
                        raise self._no_tasks()
                    yield task
        except OSError as error:
            raise SvacError(f"{self.path} cannot be read: {error.strerror}.", "Check the path.") from error
        except (ijson.JSONError, ValueError, RecursionError) as error:
            # Only the first line: in further lines the parser quotes the file.
            why = next(iter(str(error).splitlines()), type(error).__name__).strip().rstrip(".")
            raise SvacError(
                f"{self.path} is not JSON: {why}.", "Export the project from Label Studio as JSON."
            ) from error

    def _no_tasks(self) -> SvacError:
        return SvacError(
            f"{self.path} is not a list of tasks with data.",
            "Export the project from Label Studio as JSON, not JSON-MIN.",
        )


def checked(tasks: Iterable[Task], source: str) -> Iterator[Task]:
    """Yield the tasks, checked to hold results: Label Studio's JSON may hold only the ids of predictions.

    Raises:
        SvacError: a task holds only ids.
    """
    for task in tasks:
        entries = task.get(source)
        if isinstance(entries, list) and entries and not any(isinstance(one, Mapping) for one in entries):
            raise SvacError(
                f"This export holds only the ids of its {source}, not their content (task {task.get('id')}).",
                "Export the project itself with --project ID, or take an export that holds them.",
            )
        yield task


def infer_config(tasks: Iterable[Task]) -> LabelConfig:
    """Return a config with the mask controls and labels that occur in the tasks' regions.

    Args:
        tasks: as Label Studio exports them (JSON); iterated once.

    Raises:
        SvacError: no region on frames belongs to such a control.
    """
    # A task may have other pictures: the frames are those with most regions, and lists go before single pictures.
    pictures: Counter[tuple[bool, str]] = Counter()
    controls: dict[str, tuple[str, str, dict[str, None]]] = {}
    lists, texts = _Keys(all_of_them=True), _Keys(all_of_them=False)
    for task in tasks:
        for region in _regions(task):
            kind, value = region.get("type"), region.get("value")
            if kind not in _TAGS:
                continue
            target = str(region.get("to_name"))
            pictures["item_index" in region, target] += 1
            labels = (value or {}).get(kind)
            if isinstance(labels, list) and isinstance(region.get("item_index", 0), int):
                control = controls.setdefault(str(region.get("from_name")), (_TAGS[kind], target, {}))
                control[2].update(dict.fromkeys(map(str, labels)))
        data = {key: value for key, value in task["data"].items() if key != "prompt"}
        lists.add(key for key, value in data.items() if _is_list_of_text(value))
        # The video is the only text that looks like the address of a file.
        texts.add(key for key, value in data.items() if isinstance(value, str) and "/" in value)
    if not controls:
        raise SvacError(
            "The export has no masks from which to infer its labelling config.",
            "Give the project's labelling config: --config FILE (Settings > Labeling Interface > Code).",
        )
    view = Element("View")
    frames = max(pictures, key=lambda one: (one[0], pictures[one]))[1]
    SubElement(view, "Image", name=frames, valueList=f"${lists.one('frames')}")
    for name, (tag, target, labels) in controls.items():
        element = SubElement(view, tag, name=name, toName=target)
        for label in labels:
            SubElement(element, "Label", value=label)
    SubElement(view, "Video", name="video", value=f"${texts.one('video')}", framerate="$fps")
    return parse_config(tostring(view, encoding="unicode"))


def _regions(task: Task) -> Iterator[Mapping[str, Any]]:
    for kind in ("annotations", "drafts", "predictions"):
        for entry in task.get(kind) or ():
            if isinstance(entry, Mapping):
                for region in regions_of(entry.get("result"), foreign=True):
                    if region.get("value") is not None:
                        yield region


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


class _Keys:
    """Keys of the tasks' data: those that all tasks have, or that any task has."""

    def __init__(self, *, all_of_them: bool) -> None:
        self._all = all_of_them
        self._found: set[str] | None = None

    def add(self, keys: Iterable[str]) -> None:
        """Add a task's keys."""
        here = set(keys)
        if self._found is None:
            self._found = here
        else:
            self._found = self._found & here if self._all else self._found | here

    def one(self, usual: str) -> str:
        """Return the usual key if it is there, else the only key."""
        found = self._found or set()
        return usual if usual in found or len(found) != 1 else next(iter(found))
