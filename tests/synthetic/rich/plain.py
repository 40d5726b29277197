"""What the sentences say, judged plainly from pictures: each thing is painted alone, and its outline measured.

One threshold per statement and nothing of the generator's own measurements, so that the two can be compared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from svac_backend.synthetic.rich.kinds import KINDS
from svac_backend.synthetic.rich.painter import paint
from svac_backend.synthetic.rich.phrases import RichExpression
from svac_backend.synthetic.rich.scene import RichConfig, RichScene

UNIT = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIDE = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}


class Plain:
    """The silhouettes of a scene's things: places f64 [N, T, 2] (held while out of sight), areas, who is in sight."""

    def __init__(self, scene: RichScene, config: RichConfig) -> None:
        self.scene = scene
        height, width = config.height, config.width
        self.span = span = np.array(scene.description.span)
        units = span / (width, height)
        alone = []
        for thing in scene.description.things:
            one = replace(scene.description, things=(thing,), bars=())
            rng = np.random.default_rng(0)
            film = replace(config, noise=0.0, blur=0.0, motion_blur=0.0)
            alone.append(paint(one, film, tuple(range(config.frames)), rng)[1][0])
        self.shapes = np.stack(alone)
        self.area = self.shapes.sum(axis=(2, 3)).astype(float)
        nominal = np.stack([thing.track.radius for thing in scene.description.things]) ** 2
        full = np.maximum((self.area / nominal).max(axis=1, keepdims=True), 1) * nominal
        self.seen = self.area > 0.3 * full
        self.gone = self.area < 0.12 * full
        edge = np.zeros_like(self.shapes[0, 0])
        edge[[0, -1]] = edge[:, [0, -1]] = True
        self.whole = ~(self.shapes & edge).any(axis=(2, 3)) & self.seen
        y, x = np.mgrid[:height, :width]
        with np.errstate(invalid="ignore", divide="ignore"):
            cx = (self.shapes * x).sum(axis=(2, 3)) / self.area
            cy = (self.shapes * y).sum(axis=(2, 3)) / self.area
        self.place = np.stack([cx, cy], axis=-1) * units
        self.first = self.seen.argmax(axis=1)
        self.last = self.seen.shape[1] - 1 - self.seen[:, ::-1].argmax(axis=1)
        for n in range(len(self.place)):
            self.place[n, : self.first[n]] = self.place[n, self.first[n]]
            self.place[n, self.last[n] :] = self.place[n, self.last[n]]
        self.share = self.place / span
        # A ring is as large as its outline.
        holes = np.array([1 / (1 - 0.55**2) if look.kind == "ring" else 1.0 for look in scene.objects])
        sizes = np.where(self.whole, self.area, np.nan) * holes[:, None] * units.prod()
        self.radius = np.sqrt(sizes / np.pi)
        self.step = np.linalg.norm(np.diff(self.place, axis=1), axis=-1)
        self.speed = self.step.sum(axis=1) / np.maximum(self.last - self.first, 1) * (config.frames - 1)

    def candidates(self, e: RichExpression) -> list[int]:
        """Return what the noun means, by attributes alone."""
        return [
            n
            for n, look in enumerate(self.scene.objects)
            if e.color in (None, look.color)
            and e.texture in (None, look.texture)
            and e.name in (None, look.kind, KINDS[look.kind].family)
        ]

    def event(self, key: str, n: int) -> float:
        """Return the frame on which something starts, stops, enters or leaves; NaN: it does not."""
        busy = np.flatnonzero(self.step[n] > 0.13 / self.step.shape[1])
        if key in {"move", "start", "stop"}:
            if not len(busy) or (key == "start" and busy[0] == 0):
                return np.nan
            if key == "stop":
                stays = busy[-1] < self.step.shape[1] - 2 and not self.gone[n, -1]
                return float(busy[-1]) if stays else np.nan
            return float(busy[0])
        gone = self.gone[n, 0] if key == "enter" else self.gone[n, -1]
        return float(self.first[n] if key == "enter" else self.last[n]) if gone else np.nan

    def reversals(self, n: int, axis: int | None = None) -> int:
        """Return how often a thing turns back along an axis, by default the longer one."""
        x = self.place[n, :, int(np.ptp(self.place[n], axis=0).argmax()) if axis is None else axis]
        kept = [x[0]]
        for value in x[1:]:
            if abs(value - kept[-1]) > 0.05:
                kept.append(value)
        signs = np.sign(np.diff(kept))
        return int((signs[1:] != signs[:-1]).sum())

    def rise(self, values: np.ndarray) -> float:
        """Return the largest way forward."""
        return float((values - np.minimum.accumulate(values)).max())

    def says(self, e: RichExpression, n: int) -> bool | None:
        """Judge a statement about one thing; None where pictures do not tell."""
        key, place = e.says, self.place[n]
        word, _, rest = key.partition(" ")
        if word == "move" and rest:
            return all(self.rise(place @ np.array(UNIT[w])) > 0.13 for w in rest.split())
        if key in {"still", "moving"}:
            return bool((np.ptp(place, axis=0).max() < 0.08) == (key == "still"))
        if key in {"grow", "shrink"}:
            r = np.log(self.radius[n][~np.isnan(self.radius[n])])
            if len(r) < 0.6 * len(place):
                return None
            return self.rise(r if key == "grow" else -r) > np.log(1.25)
        if key == "spin":
            return bool(np.ptp(self.scene.description.things[n].track.angle) > 3)
        end = {"start": 0, "stop": -1}.get(key)
        if end is not None and not self.whole[n, end] and not self.gone[n, end]:
            return None  # what the frame's edge cuts off more and more seems slower than it is
        if key in {"start", "stop", "enter", "leave"}:
            return not np.isnan(self.event(key, n))
        if word == "enter":
            axis, sign = SIDE[{"up": "top", "down": "bottom"}.get(rest, rest)]
            x = self.place[n, self.first[n], axis]
            depth = x if sign < 0 else self.span[axis] - x
            return bool(self.gone[n, 0] and depth < 0.2)
        if key == "whole time":
            return not self.gone[n].any()
        if word in {"at", "begin", "end"}:
            return self._at(word, rest.removeprefix("at "), n)
        if key in {"large", "small"}:
            if np.isnan(self.radius[n]).all():
                return None
            r = float(np.nanmedian(self.radius[n]))
            return r > 0.15 if key == "large" else r < 0.108
        if key in {"circle", "turn round", "back and forth", "change direction", "bounce"}:
            return self._path(key, n)
        return self._beside(e, n)

    def _at(self, word: str, where: str, n: int) -> bool:
        share = {"at": self.share[n], "begin": self.share[n, :1], "end": self.share[n, -1:]}[word]
        if where == "middle":
            return bool((np.abs(share - 0.5) < 0.2).all())
        tests = [share[:, axis] * sign > 0.5 * sign for axis, sign in (SIDE[w] for w in where.split())]
        return bool(np.all(tests))

    def _path(self, key: str, n: int) -> bool:
        place = self.place[n]
        if key == "circle":
            middle = (place.max(axis=0) + place.min(axis=0)) / 2
            angle = np.unwrap(np.arctan2(*(place - middle).T))
            return bool(abs(angle[-1] - angle[0]) > 1.4 * np.pi and np.ptp(place, axis=0).min() > 0.1)
        if key == "change direction":
            net = np.linalg.norm(place[-1] - place[0])
            return bool(self.step[n].sum() > 1.04 * net + 0.08)
        if key == "bounce":
            return max(self.reversals(n, 0), self.reversals(n, 1)) >= 1
        return self.reversals(n) >= (2 if key == "back and forth" else 1)

    def _beside(self, e: RichExpression, n: int) -> bool | None:
        (x, *more), key = e.anchors, e.says
        if n in e.anchors:
            return False
        both = self.seen[n] & self.seen[x]
        offset = self.place[n] - self.place[x]
        sides = {"left of": "left", "right of": "right", "above": "up", "below": "down"}
        if key in sides:
            return bool((offset[both] @ np.array(UNIT[sides[key]])).mean() > 0.02)
        if key in {"in front of", "behind"}:
            touch = bool((self.shapes[n] & self.shapes[x]).any())
            return touch and (n > x) == (key == "in front of")
        if key in {"larger than", "smaller than"}:
            if np.isnan(self.radius[[n, x]]).all(axis=1).any():
                return None
            mine, other = np.nanmedian(self.radius[n]), np.nanmedian(self.radius[x])
            return bool(mine > other if key == "larger than" else mine < other)
        if key in {"faster than", "slower than"}:
            return bool(
                self.speed[n] > self.speed[x] if key == "faster than" else self.speed[n] < self.speed[x]
            )
        if key in {"approach", "away"}:
            distance = np.linalg.norm(offset, axis=-1)
            return self.rise(-distance if key == "approach" else distance) > 0.15
        if key == "between":
            line = self.place[more[0]] - self.place[x]
            share = (offset * line).sum(-1) / (line**2).sum(-1)
            off = np.abs(offset[:, 0] * line[:, 1] - offset[:, 1] * line[:, 0]) / np.linalg.norm(
                line, axis=-1
            )
            return bool(0.1 < share[both].mean() < 0.9 and off[both].mean() < 0.25)
        way = {k: self.place[k, -1] - self.place[k, 0] for k in (n, x)}
        if key == "pass":
            moved = float(np.linalg.norm(way[n]))
            along = offset @ way[n]
            return (
                moved > 0.1 and bool(along[0] < 0 < along[-1]) and np.linalg.norm(offset, axis=1).min() < 0.5
            )
        back, lead = (n, x) if key == "follow" else (x, n)
        moved = min(np.linalg.norm(way[n]), np.linalg.norm(way[x])) > 0.1
        ahead = (self.place[lead] - self.place[back]) @ way[back]
        same = way[n] @ way[x] > 0.6 * np.linalg.norm(way[n]) * np.linalg.norm(way[x])
        beside = self._aside(offset, way[back])
        return bool(moved and same and ahead[both].mean() > 0 and beside[both].mean() < 0.25)

    @staticmethod
    def _aside(offset: np.ndarray, way: np.ndarray) -> np.ndarray:
        return np.abs(offset[:, 0] * way[1] - offset[:, 1] * way[0]) / max(np.linalg.norm(way), 1e-9)

    def best(self, e: RichExpression, among: list[int]) -> int | None:
        """Return who wins a comparison; None where pictures do not tell, or nobody does."""
        among = [n for n in among if n not in e.anchors]
        word, _, rest = e.says.partition(" to ")
        if word in {"first", "last"}:
            when = {n: self.event(rest, n) for n in among}
            when = {n: t for n, t in when.items() if not np.isnan(t)}
            return (min if word == "first" else max)(when, key=when.__getitem__) if when else None
        r = np.array([np.nanmedian(r) if (~np.isnan(r)).any() else np.nan for r in self.radius])
        x, y = np.nanmean(self.place, axis=1).T
        values = {"largest": r, "smallest": -r, "leftmost": -x, "rightmost": x, "highest": -y, "lowest": y}
        values |= {"fastest": self.speed, "slowest": -self.speed, "moves farthest": self.step.sum(axis=1)}
        if e.anchors:
            distance = np.linalg.norm(self.place - self.place[e.anchors[0]], axis=-1)
            both = self.seen & self.seen[e.anchors[0]]
            mean = np.array([d[b].mean() if b.any() else np.nan for d, b in zip(distance, both, strict=True)])
            values |= {"nearest": -mean, "farthest from": mean}
        chosen = values[e.says][among]
        return None if np.isnan(chosen).any() else among[int(chosen.argmax())]
