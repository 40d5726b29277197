"""The cache of predictions: what the model found, and how it is shown for a labelling config.

Predictions that are still being made: what a call whose time is up can be answered meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from svac_backend.errors import split_address
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.tables import PartRow, PredictionRow, RenderingRow

# Query parameters that sign an address for a while (S3, Google, Azure): the same video has others tomorrow.
SIGNATURES = frozenset({"signature", "sig", "x-amz-signature", "x-goog-signature"})
SIGNING_PREFIXES = ("x-amz-", "x-goog-", "awsaccesskeyid", "googleaccessid")
SIGNING_NAMES = frozenset({"expires", "policy", "key-pair-id", "se", "sp", "sv", "sr", "st", "ske", "skt"})


@dataclass(frozen=True)
class Prediction:
    """What the model found in one video.

    Attributes:
        width, height: display size in pixels; fps: frames per second; frame_count: exact.
        score: mean score of the tracks, 0..1.
    """

    key: str
    model_version: str
    project_id: str
    task_id: str
    tracks: list[Track]
    width: int
    height: int
    fps: float
    frame_count: int
    score: float
    created: float = 0.0


def video_identity(hostname: str, url: str) -> str:
    """Return what names a video: the host that a relative address belongs to, and the address unsigned.

    Args:
        hostname: address of the Label Studio that sent the task.
        url: the task's address of the video.
    """
    parts = split_address(url)
    if parts is None:  # one that makes no sense is refused before; what is stored must stay readable
        return url
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(name.lower() in SIGNATURES for name, _ in query):
        query = [(name, value) for name, value in query if not _signs(name.lower())]
    unsigned = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
    return unsigned if parts.scheme else f"{hostname.rstrip('/')} {unsigned}"


def _signs(name: str) -> bool:
    return name in SIGNATURES or name in SIGNING_NAMES or name.startswith(SIGNING_PREFIXES)


def prediction_key(identity: str, prompts: Sequence[ObjectPrompt], model_version: str) -> str:
    """Return the cache key of (video, prompts, model version), 64 hex digits."""
    text = json.dumps([identity, [asdict(prompt) for prompt in prompts], model_version])
    return hashlib.sha256(text.encode()).hexdigest()


def correction_key(identity: str, shown: Any, model_version: str) -> str:
    """Return the cache key of (video, what a person showed on it, model version), 64 hex digits.

    Args:
        identity: of the video, see `video_identity`.
        shown: JSON-able, equal for what leads to equal masks.
        model_version: of the model.
    """
    text = json.dumps(["correction", identity, shown, model_version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class PredictionStore:
    """Predictions and their renderings in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, key: str) -> Prediction | None:
        """Return a prediction, or None."""
        with self.database.read() as session:
            row = session.get(PredictionRow, key)
            return None if row is None else _prediction(row)

    def summary(self, key: str) -> tuple[float, int] | None:
        """Return a prediction's (score, frame count) without reading its tracks; None when there is none."""
        query = select(PredictionRow.score, PredictionRow.frame_count).where(PredictionRow.key == key)
        with self.database.read() as session:
            row = session.execute(query).one_or_none()
            return None if row is None else (row[0], row[1])

    def known(self, keys: Collection[str]) -> set[str]:
        """Return those of some keys that have a prediction."""
        with self.database.read() as session:
            return set(session.scalars(select(PredictionRow.key).where(PredictionRow.key.in_(keys))))

    def put(self, prediction: Prediction) -> None:
        """Store a prediction; one that is there already is replaced, and its renderings go."""
        row = PredictionRow(
            key=prediction.key,
            model_version=prediction.model_version,
            project_id=prediction.project_id,
            task_id=prediction.task_id,
            tracks=pack([track.to_json() for track in prediction.tracks]),
            width=prediction.width,
            height=prediction.height,
            fps=prediction.fps,
            frame_count=prediction.frame_count,
            score=prediction.score,
            created=prediction.created or time.time(),
        )
        with self.database.write() as session:
            old = session.get(PredictionRow, prediction.key)
            if old is not None:
                session.delete(old)
                session.flush()
            session.add(row)

    def rendering(self, key: str, config_key: str) -> bytes | None:
        """Return the stored Label Studio results as JSON text, or None."""
        query = select(RenderingRow.results).where(
            RenderingRow.prediction_key == key, RenderingRow.config_key == config_key
        )
        with self.database.read() as session:
            blob = session.scalar(query)
        return None if blob is None else zlib.decompress(blob)

    def put_rendering(self, key: str, config_key: str, results: Sequence[dict[str, Any]]) -> None:
        """Store the Label Studio results of a prediction for one config; the first ones stay."""
        values = {
            "prediction_key": key,
            "config_key": config_key,
            "results": pack(list(results)),
            "created": time.time(),
        }
        with self.database.write() as session:
            session.execute(insert(RenderingRow).values(**values).on_conflict_do_nothing())


def _prediction(row: PredictionRow) -> Prediction:
    return Prediction(
        key=row.key,
        model_version=row.model_version,
        project_id=row.project_id,
        task_id=row.task_id,
        tracks=[Track.from_json(item) for item in unpack(row.tracks)],
        width=row.width,
        height=row.height,
        fps=row.fps,
        frame_count=row.frame_count,
        score=row.score,
        created=row.created,
    )


class PartStore:
    """Unfinished predictions in the database, under the keys that they will have."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, prediction: Prediction) -> None:
        """Store how far a prediction is; its tracks hold only the frames that are ready."""
        data = {
            **{name: value for name, value in vars(prediction).items() if name != "tracks"},
            "tracks": [track.to_json() for track in prediction.tracks],
        }
        values = {"prediction": pack(data), "updated": time.time()}
        statement = insert(PartRow).values(key=prediction.key, **values)
        with self.database.write() as session:
            session.execute(statement.on_conflict_do_update(index_elements=["key"], set_=values))

    def get(self, key: str) -> Prediction | None:
        """Return an unfinished prediction, or None."""
        with self.database.read() as session:
            row = session.get(PartRow, key)
            if row is None:
                return None
            data = unpack(row.prediction)
        return Prediction(**{**data, "tracks": [Track.from_json(track) for track in data["tracks"]]})

    def drop(self, key: str) -> None:
        """Forget an unfinished prediction: it is finished, or given up."""
        with self.database.write() as session:
            session.execute(delete(PartRow).where(PartRow.key == key))
