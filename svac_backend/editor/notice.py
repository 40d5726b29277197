"""Notices: what an annotator is told, in the editor, when a request did not simply work.

Label Studio 1.23.2 shows a model's error messages to nobody. But an answer may hold text: it appears in the config's
`<TextArea svac="notes">` below the prompt, or, if a config has no such tag and the request was typed, among the typed
sentences. The next answer clears it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from svac_backend.editor.request import MARK, Request, is_notice
from svac_backend.jobs.engine import Job, JobState
from svac_backend.labelstudio.config import LabelConfig, TextControl
from svac_backend.labelstudio.regions.region import Region

NOTES_ID = "svac-notes"
# The text that makes the backend continue; see `request.COMMANDS`.
GO_ON = "Type propagate"


def shows_notice(regions: Sequence[Region], config: LabelConfig) -> bool:
    """Return whether an editor with these regions shows a notice in its tag."""
    name = config.notes.name if config.notes else None
    values = [region.get("value") or {} for region in regions if region.get("from_name") == name]
    return any(value.get("text") for value in values)


def notes(config: LabelConfig, request: Request, said: str = "", *, clear: bool = True) -> list[Region]:
    """Return the regions that show a notice or clear the previous one; none if the config has no place for it.

    Args:
        config: the project's labelling config.
        request: the request that is answered.
        said: what to tell, without the mark; empty if all went well.
        clear: whether the editor may show a notice to clear; otherwise the empty text would be submitted, too.
    """
    found: list[Region] = []
    own = config.text
    left = request.typed if request.left is None else list(request.left)
    if own is not None and left is not None:
        texts = [text for text in left if not is_notice(text)]
        if said and config.notes is None:
            texts.append(MARK + said)
        if texts != request.typed:
            found.append(_text(own, next(iter(request.ids), "prompt"), texts))
    if config.notes is not None and (said or clear):
        found.append(_text(config.notes, NOTES_ID, [MARK + said] if said else []))
    return found


def of_error(context: Mapping[str, Any] | None, config: LabelConfig, said: str) -> list[Region]:
    """Return the regions that show why a request was refused, even if its kind is unknown."""
    if config.notes is not None:
        return [_text(config.notes, NOTES_ID, [MARK + said])]
    result = (context or {}).get("result")
    areas = [
        region
        for region in (result if isinstance(result, list) else [])
        if isinstance(region, Mapping)
        and config.text is not None
        and region.get("from_name") == config.text.name
    ]
    value = areas[0].get("value") if areas else None
    texts = value.get("text") if isinstance(value, Mapping) else None
    if config.text is None or not isinstance(texts, list):
        return []
    kept = [text for text in texts if isinstance(text, str) and not is_notice(text)]
    return [_text(config.text, str(areas[0].get("id") or "prompt"), [*kept, MARK + said])]


def not_found(names: Sequence[str]) -> str:
    """Say that nothing was found."""
    return (
        f"Nothing was found: {_listed(names)}. Say it in other words, click on it, or draw a box around it."
    )


def partial(names: Sequence[str], ready: int, frames: int) -> str:
    """Say that an answer lacks frames."""
    return f"{ready} of {frames} frames of {_listed(names)} are here so far. {GO_ON} in a while: the others follow."


def portion(left: int) -> str:
    """Say that an answer comes in portions."""
    return f"{left} masks are not replaced yet: so many at once would freeze the page. Ask again for the next ones."


def unanswered(names: Sequence[str], job: Job) -> str:
    """Say why a job has nothing to show: it waits, it is running, or it failed."""
    if not job.active:
        return (
            f"{_listed(names)}: {job.error or f'the job was {job.state.value}.'} {job.hint or 'Ask again.'}"
        )
    if job.state is JobState.QUEUED:
        return f"{_listed(names)} waits for other work. {GO_ON} in a while: it is fetched then."
    done = f"{100 * (job.progress or 0):.0f} %" + (f", {job.message}" if job.message else "")
    return f"{_listed(names)} is still being worked on ({done}). {GO_ON} in a while: it is fetched then."


NO_WORKER = "No worker is running, so nothing can be segmented now. Ask again when one is started: svac-backend worker."
NOTHING_TO_DO = "There is nothing to propagate: correct a mask first, or draw an object on one frame."


def _listed(names: Sequence[str]) -> str:
    shown = [f'"{name}"' if name else "the object" for name in names]
    return ", ".join(dict.fromkeys(shown)) or "the object"


def _text(control: TextControl, id_: str, texts: Sequence[Any]) -> Region:
    names = {"from_name": control.name, "to_name": control.to_name}
    return {"id": id_, **names, "type": "textarea", "value": {"text": list(texts)}}
