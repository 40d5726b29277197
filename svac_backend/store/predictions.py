"""The cache of predictions: what the model found, and how a labelling config shows it.

Also predictions that are still being made, with which a call whose time is up can be answered.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlunsplit

from sqlalchemy import delete, select

from svac_backend.errors import split_address
from svac_backend.masks.tracks import ObjectPrompt, Track
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.links import PARAMETER, ROUTE
from svac_backend.store.tables import PartRow, PredictionRow, RenderingRow

# Signatures in the query of an address: the parameters that identify one, and all others that belong to it. The same
# video has another signature tomorrow. A parameter that only looks like part of a signature tells videos apart.
_SIGNATURES: tuple[tuple[frozenset[str], frozenset[str]], ...] = tuple(
    (frozenset(needed.split()), frozenset(f"{needed} {more}".split()))
    for needed, more in (
        # AWS and Google Cloud, version 4
        (
            "x-amz-signature",
            "x-amz-algorithm x-amz-credential x-amz-date x-amz-expires x-amz-signedheaders x-amz-security-token "
            "x-amz-content-sha256",
        ),
        (
            "x-goog-signature",
            "x-goog-algorithm x-goog-credential x-goog-date x-goog-expires x-goog-signedheaders",
        ),
        # AWS and Google Cloud, version 2; CloudFront
        (
            "signature expires",
            "awsaccesskeyid googleaccessid key-pair-id hash-algorithm x-amz-security-token",
        ),
        ("signature policy", "key-pair-id hash-algorithm"),
        # Azure: shared access signatures
        ("sig sv se", "st sp sr sip spr ss srt ses sdd skoid sktid skt ske sks skv saoid suoid scid"),
        ("sig sv si", "st se sp sr sip spr ses sdd"),
    )
)


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
    """Return what identifies a video: its address without a signature, and the host if the address is relative.

    Only a whole signature is left out. Anything else, such as a `#` in a path or a parameter `st`, tells videos apart.

    Args:
        hostname: address of the Label Studio that sent the task.
        url: the task's address of the video.
    """
    # A path on disk may hold "#"; in a web address, too, it tells videos apart.
    address, mark, rest = url.partition("#")
    parts = split_address(address)
    if parts is None:  # new ones that cannot be parsed are refused earlier; stored ones must stay readable
        return url
    query = parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape")
    signing = _signing({name.lower() for name, _ in query}, parts.path)
    kept = [(name, value) for name, value in query if name.lower() not in signing]
    text = urlencode(kept, errors="surrogateescape")
    unsigned = urlunsplit((parts.scheme, parts.netloc, parts.path, text, "")) + mark + rest
    return unsigned if parts.scheme else f"{hostname.rstrip('/')} {unsigned}"


def _signing(names: Collection[str], path: str) -> Collection[str]:
    """Return those names in a query that belong to a signature of the address."""
    if set(names) == {PARAMETER} and ROUTE in path:  # our own link
        return names
    return {name for needed, whole in _SIGNATURES if needed <= set(names) for name in whole}


def prediction_key(identity: str, prompts: Sequence[ObjectPrompt], model_version: str) -> str:
    """Return the cache key of (video, prompts, model version), 64 hex digits."""
    text = json.dumps([identity, [asdict(prompt) for prompt in prompts], model_version])
    return hashlib.sha256(text.encode()).hexdigest()


def correction_key(identity: str, shown: Any, model_version: str) -> str:
    """Return the cache key of (video, what a person showed on it, model version), 64 hex digits.

    Args:
        identity: of the video, see `video_identity`.
        shown: JSON-able; equal for what leads to equal masks.
        model_version: the version of the model.
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
        """Return a prediction's (score, frame count) without reading its tracks; None if there is none."""
        query = select(PredictionRow.score, PredictionRow.frame_count).where(PredictionRow.key == key)
        with self.database.read() as session:
            row = session.execute(query).one_or_none()
            return None if row is None else (row[0], row[1])

    def of_task(self, project_id: str, task_id: str) -> list[tuple[str, str]]:
        """Return (key, model version) of a task's own predictions, the newest first, without their tracks."""
        mine = (PredictionRow.project_id == project_id, PredictionRow.task_id == task_id)
        query = select(PredictionRow.key, PredictionRow.model_version).where(*mine)
        with self.database.read() as session:
            found = session.execute(query.order_by(PredictionRow.created.desc(), PredictionRow.key))
            return [(row[0], row[1]) for row in found]

    def known(self, keys: Collection[str]) -> set[str]:
        """Return those of `keys` that have a prediction."""
        with self.database.read() as session:
            return set(session.scalars(select(PredictionRow.key).where(PredictionRow.key.in_(keys))))

    def put(self, prediction: Prediction) -> None:
        """Store a prediction; one with the same key is replaced, and its renderings are deleted."""
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
            created=prediction.created or self.database.time(),
        )
        with self.database.write(f"prediction {prediction.key}") as session:
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
        """Store the Label Studio results of a prediction for one config, unless there are some already."""
        values = {
            "prediction_key": key,
            "config_key": config_key,
            "results": pack(list(results)),
            "created": self.database.time(),
        }
        with self.database.write() as session:
            session.execute(self.database.insert(RenderingRow).values(**values).on_conflict_do_nothing())


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
    """Unfinished predictions in the database, under the keys of the finished ones."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, prediction: Prediction) -> None:
        """Store an unfinished prediction; its tracks hold only the frames that are ready."""
        data = {
            **{name: value for name, value in vars(prediction).items() if name != "tracks"},
            "tracks": [track.to_json() for track in prediction.tracks],
        }
        values = {"prediction": pack(data), "updated": self.database.time()}
        statement = self.database.insert(PartRow).values(key=prediction.key, **values)
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
