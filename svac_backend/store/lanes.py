"""The lanes that waiting jobs belong to, and which job of a lane a worker takes next.

The highest priority goes first, then the oldest job. Within a priority, a worker prefers a job of a video that it has
at hand, then one of a video that nobody works on: of two tasks that show the same video, the second then finds the
masks that the first one made. The caller limits how often in a row it names videos, so that no job waits forever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sqlalchemy import Select, func, select
from sqlalchemy.orm import aliased

from svac_backend.store.tables import WAITING, JobRow

# A worker has a thread for each lane. Cutting frames must not wait for the model, nor the model for frames; neither
# must wait for training, which runs in a process of its own; and none of them for work that mostly waits for others,
# such as giving out the tasks of a whole project.
MODEL_LANE, LIGHT_LANE, TRAINING_LANE, BULK_LANE = LANES = ("model", "light", "training", "bulk")
# The lane of each kind of job; all other kinds need the model.
LANE_OF = dict.fromkeys(("frames", "renew", "collect", "retain"), LIGHT_LANE) | {
    "finetune": TRAINING_LANE,
    "bulk": BULK_LANE,
}


def lanes_waited_in(least: int | None = None) -> str:
    """Return the SQL query of the lanes where jobs wait, of priority `least` at least.

    It looks into the index once for each lane, however many jobs there are. It sorts as the index `jobs_waiting` does,
    so that the database takes no other index.
    """
    enough = "" if least is None else f"AND priority >= {int(least)} "
    return " UNION ALL ".join(
        f"SELECT lane FROM (SELECT lane FROM jobs WHERE {WAITING} AND lane = '{lane}' {enough}"
        f"ORDER BY priority DESC, created, id LIMIT 1) AS {lane}"
        for lane in LANES
    )


WAITING_LANES = lanes_waited_in()


def nexts(lane: str, least: int | None = None, videos: Collection[str] = ()) -> Iterator[Select[str]]:
    """Yield queries for the id of the next job, to be tried in this order until one finds a job.

    Args:
        lane: the lane to take from.
        least: consider only jobs of at least this priority.
        videos: hashes of videos; within the highest priority, jobs of these go first.
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
            # `+ 0` keeps SQLite from walking through all that wait in their order: few of them are about these videos.
            priority = JobRow.priority + 0
            like = waiting.where(priority >= top, JobRow.video.in_(videos))
            yield like.order_by(priority.desc(), *order[1:]).limit(1).with_for_update(skip_locked=True)
        busy = select(other.video).where(other.state == "running", other.lane == lane, other.video != "")
        yield one.where(JobRow.priority >= top, JobRow.video.not_in(busy))
    yield one
