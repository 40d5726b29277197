"""The labelling config of an export that comes without one, from its regions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig, parse_config

# Type of a region -> tag of its control.
_TAGS = {
    "brushlabels": "BrushLabels",
    "polygonlabels": "PolygonLabels",
    "vectorlabels": "VectorLabels",
    "bitmasklabels": "BitmaskLabels",
    "rectanglelabels": "RectangleLabels",
}


def infer_config(tasks: Iterable[Mapping[str, Any]]) -> LabelConfig:
    """Return a config that has the mask controls and labels which occur in the tasks' regions.

    Args:
        tasks: as Label Studio exports them (JSON).

    Raises:
        SvacError: there is no region of such a control on frames.
    """
    tasks = list(tasks)
    view = Element("View")
    image: Element | None = None
    controls: dict[str, Element] = {}
    for region in _regions(tasks):
        kind, name, target = region.get("type"), region.get("from_name"), region.get("to_name")
        labels = (region.get("value") or {}).get(kind)
        if (
            kind not in _TAGS
            or not isinstance(labels, list)
            or not isinstance(region.get("item_index", 0), int)
        ):
            continue
        if image is None:
            image = SubElement(view, "Image", name=str(target), valueList=f"${_frames_key(tasks)}")
        if name not in controls:
            controls[str(name)] = SubElement(view, _TAGS[kind], name=str(name), toName=str(target))
        known = {label.get("value") for label in controls[str(name)]}
        for label in labels:
            if label not in known:
                SubElement(controls[str(name)], "Label", value=str(label))
                known.add(label)
    if image is None:
        raise SvacError(
            "The export has no masks from which its labelling config could be told.",
            "Give the project's labelling config: --config FILE (Settings > Labeling Interface > Code).",
        )
    SubElement(view, "Video", name="video", value=f"${_video_key(tasks)}", framerate="$fps")
    return parse_config(tostring(view, encoding="unicode"))


def _regions(tasks: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for task in tasks:
        for kind in ("annotations", "drafts", "predictions"):
            for entry in task.get(kind) or ():
                result = entry.get("result") if isinstance(entry, Mapping) else None
                for region in result if isinstance(result, list) else ():
                    if isinstance(region, Mapping) and isinstance(region.get("value"), Mapping):
                        yield region


def _frames_key(tasks: Iterable[Mapping[str, Any]]) -> str:
    """The key of the lists of addresses: `frames`, or the only list of text that all tasks have."""
    found: set[str] | None = None
    for task in tasks:
        keys = {
            key
            for key, value in (task.get("data") or {}).items()
            if key != "prompt"
            and isinstance(value, list)
            and value
            and all(isinstance(v, str) for v in value)
        }
        found = keys if found is None else found & keys
    found = found or set()
    return "frames" if "frames" in found or len(found) != 1 else found.pop()


def _video_key(tasks: Iterable[Mapping[str, Any]]) -> str:
    """The key of the videos' addresses: `video`, or the only text that looks like the address of a file."""
    keys: set[str] = set()
    for task in tasks:
        for key, value in (task.get("data") or {}).items():
            if isinstance(value, str) and key != "prompt" and "/" in value:
                keys.add(key)
    return "video" if "video" in keys or len(keys) != 1 else keys.pop()
