"""A command's inputs: a labelling config, prompts, and video files.

All are checked before anything is changed; videos are then copied to where Label Studio serves them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import SubElement, TreeBuilder, XMLParser, fromstring, tostring

from svac_backend.atomic import atomic_path
from svac_backend.errors import SvacError
from svac_backend.labelstudio.config import LabelConfig
from svac_backend.labelstudio.tasks import kind_of, label_ends, task_prompts
from svac_backend.masks.tracks import ObjectPrompt, each_of
from svac_backend.settings import Settings
from svac_backend.video.reader import VideoReader
from svac_backend.video.source import VideoInfo, VideoSource

# Beside the package, in a checkout as well as in an installation.
SHIPPED = Path(__file__).resolve().parents[2] / "labelstudio_config"
# Kind -> (file, the tag that draws its masks).
CONFIGS = {
    "brush": ("brush_frames.xml", "BrushLabels"),
    "polygon": ("polygon_frames.xml", "PolygonLabels"),
    "boxes": ("boxes_overview.xml", "PolygonLabels"),
}


# More words than this before a colon are not a label but part of a sentence.
_LABEL_WORDS = 3


def shipped_config(labels: Sequence[str] = (), *, kind: str = "brush") -> str:
    """Return the shipped config for a kind of masks, with further labels for the masks and the boxes on the video.

    Args:
        labels: labels to add to the config's own.
        kind: `brush`, `polygon`, or `boxes` (polygons with an overview of boxes).

    Raises:
        SvacError: the installation lacks it.
    """
    file, tag = CONFIGS[kind]
    path = SHIPPED / file
    if not path.is_file():
        raise SvacError(
            f"The shipped labelling configs are not installed ({SHIPPED}).",
            "Name a config with --config, or install svac-backend again.",
        )
    # The file is ours; its comment tells people what to change, so it is kept.
    root = fromstring(path.read_text(encoding="utf-8"), XMLParser(target=TreeBuilder(insert_comments=True)))
    masks = root.findall(f".//{tag}")
    if not masks:
        raise SvacError(f"{path} has no <{tag}>.", "Install svac-backend again.")
    for control in [*masks, *root.iterfind(".//Labels")]:
        known = {label.get("value") for label in control}
        for name in dict.fromkeys(labels):
            if name not in known:
                last = control[-1]
                label = SubElement(control, "Label", value=name)
                label.tail, last.tail = last.tail, control.text
    return tostring(root, encoding="unicode")


def read_config(path: Path) -> str:
    """Return the text of a labelling config's file.

    Args:
        path: the file, or the name of a shipped one: `polygon_frames` or `polygon_frames.xml`.

    Raises:
        SvacError: there is no such file, or it is not text.
    """
    shipped = sorted(SHIPPED.glob("*.xml"))
    if len(path.parts) == 1 and not path.exists():
        path = next((file for file in shipped if path.name in (file.name, file.stem)), path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise SvacError(
            f"The labelling config {path} cannot be read: {why}.",
            f"Give the path of an XML file, or one of labelstudio_config: {', '.join(f.name for f in shipped)}.",
        ) from error


def prompt_labels(prompts: Sequence[str]) -> list[str]:
    """Return the labels that prompts such as "car: the red car" ask for, in order, each once."""
    heads = (_head(line) for line in _lines(prompts))
    kinds = (kind_of(each) for line in _lines(prompts) if (each := each_of(line)) and not _head(line)[0])
    return list(
        dict.fromkeys([*(head for head, rest in heads if head and rest), *(kind for kind in kinds if kind)])
    )


def _head(line: str) -> tuple[str, str]:
    """Split a line at the colon after its label; the label is "" if there is none.

    A label has few words: "the sign that says: STOP" is a sentence. `each:` is not a label.
    """
    line = each_of(line) or line
    end = next(iter(label_ends(line)), 0)
    head = line[:end].strip()
    return (head, line[end + 1 :].strip()) if len(head.split()) <= _LABEL_WORDS else ("", line.strip())


def check_prompts(prompts: Sequence[str], config: LabelConfig, settings: Settings) -> list[ObjectPrompt]:
    """Return the objects that prompts ask for under a config; without prompts, those of the config's labels.

    In a task, a sentence may hold any colon. On the command line, a few words before a colon and a space are a label,
    as the help says, and a misspelt label must not become part of the sentence.

    Raises:
        SvacError: a prompt is empty or too long, or its label is not in the config.
    """
    control = config.mask_control()
    if any(not prompt.strip() for prompt in prompts):
        raise SvacError("A prompt is empty.", 'Say what to segment, for example --prompt "the white dog".')
    for line in _lines(prompts):
        line = each_of(line) or line
        heads = [line[:i] for i in label_ends(line)]
        if _head(line)[0] and not any(control.find_label(head) for head in heads):
            known = ", ".join(f"'{label}'" for label in control.labels)
            raise SvacError(
                f"The labelling config has no label '{heads[0].strip()[:40]}'.",
                f"Use one of {known}, add the label to the config, or write the sentence without a colon.",
            )
    data = {"prompt": list(prompts)} if prompts else {}
    return task_prompts(data, config, max_chars=settings.max_prompt_chars)


def _lines(prompts: Sequence[str]) -> Iterator[str]:
    for prompt in prompts:
        yield from prompt.splitlines()


_CHUNK = 1 << 20
_HASH_DIGITS = 8
# A file name may have 255 bytes, and a character up to four.
_LONGEST_STEM = 48


@dataclass(frozen=True)
class SourceVideo:
    """A video that can be read.

    Attributes:
        path: the file.
        digest: SHA-256 of its content, hexadecimal.
        info: its size, frames and frame rate.
        pictures: its frames if it was encoded from pictures, which are better than the frames of the video.
    """

    path: Path
    digest: str
    info: VideoInfo
    pictures: VideoSource | None = None

    @property
    def folder_name(self) -> str:
        """Name of the folder for its frames: `<stem>-<hash>`, the same for the same content."""
        return f"{self.stem}-{self.digest[:_HASH_DIGITS]}"

    @property
    def file_name(self) -> str:
        """Name of its copy, safe in addresses."""
        suffix = self.path.suffix.lower()
        return self.stem + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")

    @property
    def stem(self) -> str:
        """The file's name without suffix, safe in addresses."""
        return re.sub(r"[^\w.-]+", "_", self.path.stem).strip("._-")[:_LONGEST_STEM] or "video"


def open_video(path: Path, settings: Settings) -> VideoReader:
    """Open a video within the limits of the settings.

    Raises:
        SvacError: it cannot be read, or is too large.
    """
    return VideoReader(path, max_side=settings.max_video_side, max_frames=settings.max_frames)


def check_video(path: Path, settings: Settings) -> SourceVideo:
    """Check that a video can be read, and return what it is.

    Raises:
        SvacError: it cannot be read, or is too large.
    """
    with open_video(path, settings) as video:
        info = video.info
    return SourceVideo(path, _digest(path), info)


def copy_video(source: SourceVideo, folder: Path, progress: Callable[[float], None] | None = None) -> Path:
    """Make a copy of a video in a folder, whole or not at all, unless it is there already.

    A hard link would save space, but if the original is overwritten later, the video would change under the
    annotations; and Label Studio's user might not be allowed to read it.

    Raises:
        SvacError: the original has changed, or the folder cannot be written.
    """
    target = folder / source.file_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _digest(target) == source.digest:
            return target
        with atomic_path(target) as part:
            _copy(source, part, progress)
    except OSError as error:
        raise SvacError(
            f"{source.path.name} cannot be copied to {folder}: {error.strerror or error}.",
            "Let this user write there, and free space on the disk (SVAC_LABEL_STUDIO_FILES_ROOT).",
        ) from error
    return target


def _copy(source: SourceVideo, part: Path, progress: Callable[[float], None] | None) -> None:
    size, done, digest = source.path.stat().st_size, 0, hashlib.sha256()
    with source.path.open("rb") as original, part.open("wb") as target:
        while chunk := original.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
            done += len(chunk)
            if progress:
                progress(done / max(size, 1))
    shutil.copystat(source.path, part)
    # Readable for all, since Label Studio may run as another user.
    part.chmod(0o644)
    if digest.hexdigest() != source.digest:
        raise SvacError(
            f"{source.path.name} changed while it was imported.",
            "Import it again when the file is complete.",
        )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SvacError(
            f"{path} cannot be read: {error.strerror}.", "Check the file and its permissions."
        ) from error
