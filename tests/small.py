"""The embedded model's architecture at smaller pictures: what most tests look at does not depend on their size."""

from __future__ import annotations

from dataclasses import replace

from lab.train_tiny import recipe

CONFIG = replace(
    recipe.CONFIG,
    vision=replace(recipe.CONFIG.vision, image_size=64, patch_size=8),
    sam=replace(recipe.CONFIG.sam, image_size=128, window_spec=(8, 4, 16, 8)),
)
VOCABULARY = recipe.VOCABULARY
