"""The pictures of the manual, which these tests make: `python scripts/update_docs.py --pictures` writes them.

Whoever changes what is seen makes them anew, so none is drawn, cropped or kept by hand.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "test-output" / "browser"
DOCS = ROOT / "docs" / "images"
# With this environment variable the pictures of the manual are written.
UPDATE = "UPDATE_DOCS"

# Of an editor's page of 1400x1100 pixels: prompt, frame and labels; the same with the details of a region beside it.
FRAME, WHOLE = (240, 90, 1080, 800), (240, 90, 1400, 800)


@dataclass(frozen=True)
class Picture:
    """A picture of the manual: its name, the part of the page that it shows (None for all), its width in pixels."""

    name: str
    part: tuple[int, int, int, int] | None = None
    width: int = 620


# By the name of the screenshot.
IN_DOCS = {
    "brush_2_prompted": Picture("loop-1-prompt", WHOLE, 760),
    "brush_3_wrong_object": Picture("loop-2-wrong", FRAME),
    "brush_4_erased": Picture("loop-3-erased", FRAME),
    "brush_5_repainted": Picture("loop-4-repainted", FRAME),
    "brush_7_another_frame": Picture("loop-5-propagated", FRAME),
    "polygon_3_dragged": Picture("loop-polygon", FRAME),
    "prompts_2_boxed": Picture("loop-box", WHOLE, 760),
    "notices_3_no_worker": Picture("notes", FRAME),
    "pages-jobs-desk": Picture("pages-jobs", width=760),
    "pages-filled-projects-desk": Picture("pages-task", width=760),
    "pages-filled-versions-desk": Picture("pages-versions", width=760),
    "pages-filled-training-phone": Picture("pages-training", width=760),
}


def for_docs(name: str, png: bytes) -> None:
    """Write a screenshot into the manual, if the manual shows it and pictures are wanted."""
    picture = IN_DOCS.get(name)
    if picture is None or not os.environ.get(UPDATE):
        return
    shot = Image.open(BytesIO(png)).convert("RGB")
    shot = shot.crop(picture.part) if picture.part else shot
    shot.thumbnail((picture.width, 900))
    shot.save(DOCS / f"{picture.name}.jpg", quality=72, optimize=True)
