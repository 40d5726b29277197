"""Predictions that are still being made: what a call whose time is up can be answered meanwhile."""

from __future__ import annotations

import time

from sqlalchemy import delete
from sqlalchemy.dialects.sqlite import insert

from svac_backend.masks.tracks import Track
from svac_backend.store.database import Database, pack, unpack
from svac_backend.store.predictions import Prediction
from svac_backend.store.tables import PartRow


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
