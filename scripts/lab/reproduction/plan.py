"""What runs there are: every variant of every claim with every seed, each thing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.reproduction.adaptation import Adaptation
from lab.reproduction.variants import CLAIMS, Variant, variants_of
from svac_backend.svac.config import SvacConfig
from svac_backend.synthetic.rich.kinds import has_things


@dataclass(frozen=True)
class StudySettings:
    """What all runs of a folder share.

    Attributes:
        model: version of the weights.
        scenes: scored scenes of a seed.
        sentences: of each scene.
        scored: frames of each scene that are scored.
        length: frames of a clip.
        limit: visual tokens above which a variant is not adapted by itself (`variants_of`).
        adaptation: how much is trained.
    """

    model: str
    scenes: int = 12
    sentences: int = 8
    scored: int = 16
    length: int = 100
    limit: int = 1500
    adaptation: Adaptation = field(default_factory=Adaptation)

    def as_json(self) -> dict[str, Any]:
        """Return them as they stand in each line; with what the machine's fonts decide."""
        return {**asdict(self), "things": has_things()}


@dataclass(frozen=True)
class PlannedRun:
    """One variant with one seed, for the claims that want it.

    Attributes:
        seed: of training data and scored scenes.
        trained_as: the variant whose adaptation it takes.
        wanted: claims and the variant as each names it.
    """

    seed: int
    trained_as: Variant
    wanted: tuple[tuple[str, Variant], ...]

    @property
    def variant(self) -> Variant:
        """The variant; all claims mean the same."""
        return self.wanted[0][1]

    @property
    def identity(self) -> tuple[object, ...]:
        """What is equal for runs whose results are."""
        return *self.variant.identity, *self.trained_as.identity


def runs_of(
    config: SvacConfig, settings: StudySettings, claims: Sequence[str], seeds: Sequence[int]
) -> tuple[PlannedRun, ...]:
    """Return the runs, seed by seed; within a seed those of the same weights follow each other.

    What two claims both compare is run once.
    """
    wanted: dict[tuple[object, ...], list[tuple[str, Variant]]] = {}
    trained: dict[tuple[object, ...], Variant] = {}
    limit = settings.limit if settings.adaptation.steps else 0
    for claim in sorted(claims, key=CLAIMS.index):
        variants = variants_of(claim, config, length=settings.length, limit=limit)
        named = {variant.name: variant for variant in variants}
        for variant in variants:
            teacher = named[variant.weights_of]
            key = (*variant.identity, *teacher.identity)
            wanted.setdefault(key, []).append((claim, variant))
            trained[key] = teacher
    place = {identity: k for k, identity in enumerate(dict.fromkeys(t.identity for t in trained.values()))}
    order = sorted(wanted, key=lambda key: place[trained[key].identity])
    return tuple(PlannedRun(seed, trained[key], tuple(wanted[key])) for seed in seeds for key in order)
