"""Controls: is it the sentence, the picture and time that carry the score?

On the same split and by the same scores as `measure`. A model that understands falls to what blind choices score when
the sentence or the video is another one, and loses on expressions of time when it sees a single frame.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

from lab.train_tiny.control_inputs import (
    ControlInput,
    ControlledSvac,
    as_it_is,
    frozen,
    of_another,
    own_frame,
    shuffled,
)
from lab.train_tiny.figures import ABSENT, ExpressionResult, MeanResult, mean_of, row_of
from lab.train_tiny.measure import Dtype, Progress, Split, scored
from svac_backend.errors import SvacError
from svac_backend.evaluation.benchmark import BenchmarkExpression, BenchmarkVideo
from svac_backend.evaluation.score import ExpressionScore
from svac_backend.masks.metrics import boundary_f, jaccard
from svac_backend.video.images import ImageFolderVideo

FULL = "full"
OTHER_SENTENCE = "another sentence"
OTHER_VIDEO = "another video"
# Every part of the model, SAM-2's too, sees another video than the one that its masks are compared with.
BLIND = "blind"
SHUFFLED = "shuffled frames"
# The language model sees one frame: of the whole video, or (the last) of each clip the clip's own.
SINGLE: dict[str, ControlInput] = {
    "first frame": frozen(0.0),
    "middle frame": frozen(0.5),
    "last frame": frozen(1.0),
    "own frame": own_frame,
}
ALL = (FULL, OTHER_SENTENCE, OTHER_VIDEO, BLIND, SHUFFLED, *SINGLE)
_DRAWS = 4000


@dataclass(frozen=True)
class Difference:
    """J&F with everything, less that of the best of some controls.

    Attributes:
        best: name of the control that scores highest.
        points: the difference, points of J&F.
        low, high: its 95 % interval, from a bootstrap over videos that chooses the best control anew in each draw.
        count: expressions.
    """

    best: str
    points: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Controls:
    """Rows by control, `FULL` among them, of the same expressions in the same order.

    `OTHER_SENTENCE` lacks expressions whose video says nothing of anything else.
    """

    rows: dict[str, tuple[ExpressionResult, ...]]

    @property
    def videos(self) -> int:
        """Number of videos."""
        return len({row.video for row in self.rows[FULL]})

    def of(self, control: str, wanted: Callable[[ExpressionResult], bool]) -> MeanResult | None:
        """Return the means of a control over some expressions; None where there are none, or it was not run."""
        rows = [row for row in self.rows.get(control, ()) if wanted(row)]
        return mean_of(control, rows) if rows else None

    def difference(
        self,
        wanted: Callable[[ExpressionResult], bool],
        controls: Sequence[str] = tuple(SINGLE),
        draws: int = _DRAWS,
    ) -> Difference | None:
        """Compare the whole with the best of some controls on some expressions; None where there are none."""
        shared = set.intersection(*({row.key for row in self.rows[name]} for name in (FULL, *controls)))
        table = np.array(
            [
                [row.j_and_f for row in self.rows[name] if row.key in shared and wanted(row)]
                for name in (FULL, *controls)
            ]
        )
        if not table.size:
            return None
        videos = [row.video for row in self.rows[FULL] if row.key in shared and wanted(row)]
        names, number = np.unique(videos, return_inverse=True)
        sums = np.stack([np.bincount(number, weights=line, minlength=len(names)) for line in table])
        counts = np.bincount(number, minlength=len(names))
        drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
        means = sums[:, drawn].sum(axis=2) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means[0] - means[1:].max(axis=0), (0.025, 0.975))
        mean = table.mean(axis=1)
        best = int(mean[1:].argmax())
        return Difference(
            controls[best], float(mean[0] - mean[1 + best]), float(low), float(high), table.shape[1]
        )

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        content = {name: [asdict(row) for row in rows] for name, rows in self.rows.items()}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Controls:
        """Read what `save` wrote.

        Raises:
            SvacError: it is missing or something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls({name: tuple(row_of(row) for row in rows) for name, rows in content.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SvacError(f"{path} holds no controls ({error}).", "Measure them again.") from error


def run_controls(
    model: str | Path,
    split: Split,
    *,
    videos: int | None = None,
    controls: Sequence[str] = ALL,
    device: str = "auto",
    dtype: Dtype = "auto",
    progress: Progress | None = None,
) -> Controls:
    """Run controls on the first videos of a split; all controls of a video share its encoded frames.

    Args:
        model: `svac-tiny`, or a folder with a model that has a [SEG] per clip.
        split: from `measure.write_split`.
        videos: so many; None takes all. `OTHER_VIDEO` and `BLIND` need two.
        controls: of `ALL`; `FULL` is always among them.
        device, dtype: as in `Svac.from_pretrained`.
        progress: called with a fraction 0..1 and a message.

    Raises:
        SvacError: the model or the split can't be used.
    """
    names = tuple(dict.fromkeys((FULL, *controls)))
    benchmark = split.benchmark.limited(videos)
    if len(benchmark.videos) < 2 and {OTHER_VIDEO, BLIND} & set(names):
        raise SvacError("To show another video takes two.", "Take more videos.")
    loaded = cast(ControlledSvac, ControlledSvac.from_pretrained(model, device=device, dtype=dtype))
    found: dict[str, list[ExpressionResult]] = {name: [] for name in names}
    rows = {row.key: row for row in split.rows}
    for number, video in enumerate(benchmark.videos):
        if progress:
            progress(number / len(benchmark.videos), "controls")
        after = benchmark.videos[(number + 1) % len(benchmark.videos)]
        inputs = {
            FULL: as_it_is,
            OTHER_SENTENCE: as_it_is,
            OTHER_VIDEO: of_another(_opened(after), loaded.config),
            SHUFFLED: shuffled(number),
            **SINGLE,
        }
        exchanged = other_sentences(video.expressions)
        seeing = [name for name in names if name != BLIND]
        loaded.inputs = [inputs[name] for name in seeing]
        said = [e.text for e in video.expressions]
        other = [exchanged[e.id] or e.text for e in video.expressions]
        texts = [other if name == OTHER_SENTENCE else said for name in seeing]
        scores = dict(zip(seeing, _scores(loaded, split, video, texts, video), strict=True))
        if BLIND in names:
            loaded.inputs = [as_it_is]
            (scores[BLIND],) = _scores(loaded, split, video, [said], after)
        for name, of_control in scores.items():
            for expression, result in zip(video.expressions, of_control, strict=True):
                if name != OTHER_SENTENCE or exchanged[expression.id] is not None:
                    found[name].append(scored(rows[video.name, expression.id], result))
    return Controls({name: tuple(of_control) for name, of_control in found.items()})


def other_sentences(expressions: Sequence[BenchmarkExpression]) -> dict[str, str | None]:
    """Return for each expression of a video, by its id, another sentence of it that means something else.

    One that shares nothing with what is meant is preferred; None where there is none. Sentences of absent things are
    exchanged, and never taken: what they leave empty would be no mistake of the model.
    """
    shown = [e for e in expressions if e.type != ABSENT]
    found: dict[str, str | None] = {}
    for number, expression in enumerate(expressions):
        meant = set(expression.anno_ids)
        # Begin behind this one, so that not all are exchanged for the first.
        turned = sorted(shown, key=lambda e: (expressions.index(e) - number) % len(expressions))
        others = [e for e in turned if set(e.anno_ids) != meant]
        others.sort(key=lambda e: bool(set(e.anno_ids) & meant))
        found[expression.id] = others[0].text if others else None
    return found


def _scores(
    model: ControlledSvac,
    split: Split,
    video: BenchmarkVideo,
    said: Sequence[Sequence[str]],
    seen: BenchmarkVideo,
) -> list[list[ExpressionScore]]:
    """Return the scores of each control's sentences, in the order of the video's expressions.

    The masks are made of the video that is `seen`. Frames that it has too few of have none.
    """
    texts = [text for of_control in said for text in of_control]
    targets = [split.truth.target(video, e) for e in video.expressions]
    count = len(targets)
    j, f = np.zeros((2, len(texts), len(video.frames)))
    for frame in model.segment(_opened(seen), texts):
        if frame.index == len(video.frames):
            break
        for k, target in enumerate(targets):
            truth = target.mask(frame.index)
            for n in range(k, len(texts), count):
                mask = frame.masks[n]
                expected = np.zeros_like(mask) if truth is None else truth
                j[n, frame.index], f[n, frame.index] = jaccard(mask, expected), boundary_f(mask, expected)
    rows = [
        ExpressionScore(video.name, e.id, e.text, e.type, True, tuple(j[n].tolist()), tuple(f[n].tolist()))
        for n, e in enumerate([*video.expressions] * len(said))
    ]
    return [rows[n : n + count] for n in range(0, len(rows), count)]


def _opened(video: BenchmarkVideo) -> ImageFolderVideo:
    return ImageFolderVideo(video.folder, video.frames)
