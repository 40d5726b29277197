"""A Label Studio ML backend that turns a sentence into correctable masks on every frame of a video.

From a video to masks in Python:

    from svac_backend import Svac

    model = Svac.from_pretrained("svac-tiny")
    for frame in model.segment("clip.mp4", ["the red square"]):
        print(frame.index, frame.masks.shape)  # bool [expressions, height, width]
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# torch's threads spin while they wait for each other. On cores that anything else needs, they then wait longer than
# they work: 10 to 20 times as long. libgomp reads this once, when torch is loaded, so it is set before that can happen.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from svac_backend.svac.model import Svac

__all__ = ["Svac", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the model when it is asked for: most of this package, the web process above all, needs no torch."""
    if name == "Svac":
        from svac_backend.svac.model import Svac

        return Svac
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
