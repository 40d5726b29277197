"""Tasks: which objects a task asks for, the data of a new task, and windows.

A long video becomes several tasks. The data of each names the whole video, so that one prediction serves them all, and
under `svac_window` the frames that the task shows. Only `Window` renumbers frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote

from svac_backend.errors import SvacError, split_address, without_secrets
from svac_backend.labelstudio.config import LabelConfig, MaskControl
from svac_backend.masks.limits import MAX_FRAMES, MAX_TEXT_CHARS
from svac_backend.masks.tracks import EACH, ObjectPrompt, each_of

PROMPT_KEY = "prompt"
# The field that names a task for people in the Data Manager.
NAME_KEY = "name"
LOCAL_FILES_ROUTE = "/data/local-files/"
# More objects than this in one task must be a mistake, such as a pasted document.
MAX_OBJECTS = 64

Prompt = str | Sequence[str] | Mapping[str, str | Sequence[str]]
# (label or None for "the first one", expression)
_Wish = tuple[str | None, str]


def task_prompts(
    task_data: Mapping[str, Any],
    config: LabelConfig,
    context: Mapping[str, Any] | None = None,
    *,
    max_chars: int,
    kind: str | None = None,
) -> list[ObjectPrompt]:
    """Return what to segment in a task, one `ObjectPrompt` per expression, ids `obj1`, `obj2`, ... by order.

    They come from the first of these that exists: the text of the interactive context; the task's `prompt` (an
    expression, several lines, a list, or label -> expression(s)); the labels of the config, each by its `prompt`
    attribute or else its name, but only the first of `object`, `object 2`, ... `car: the red car` picks the label `car`
    if the config has it. An expression without a label gets the label of the same name, or else the first label; if
    that is `object`, the next of `object`, `object 2`, ... `each: the dogs` asks for every dog as an object of its own,
    see `masks.instances`. Duplicates are dropped.

    Args:
        task_data: the task's `data`.
        config: the project's labelling config.
        context: `params.context` of an interactive call.
        max_chars: longest expression accepted.
        kind: `brush` or `polygon`, to take the labels of that control.

    Raises:
        SvacError: the prompt is empty, too long, malformed, or names an unknown label; or the config cannot show masks.
    """
    control = config.mask_control(kind)
    texts = context_texts(context, config)
    if texts is not None:
        return _number(text_wishes(texts, control, max_chars=max_chars))
    if task_data.get(PROMPT_KEY) is not None:
        wishes = list(_from_value(task_data[PROMPT_KEY], control))
    else:
        alike = set(control.colours[1:])
        wishes = [(label, prompt or label) for label, prompt in control.labels.items() if label not in alike]
    return _number(_checked(wishes, control, max_chars))


def text_wishes(
    texts: Sequence[Any], control: MaskControl, *, max_chars: int, known: Sequence[ObjectPrompt] = ()
) -> list[tuple[str, str]]:
    """Return what a submitted text asks for, as (label, expression) without duplicates; see `task_prompts`.

    Args:
        texts: what was typed.
        control: the control whose labels the text may name.
        max_chars: longest expression accepted.
        known: the objects that exist: the same sentence means the same object, a new one gets another label.

    Raises:
        SvacError: it is empty, too long, or not text.
    """
    return _checked(list(_from_list(texts, control, "The submitted text")), control, max_chars, known)


def context_texts(context: Mapping[str, Any] | None, config: LabelConfig) -> list[Any] | None:
    """Return the texts of the prompt's TextArea in an interactive context; None if it has none (clicks, boxes).

    Raises:
        SvacError: the context is malformed.
    """
    result = context.get("result") if isinstance(context, Mapping) else None
    if result is None:
        return None
    if not isinstance(result, list) or not all(isinstance(item, Mapping) for item in result):
        raise SvacError(
            "The interactive context is malformed.", "Send `context.result` as a list of regions."
        )
    areas = [
        item
        for item in result
        if item.get("type") == "textarea"
        and (config.text is None or item.get("from_name") == config.text.name)
    ]
    if not areas:
        return None
    texts: list[Any] = []
    for item in areas:
        value = item.get("value")
        text = value.get("text") if isinstance(value, Mapping) else None
        texts.extend(text if isinstance(text, list) else [text])
    return texts


def build_task_data(
    video_url: str | None,
    frame_urls: Sequence[str],
    fps: float,
    prompt: Prompt | None = None,
    *,
    config: LabelConfig | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the `data` of a task under the keys that the config reads.

    Args:
        video_url: address of the video; None leaves it out.
        frame_urls: one address for each frame, in order. Without any, the key is left out: an empty list crashes the
            editor, a missing one does not.
        fps: true average frame rate in frames per second.
        prompt: as in `task_prompts`.
        config: names the keys; by default they are `video`, `frames` and `fps`.
        extra: further data of the task; the arguments above override it.

    Raises:
        SvacError: fps is not positive, or the prompt is empty.
    """
    if not fps > 0:
        raise SvacError(f"A frame rate of {fps} is not possible.", "Pass the video's true frame rate.")
    frames = config.frames if config else None
    video = config.video if config else None
    data = dict(extra or {})
    if video_url is not None:
        data[video.key if video else "video"] = video_url
    if frame_urls:
        data[frames.key if frames else "frames"] = list(frame_urls)
    data[video.fps_key or "fps" if video else "fps"] = fps
    if prompt is not None:
        if not prompt or (isinstance(prompt, str) and not prompt.strip()):
            raise _empty("The prompt")
        # The editor shows lines, but nothing of a list.
        data[PROMPT_KEY] = prompt if isinstance(prompt, str | Mapping) else "\n".join(prompt)
    return data


def local_files_url(path: Path, root: Path, label_studio: str = "") -> str:
    """Return the address under which Label Studio serves a file below `root`, its LOCAL_FILES_DOCUMENT_ROOT.

    Args:
        path: the file.
        root: the folder.
        label_studio: address of Label Studio; if it lives below a path, browsers need that path, too.

    Raises:
        SvacError: the file is not below the root.
    """
    try:
        relative = path.resolve().relative_to(root.resolve())
    except ValueError as error:
        raise SvacError(
            f"{path} is not below Label Studio's local files root {root}.",
            "Put it there, or set SVAC_LABEL_STUDIO_FILES_ROOT to the folder that Label Studio serves.",
        ) from error
    parts = split_address(label_studio)
    below = parts.path.rstrip("/") if parts else ""
    return f"{below}{LOCAL_FILES_ROUTE}?d={quote(relative.as_posix())}"


def local_files_path(url: str) -> PurePosixPath | None:
    """Return the path below the root that a local files address names, or None for any other address.

    Raises:
        SvacError: the path leaves the root, or is empty.
    """
    parts = split_address(url)
    if parts is None:
        return None
    # Label Studio may live below a path.
    if not parts.path.rstrip("/").endswith(LOCAL_FILES_ROUTE.rstrip("/")):
        return None
    relative = PurePosixPath(parse_qs(parts.query).get("d", [""])[0].replace("\\", "/").lstrip("/"))
    if not relative.parts or ".." in relative.parts or "\0" in str(relative):
        raise SvacError(
            f"The local files address {url[:200]!r} names no file below the root.", "Correct the task's data."
        )
    return relative


def _from_value(prompt: Any, control: MaskControl) -> Iterator[_Wish]:
    if isinstance(prompt, Mapping):
        if not prompt:
            raise _empty("The task's prompt")
        for name, value in prompt.items():
            label = control.find_label(str(name))
            if label is None:
                known = ", ".join(f"'{known}'" for known in control.labels)
                raise SvacError(
                    f"The task's prompt names the label '{name}', which the labelling config does not have.",
                    f"Use one of {known}, or add the label to '{control.name}'.",
                )
            texts = value if isinstance(value, list | tuple) else [value]
            if not texts:
                raise _empty(f"The prompt of '{name}'")
            for text in texts:
                yield from ((label, _sentence(line)) for line in _lines(text, f"The prompt of '{name}'"))
    else:
        yield from _from_list(
            prompt if isinstance(prompt, list | tuple) else [prompt], control, "The task's prompt"
        )


def _from_list(texts: Sequence[Any], control: MaskControl, what: str) -> Iterator[_Wish]:
    if not texts:
        raise _empty(what)
    for text in texts:
        for line in _lines(text, what):
            yield _split_label(line, control)


def _lines(text: Any, what: str) -> list[str]:
    if not isinstance(text, str):
        raise SvacError(
            f"{what} is not text but {type(text).__name__}.",
            'Give a sentence, a list of sentences, or {"label": "sentence"}.',
        )
    if len(text) > MAX_TEXT_CHARS:
        raise SvacError(f"{what} has {len(text)} characters.", "Describe the object in one sentence.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        # Lone surrogates: what a shell makes of bytes that are not UTF-8.
        raise SvacError(f"{what} holds characters that are not valid Unicode.", "Write it in UTF-8.")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [line for line in lines if any(c.isprintable() and not c.isspace() for c in line)]
    if not lines:
        raise _empty(what)
    return lines


def label_ends(line: str) -> list[int]:
    """Return where an unknown label could end: at colons before white space or at the end, not in `12:30`."""
    return [i for i, char in enumerate(line) if char == ":" and (line[i + 1 :] + " ")[0].isspace()]


def _split_label(line: str, control: MaskControl) -> _Wish:
    """Split `car: the red car` into (car, the red car) if `car` is a label; other colons stay in the sentence.

    `each: the cars`, `each: car: the cars` and `car: each: the cars` are instances of the label `car`.
    """
    things = each_of(line)
    if things is not None:
        if not things:
            raise _empty("What follows 'each:'")
        label, expression = _split_label(things, control)
        return label or control.find_label(kind_of(expression)), _sentence(EACH + expression)
    # Labels may hold colons themselves, so the longest one that fits decides.
    end = max(len(label) for label in control.labels) + 2
    # `car:the red car` counts, too, since the label is known. `12:30` is a time, whatever labels there are.
    ends = [i for i, char in enumerate(line[:end]) if char == ":" and not line[i + 1 : i + 2].isdigit()]
    for position in reversed(ends):
        label = control.find_label(line[:position])
        if label is not None:
            expression = line[position + 1 :].strip()
            if not expression:
                raise _empty(f"The prompt of '{label}'")
            return label, _sentence(expression)
    return control.find_label(line), line


def _sentence(text: str) -> str:
    """Return an expression in its stored form: a prompt for instances begins with `each: `, however it was typed."""
    things = each_of(text)
    if things is None:
        return text
    if not things:
        raise _empty("What follows 'each:'")
    return _sentence(things) if each_of(things) is not None else EACH + things


_BEFORE_NOUNS = {"the", "all", "every", "each", "both", "of", "a", "an", "these", "those"}
_AFTER_NOUNS = {
    "that",
    "which",
    "who",
    "in",
    "on",
    "at",
    "with",
    "of",
    "near",
    "behind",
    "beside",
    "between",
    "under",
}
_PLURALS = {
    "people": "person",
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
}


def kind_of(sentence: str) -> str:
    """Return the noun for a single thing of a sentence, `dog` for `all the dogs that jump`; empty if unclear."""
    words = sentence.casefold().split()
    while words and words[0] in _BEFORE_NOUNS:
        words = words[1:]
    end = next((i for i, word in enumerate(words) if word in _AFTER_NOUNS), len(words))
    noun = words[end - 1] if end else ""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "sses", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us")) else noun


def _checked(
    wishes: list[_Wish], control: MaskControl, max_chars: int, known: Sequence[ObjectPrompt] = ()
) -> list[tuple[str, str]]:
    """Return each wish once, with a label if it names none, see `MaskControl.colour`. Raises `SvacError`."""
    colours = set(control.colours)
    given = {one.expression: one.label for one in reversed(known) if one.label in colours}
    used = [*dict.fromkeys([*(one.label for one in known), *(label for label, _ in wishes if label)])]
    for label, expression in wishes:
        if label is None and expression not in given:
            given[expression] = control.colour(used, len(known) + len(given))
            used.append(given[expression])
    unique = list(dict.fromkeys((label or given[expression], expression) for label, expression in wishes))
    if len(unique) > MAX_OBJECTS:
        raise SvacError(
            f"The task asks for {len(unique)} objects, more than {MAX_OBJECTS}.",
            "Split it into several tasks.",
        )
    for _, expression in unique:
        if len(expression) > max_chars:
            raise SvacError(
                f"The prompt '{expression[:40]}...' has {len(expression)} characters, more than {max_chars}.",
                "Describe the object in one sentence, or raise SVAC_MAX_PROMPT_CHARS.",
            )
    return unique


def _number(wishes: list[tuple[str, str]]) -> list[ObjectPrompt]:
    return [ObjectPrompt(f"obj{number}", *wish) for number, wish in enumerate(wishes, start=1)]


def _empty(what: str) -> SvacError:
    return SvacError(f"{what} is empty.", "Say what to segment, e.g. 'the dog that jumps over the fence'.")


WINDOW_KEY = "svac_window"


@dataclass(frozen=True)
class Window:
    """Some frames of a video: start, start + stride, ..., `count` of them. `item_index` numbers them from 0.

    Attributes:
        start: first frame, 0-based.
        count: number of frames shown.
        stride: distance between two shown frames.

    Raises:
        SvacError: a number is out of range.
    """

    start: int
    count: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.count < 1 or self.stride < 1 or self.frame(self.count - 1) >= MAX_FRAMES:
            raise SvacError(
                f"A window of {self.count} frames from {self.start} in steps of {self.stride} is not possible.",
                f"Correct '{WINDOW_KEY}' in the task's data, or import the video again.",
            )

    def frame(self, item: int) -> int:
        """Return the video's 0-based frame that the task shows as `item_index` `item`."""
        return self.start + item * self.stride

    @property
    def frames(self) -> range:
        """The video's frames that the task shows, in order."""
        return range(self.start, self.start + self.count * self.stride, self.stride)

    def item(self, frame: int) -> int | None:
        """Return the `item_index` of a frame of the video, or None if the task does not show it."""
        item, rest = divmod(frame - self.start, self.stride)
        return item if rest == 0 and 0 <= item < self.count else None

    def to_json(self) -> dict[str, int]:
        """Return the window in the form of the task's data."""
        return {"start": self.start, "count": self.count, "stride": self.stride}


def shown_frames(frame_count: int, window: Window | None) -> Sequence[int]:
    """Return the frames of a video with `frame_count` frames that a task shows, in order."""
    return range(frame_count) if window is None else window.frames


def window_of(task_data: Mapping[str, Any]) -> Window | None:
    """Return a task's window, or None if it shows the whole video.

    Raises:
        SvacError: `svac_window` is malformed.
    """
    value = task_data.get(WINDOW_KEY)
    if value is None:
        return None
    found = {"stride": 1, **value} if isinstance(value, Mapping) else {}
    numbers: list[Any] = [found.get(key) for key in ("start", "count", "stride")]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise SvacError(
            f"'{WINDOW_KEY}' in the task's data is malformed.",
            'Write {"start": 0, "count": 100, "stride": 1}, or import the video again.',
        )
    return Window(*numbers)


def video_url(data: Mapping[str, Any], config: LabelConfig) -> str:
    """Return the address of a task's video.

    Raises:
        SvacError: it has none.
    """
    key = config.video.key if config.video else "video"
    url = data.get(key)
    if not isinstance(url, str) or not url.strip():
        raise SvacError(
            f"The task has no video under the key '{key}'.",
            f"Put the video's address into the task's '{key}'.",
        )
    if split_address(url.strip()) is None:
        raise SvacError(
            f"The task's '{key}' is not an address: {without_secrets(url.strip())[:200]!r}.",
            f"Correct the task's '{key}'.",
        )
    return url.strip()
