"""Frames and masks as pictures: a task's cut frames, or else frames decoded from its video, and its masks as overlays.

No side of a picture is longer than `SIDE`, however large the video, and little is kept in memory: the readers of two
videos and the tracks of four predictions.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.jobs.frames import frame_place, stored_name
from svac_backend.jobs.services import Services
from svac_backend.labelstudio.api.access import LabelStudioAccess, label_studio_name, task_number
from svac_backend.labelstudio.config import LabelConfig, cached_config
from svac_backend.labelstudio.tasks import Window, local_files_path, video_url, window_of
from svac_backend.masks.flags import frame_certainty
from svac_backend.masks.render import PALETTE
from svac_backend.masks.rle import from_coco
from svac_backend.masks.tracks import CocoRle
from svac_backend.storage.folder import Kind
from svac_backend.storage.published import open_storage
from svac_backend.store.links import MediaLinks
from svac_backend.store.predictions import Prediction
from svac_backend.video.frames import frame_name
from svac_backend.video.reader import VideoReader

SIDE, JPEG_QUALITY, PNG_LEVEL = 960, 80, 1
# Opacity, 0..255, of a mask and of its outline.
FILL, OUTLINE = 110, 255
READERS, PREDICTIONS, TASKS = 2, 4, 200
# Seconds: how long a task's data stays fresh, how long a page waits for Label Studio, and for a video or prediction.
FRESH_S, ASK_S, WAIT_S = 60.0, 3.0, 8.0

T = TypeVar("T")


class _Kept(Generic[T]):
    """The few things that were used last. A thread of its own makes each of them, and nobody waits long for it."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._made: OrderedDict[Any, Future[T]] = OrderedDict()

    def have(
        self,
        key: Any,
        make: Callable[[], T],
        good: Callable[[T], bool] = lambda _: True,
        wait_s: float = WAIT_S,
    ) -> T:
        """Return the kept value if it is still good; else make it, waiting `wait_s` seconds at most.

        Raises:
            TimeoutError: it is still being made, and will be there later.
            Exception: what `make` raises.
        """
        with self._lock:
            found = self._made.get(key)
            if found is None or (found.done() and (found.exception() or not good(found.result()))):
                found = self._made[key] = Future()
                threading.Thread(target=_make, args=(found, make), daemon=True).start()
            self._made.move_to_end(key)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        return found.result(timeout=wait_s)


def _make(future: Future[T], make: Callable[[], T]) -> None:
    try:
        future.set_result(make())
    except BaseException as error:  # noqa: BLE001 (it is raised where the result is asked for)
        future.set_exception(error)


@dataclass(frozen=True)
class TaskData:
    """What Label Studio says about a task: its data and its window of the video; empty while Label Studio is away."""

    data: Mapping[str, Any]
    window: Window | None
    read: float


class Pictures:
    """Pictures of one web process.

    Args:
        backend: predictions, settings, connections.
    """

    def __init__(self, backend: Services) -> None:
        self._backend = backend
        self._access = LabelStudioAccess(backend.settings, backend.connections)
        self._links = MediaLinks.from_settings(backend.settings)
        self._tasks: _Kept[TaskData] = _Kept(TASKS)
        self._videos: _Kept[tuple[Path, float]] = _Kept(TASKS)
        self._readers: _Kept[VideoReader] = _Kept(READERS)
        self._certain: _Kept[dict[int, float]] = _Kept(PREDICTIONS)
        self._predictions: _Kept[Prediction | None] = _Kept(PREDICTIONS)

    def prediction(self, key: str) -> Prediction | None:
        """Return a prediction; the ones used last stay in memory.

        Raises:
            SvacError: reading it takes longer than a page waits.
        """
        read = partial(self._backend.predictions.get, key)
        with _patience("The masks are"):
            return self._predictions.have(key, read, lambda found: found is not None)

    def certainty(self, prediction: Prediction, frames: Sequence[int]) -> dict[int, float]:
        """Return how certain a prediction is on each frame, 0..1, see `masks.flags.frame_certainty`.

        Raises:
            SvacError: the video is so long that this takes longer than a page waits.
        """
        key = (prediction.key, prediction.created, len(frames), *frames[:1])
        with _patience("The masks are"):
            return self._certain.have(key, partial(frame_certainty, prediction.tracks, frames))

    def task(self, project: str, task: str, wait_s: float = ASK_S) -> TaskData:
        """Return what Label Studio says about a task, waiting `wait_s` seconds at most."""

        def ask() -> TaskData:
            client = self._access.client(project)
            found = next(client.list_tasks(task_number(project), [task_number(task)]), {})
            data = found.get("data") or {}
            return TaskData(data, window_of(data), time.monotonic())

        try:
            return self._tasks.have(
                (project, task), ask, lambda found: time.monotonic() - found.read < FRESH_S, wait_s
            )
        except (SvacError, TimeoutError):  # Label Studio is away, but the frames may still be here
            return TaskData({}, None, 0.0)

    def frame(self, project: str, task: str, index: int) -> bytes:
        """Return a frame of a task's video as a JPEG.

        Args:
            project, task: ids.
            index: 0-based, in the whole video.

        Raises:
            SvacError: there is no such frame, or its video cannot be read now.
        """
        path = self._frame_file(project, task, index)
        if path is not None:
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is None:
                raise SvacError(
                    f"Frame {index} cannot be read.", "Delete the task's frames: they are made again."
                )
        else:
            picture = self._reader(project, task).frame(index)[..., ::-1]
        done, data = cv2.imencode(".jpg", _fitted(picture), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not done:
            raise SvacError("The picture could not be made.", "Check the installation of OpenCV.")
        return data.tobytes()

    def _frame_file(self, project: str, task: str, index: int) -> Path | None:
        settings = self._backend.settings
        with suppress(SvacError):  # no way to serve frames is configured
            path = frame_place(settings).folder(project, task_number(task)) / frame_name(index)
            if path.is_file():
                return path
        storage = open_storage(settings)
        if storage.remote:
            with suppress(SvacError):  # then the video has to do
                name = stored_name(project, task_number(task))
                return storage.fetch_file(Kind.FRAMES, name, frame_name(index))
        told = self.task(project, task)
        config = self._config(project)
        urls = told.data.get(config.frames.key if config and config.frames else "frames")
        item = index if told.window is None else told.window.item(index)
        if not isinstance(urls, list) or item is None or not 0 <= item < len(urls):
            return None
        url = str(urls[item])
        own = self._links.path_of(url)
        root = settings.label_studio_files_root
        if own is None and root is not None:
            relative = local_files_path(url)
            own = None if relative is None else root / relative
            # A link that leads out of the root is not one of ours.
            if own is not None and not own.resolve().is_relative_to(root.resolve()):
                return None
        return own if own is not None and own.is_file() else None

    def _reader(self, project: str, task: str) -> VideoReader:
        settings = self._backend.settings

        def fetch() -> tuple[Path, float]:
            data = self.task(project, task, FRESH_S).data
            if not data:
                raise SvacError(
                    "The frames are not here, and Label Studio does not say where the video is.",
                    "Check that it runs and that SVAC_LABEL_STUDIO_API_KEY is set.",
                )
            config = self._config(project)
            url = video_url(data, config) if config else str(data.get("video", ""))
            name = label_studio_name(settings, self._backend.connections.get(project))
            return self._access.fetch(project, name, url, task), time.monotonic()

        def fresh(found: tuple[Path, float]) -> bool:
            return time.monotonic() - found[1] < 10 * FRESH_S and found[0].is_file()

        with _patience("The video is"):
            path, _ = self._videos.have((project, task), fetch, fresh)
            about, limits = path.stat(), (settings.max_video_side, settings.max_frames)
            read = partial(VideoReader, path, max_side=limits[0], max_frames=limits[1])
            return self._readers.have((path, about.st_mtime_ns, about.st_size), read)

    def _config(self, project: str) -> LabelConfig | None:
        connection = self._backend.connections.get(project)
        try:
            return cached_config(connection.label_config) if connection and connection.label_config else None
        except SvacError:  # the config is wrong: reported where tasks are predicted
            return None


@contextmanager
def _patience(what: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SvacError(f"{what} still being fetched.", "Load the page again in a minute.") from error


def mask_picture(masks: Sequence[CocoRle | None]) -> bytes:
    """Return the masks of a frame as one PNG, transparent elsewhere; a mask's position chooses its colour.

    Raises:
        SvacError: a mask is malformed.
    """
    shown = [(place, from_coco(rle)) for place, rle in enumerate(masks) if rle is not None]
    if not shown:
        return _png(np.zeros((1, 1, 4), np.uint8))
    height, width = _size(*shown[0][1].shape)
    picture = np.zeros((height, width, 4), np.uint8)
    for place, mask in shown:
        small = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        colour = PALETTE[place % len(PALETTE)][::-1]
        picture[small > 0] = (*colour, FILL)
        contours, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(picture, contours, -1, (*colour, OUTLINE), 2)
    return _png(picture)


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
    if not done:
        raise SvacError("The picture could not be made.", "Check the installation of OpenCV.")
    return data.tobytes()


def _size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _fitted(picture: Any) -> Any:
    height, width = _size(*picture.shape[:2])
    if (height, width) == tuple(picture.shape[:2]):
        return np.ascontiguousarray(picture)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
