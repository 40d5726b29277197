"""Lanes, which waiting jobs belong to, and which job of a lane a worker takes next.

The highest priority goes first, then the oldest. Of those of one priority a worker takes rather one of a video that it
has at hand, then one of a video that nobody is at: of two tasks that show the same video, the second one finds the
masks of the first one made. The caller bounds how often in a row it names videos, so that no job waits for good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from svac_backend.store.tables import WAITING, JobRow

# A worker has a thread for each lane: cutting frames must not wait for the model, nor the model for frames, and
# neither for training, which takes a process of its own, nor all of them for work that waits for others most of the
# time, such as giving out the tasks of a whole project.
MODEL_LANE, LIGHT_LANE, TRAINING_LANE, BULK_LANE = LANES = ("model", "light", "training", "bulk")
# By kind of job; all other kinds need the model.
LANE_OF = dict.fromkeys(("frames", "renew", "collect", "retain"), LIGHT_LANE) | {
    "finetune": TRAINING_LANE,
    "bulk": BULK_LANE,
}


def lanes_waited_in(least: int | None = None) -> str:
    """Return the query, in SQL, of the lanes that jobs of at least some priority wait in.

    For each lane one look into the index, however many jobs there are. In the order of `jobs_waiting`, so that no other
    index seems as good.
    """
    enough = "" if least is None else f"AND priority >= {int(least)} "
    return " UNION ALL ".join(
        f"SELECT lane FROM (SELECT lane FROM jobs WHERE {WAITING} AND lane = '{lane}' {enough}"
        f"ORDER BY priority DESC, created, id LIMIT 1) AS {lane}"
        for lane in LANES
    )


WAITING_LANES = lanes_waited_in()


def nexts(lane: str, least: int | None = None, videos: Collection[str] = ()) -> Iterator[Select[str]]:
    """Yield queries of the id of the job that is next: what the first of them that finds any finds.

    Args:
        lane: of which.
        least: only jobs of at least this priority.
        videos: those of the highest priority that are about these go first.
    """
    order = (JobRow.priority.desc(), JobRow.created, JobRow.id)
    waiting = select(JobRow.id).where(WAITING, JobRow.lane == lane)
    if least is not None:
        waiting = waiting.where(JobRow.priority >= least)
    one = waiting.order_by(*order).limit(1).with_for_update(skip_locked=True)
    if lane == MODEL_LANE or videos:
        other = aliased(JobRow, name="other")
        ahead = (other.state == "queued", other.due.is_(None), other.lane == lane)
        top = select(func.max(other.priority)).where(*ahead).scalar_subquery()
        if videos:
            yield one.where(JobRow.priority >= top, JobRow.video.in_(videos))
        busy = select(other.video).where(other.state == "running", other.lane == lane, other.video != "")
        yield one.where(JobRow.priority >= top, JobRow.video.not_in(busy))
    yield one
