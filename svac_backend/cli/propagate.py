"""`svac-backend propagate`: masks, points and boxes on some frames of a video in, masks on all frames out.

Masks that people drew with other tools come as pictures in a folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.markup import escape

from svac_backend.cli.inputs import open_video, read_config, shipped_config
from svac_backend.cli.prelabel import Segmented, Written, tell, write_results
from svac_backend.cli.terminal import bar, console, counted
from svac_backend.errors import SvacError
from svac_backend.evaluation.predictions import writing
from svac_backend.evaluation.truth import objects_shown, read_numbers
from svac_backend.labelstudio.config import LabelConfig, parse_config
from svac_backend.labelstudio.regions.region import RegionName
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.rle import to_coco
from svac_backend.masks.tracks import Track
from svac_backend.settings import Settings
from svac_backend.versions import served_version
from svac_backend.video.source import VideoInfo

_LAYOUT = (
    "Name the pictures by their 0-based frame: DIR/<object>/00012.png with one object each, "
    "or DIR/00012.png with the objects' numbers."
)
# Object id -> 0-based frame -> its hint there.
Shown = dict[str, dict[int, FrameHint]]


def run(
    settings: Settings,
    path: Path,
    out: Path,
    *,
    masks: Path | None = None,
    points: Sequence[str] = (),
    negatives: Sequence[str] = (),
    boxes: Sequence[str] = (),
    tracks_file: Path | None = None,
    config_file: Path | None = None,
) -> Written:
    """Predict objects from frame hints, and write the same files as `prelabel`.

    Args: as the command's options in `cli.commands`. The objects of `tracks_file` keep their expressions; those without
    a hint stay as they are.

    Raises:
        SvacError: there are no hints, one does not fit the video, there is no model, or the folder can't be written.
    """
    clicked = read_hints(points, negatives, boxes)
    if masks is None and not clicked:
        raise SvacError(
            "There is no mask, point or box for any object.",
            "Give --masks DIR, --point obj1:0:340,200 or --box obj1:0:10,20,90,80.",
        )
    served_version(settings)  # reports what is wrong before anything is written
    with open_video(path, settings) as video:
        info = video.info
        shown = merged(read_masks(masks, info) if masks else {}, clicked)
        before = _read_tracks(tracks_file, info) if tracks_file else []
        config = parse_config(
            read_config(config_file) if config_file else shipped_config([track.label for track in before])
        )
        objects = [*before, *_new_tracks(shown, before, config)]
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        # Imported here, since it imports torch: a mistake in the command is reported without that wait.
        from svac_backend.jobs.worker import load_served
        from svac_backend.pipeline import propagate

        model, version = load_served(settings)
        started = time.monotonic()
        with bar("propagating") as progress:
            specks = settings.speck_share
            tracks = propagate(
                model, video, objects, shown, specks=specks, progress=lambda done, _: progress(done)
            )
        seconds = time.monotonic() - started
        texts = [track.expression for track in tracks]
        found = Segmented(path.name, version, tracks, texts, config)
        written = write_results(out, video, found, settings)
    count = len({i for given in shown.values() for i in given})
    tell(tracks, info.frame_count, "It was found on no frame; show it on one more.")
    console.print(
        f"{info.frame_count} frames of {info.width}x{info.height} in {seconds:.1f} s from "
        f"{counted(count, 'corrected frame')}. "
        f"Model {version}. Results in {escape(str(out))}"
    )
    return written


def read_hints(points: Sequence[str], negatives: Sequence[str], boxes: Sequence[str]) -> Shown:
    """Read the points and boxes of the command line, see `run`. Raises `SvacError` for malformed text."""
    clicks: dict[tuple[str, int], list[Click]] = {}
    found: dict[tuple[str, int], tuple[float, float, float, float]] = {}
    for texts, positive in ((points, True), (negatives, False)):
        for text in texts:
            name, frame, (x, y) = _parse(text, 2)
            clicks.setdefault((name, frame), []).append(Click(x, y, positive))
    for text in boxes:
        name, frame, (left, top, right, bottom) = _parse(text, 4)
        if (name, frame) in found:
            raise SvacError(f"{name} has two boxes on frame {frame}.", "Give one box per object and frame.")
        found[name, frame] = (left, top, right, bottom)
    shown: Shown = {}
    for name, frame in dict.fromkeys((*clicks, *found)):
        hint = FrameHint(clicks=tuple(clicks.get((name, frame), ())), box=found.get((name, frame)))
        shown.setdefault(name, {})[frame] = hint
    return shown


def merged(masks: Shown, clicked: Shown) -> Shown:
    """Merge both. Raises `SvacError` if an object has a mask and clicks on the same frame."""
    both = {name: dict(given) for name, given in masks.items()}
    for name, given in clicked.items():
        twice = sorted(both.get(name, {}).keys() & given.keys())
        if twice:
            raise SvacError(
                f"{name} has a mask and points on frame {twice[0]}.",
                "Give one or the other; a mask is final.",
            )
        both.setdefault(name, {}).update(given)
    return both


def _parse(text: str, count: int) -> tuple[str, int, list[float]]:
    what = "obj1:12:340,200" if count == 2 else "obj1:12:300,180,420,260"
    name, _, rest = text.partition(":")
    frame, _, place = rest.partition(":")
    try:
        number, values = int(frame), [float(part) for part in place.split(",")]
    except ValueError:
        values = []
    if len(values) != count or number < 0:
        raise SvacError(
            f"{text!r} can't be understood.", f"Write object, 0-based frame and pixels, such as {what}."
        )
    return object_id(name), number, values


def _new_tracks(shown: Shown, before: Sequence[Track], config: LabelConfig) -> list[Track]:
    """Return empty tracks, with the config's first label, for objects without a track."""
    known = {track.object_id for track in before}
    label = next(iter(config.mask_control().labels))
    return [Track(name, label, name) for name in sorted(shown.keys() - known)]


def _read_tracks(file: Path, info: VideoInfo) -> list[Track]:
    advice = "Give a tracks.json that prelabel or propagate wrote for this video."
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        size = (data["width"], data["height"], data["frame_count"])
        tracks = [Track.from_json(track) for track in data["tracks"]]
    except OSError as error:
        raise SvacError(f"{file} cannot be read: {error.strerror}.", advice) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SvacError(f"{file} holds no tracks.", advice) from error
    if size != (info.width, info.height, info.frame_count):
        raise SvacError(
            f"{file} belongs to a video of {size[2]} frames of {size[0]}x{size[1]}, "
            f"but this one has {info.frame_count} of {info.width}x{info.height}.",
            advice,
        )
    return tracks


def read_masks(folder: Path, info: VideoInfo) -> Shown:
    """Read masks by object id and 0-based frame.

    There are two layouts: `<object>/<frame>.png`, where everything not black is the object; or `<frame>.png` as in
    DAVIS, whose pixels are object numbers (palette or grey; grey pictures of 0 and 255 show one object). Number 3 is
    the object `obj3`. A picture is complete for its frame: a number that only other pictures show is an object that is
    absent there; so is an empty picture in an object's folder.

    Args:
        folder: holds pictures of the video's size.
        info: the video's size and length.

    Raises:
        SvacError: there is no mask, both layouts are mixed, or a picture does not fit.
    """
    if not folder.is_dir():
        raise SvacError(f"There is no folder {folder}.", _LAYOUT)
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    pictures = [path for path in entries if path.is_file()]
    if folders and pictures:
        raise SvacError(f"{folder} holds both pictures and folders.", _LAYOUT)
    if pictures:
        return _numbered(pictures, info)
    found: Shown = {}
    for one in folders:
        files = sorted(path for path in one.iterdir() if not path.name.startswith("."))
        if files:
            found[object_id(one.name)] = {
                _frame(path, info): FrameHint(mask=to_coco(_single(path, info))) for path in files
            }
    if not found:
        raise SvacError(f"There is no mask in {folder}.", _LAYOUT)
    return found


def object_id(name: str) -> str:
    """Return a name that can be an object's id. Raises `SvacError` if it can't."""
    if not RegionName.can_hold(name):
        raise SvacError(
            f"An object can't be called {name!r}.",
            "Use a name without spaces, colons and '-f', such as obj1.",
        )
    return name


def _numbered(files: list[Path], info: VideoInfo) -> Shown:
    numbers_of = {_frame(path, info): _numbers(path, info) for path in files}
    shown = objects_shown({int(n) for numbers in numbers_of.values() for n in np.unique(numbers)})
    if not shown:
        raise SvacError(f"The pictures in {files[0].parent} show no object.", _LAYOUT)
    return {
        f"obj{name}": {frame: FrameHint(mask=to_coco(numbers == n)) for frame, numbers in numbers_of.items()}
        for n, name in shown.items()
    }


def _frame(path: Path, info: VideoInfo) -> int:
    if path.suffix.lower() != ".png" or not (path.stem.isascii() and path.stem.isdigit()):
        raise SvacError(f"{path} is not a mask of a frame.", _LAYOUT)
    frame = int(path.stem)
    if frame >= info.frame_count:
        raise SvacError(
            f"{path} is for a frame that the video does not have.",
            f"Its frames are 0 to {info.frame_count - 1}.",
        )
    return frame


def _numbers(path: Path, info: VideoInfo) -> NDArray[np.int32]:
    mode, values = _read(path, info)
    if values.ndim != 2:
        raise SvacError(
            f"The pixels of {path} are colours (its mode is {mode}), not numbers of objects.",
            "Save a palette or grey picture, or one picture per object in a folder of its name.",
        )
    return read_numbers(path)


def _single(path: Path, info: VideoInfo) -> NDArray[np.bool_]:
    mode, values = _read(path, info)
    if mode in ("LA", "RGBA"):  # transparent pixels were not painted
        values = values[..., :-1] * (values[..., -1:] >= 128)
    if values.ndim == 3:
        values = values.max(-1)
    # Grey between black and white is the soft edge of a brush; small numbers alone are object numbers.
    half = 127 if values.max() <= 255 else 32767
    soft = mode != "P" and values.max() > half
    return values > (half if soft else 0)


def _read(path: Path, info: VideoInfo) -> tuple[str, NDArray[np.uint8]]:
    try:
        with Image.open(path) as picture:
            mode, values = picture.mode, np.array(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise SvacError(f"{path} can't be read as a picture.", "Save it as PNG again.") from error
    if values.shape[:2] != (info.height, info.width):
        raise SvacError(
            f"{path} has {values.shape[1]}x{values.shape[0]} pixels.",
            f"Masks need the video's size, {info.width}x{info.height}.",
        )
    return mode, values.astype(np.uint8) if values.dtype == np.bool_ else values
