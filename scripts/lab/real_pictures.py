#!/usr/bin/env python3
"""What the embedded model does with real pictures under a moving camera, as one picture for the docs.

uv pip install scikit-image==0.26.0 && python scripts/lab/real_pictures.py    # writes docs/images/real-pictures.jpg

The photographs are those that scikit-image's package has, CC0 or in the public domain; none of them trained the model.
What is asked was written down before the model was run, and stays, whatever it answers. The camera moves in, across and
turns; four of 24 frames are shown: the first, the last and two between. A ring or a frame shows where a person pointed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from svac_backend.errors import SvacError
from svac_backend.masks.hints import Click, FrameHint
from svac_backend.masks.render import contact_sheet, overlay
from svac_backend.svac.model import Svac
from svac_backend.video.reader import ArrayVideo

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "real-pictures.jpg"
WIDTH, HEIGHT, FRAMES = 480, 320, 24
SHOWN = (0, 8, 16, 23)
# Sides of a picture in the sheet, and the quality that keeps the file below 150 kB.
TILE, QUALITY = (240, 160), 56


@dataclass(frozen=True)
class Shot:
    """A photograph and what is asked of it.

    Attributes:
        file, credit: of the photograph; whoever made it and its terms.
        asked: a sentence, or what is pointed at.
        click, box: where, in shares of the first frame.
    """

    file: str
    credit: str
    asked: str
    click: tuple[float, float] | None = None
    box: tuple[float, float, float, float] | None = None


CAT = "chelsea.png", "Stefan van der Walt, CC0"
CUP = "coffee.png", "Rachel Michetti, CC0"
ASTRONAUT = "astronaut.png", "NASA, public domain"
ROCKET = "rocket.jpg", "SpaceX, public domain"
SHOTS = (
    Shot(*CAT, "the cat"),
    Shot(*CUP, "the cup"),
    Shot(*ASTRONAUT, "the woman"),
    Shot(*ROCKET, "the rocket"),
    Shot(*CUP, "a click on the cup", click=(0.45, 0.62)),
    Shot(*ASTRONAUT, "a box around the astronaut", box=(0.12, 0.02, 0.88, 0.99)),
)


def filmed(photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what a camera sees that moves over a photograph, u8 [FRAMES, HEIGHT, WIDTH, 3]."""
    height, width = photograph.shape[:2]
    frames = []
    for time in np.linspace(0, 1, FRAMES):
        scale = max(WIDTH / width, HEIGHT / height) * (1.06 + 0.24 * time)
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 5 * np.sin(2 * np.pi * time), scale)
        turn[:, 2] += (
            WIDTH / 2 - width / 2 - 0.06 * WIDTH * np.sin(np.pi * time),
            HEIGHT / 2 - height / 2 + 0.03 * HEIGHT * np.sin(2 * np.pi * time),
        )
        frames.append(
            cv2.warpAffine(
                photograph, turn, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
            )
        )
    return np.stack(frames).astype(np.uint8)


def masks_of(model: Svac, shot: Shot, frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return what the model finds, bool [FRAMES, HEIGHT, WIDTH]."""
    video = ArrayVideo(frames)
    if shot.click is None and shot.box is None:
        return np.stack([frame.masks[0] for frame in model.segment(video, [shot.asked])])
    click, box = _placed(shot)
    hint = FrameHint(clicks=(Click(*click, True),)) if click else FrameHint(box=box)
    found = np.zeros((FRAMES, HEIGHT, WIDTH), np.bool_)
    for _, index, mask, _ in model.propagate(video, [{0: hint}]):
        found[index] = mask
    return found


def _placed(shot: Shot) -> tuple[tuple[float, float] | None, tuple[float, float, float, float] | None]:
    """Return the click and the box in pixels."""
    click = shot.click and (shot.click[0] * WIDTH, shot.click[1] * HEIGHT)
    box = shot.box and (shot.box[0] * WIDTH, shot.box[1] * HEIGHT, shot.box[2] * WIDTH, shot.box[3] * HEIGHT)
    return click, box


def row_of(shot: Shot, frames: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """Return the frames that are shown, masks drawn on them."""
    tiles = []
    for index in SHOWN:
        drawn = overlay(frames[index], masks[index : index + 1])
        if index == 0:
            click, box = _placed(shot)
            if click:
                cv2.circle(drawn, (round(click[0]), round(click[1])), 9, (255, 255, 255), 3)
            if box:
                left, top, right, bottom = (round(side) for side in box)
                cv2.rectangle(drawn, (left, top), (right, bottom), (255, 255, 255), 3)
        tiles.append(np.asarray(cv2.resize(drawn, TILE, interpolation=cv2.INTER_AREA), np.uint8))
    return tiles


def main(
    photographs: Annotated[
        Path | None, typer.Option(help="Folder with them; that of the installed scikit-image.")
    ] = None,
    model: Annotated[str, typer.Option(help="svac-tiny, or a folder with a model.")] = "svac-tiny",
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = PICTURE,
) -> None:
    """Make the picture."""
    package = find_spec("skimage")
    folder = photographs or (Path(str(package.origin)).parent / "data" if package else None)
    if folder is None:
        raise SvacError("scikit-image is not installed.", "uv pip install scikit-image==0.26.0")
    loaded = Svac.from_pretrained(model, device="cpu", dtype="float32")
    tiles, titles = [], []
    for shot in SHOTS:
        bgr = cv2.imread(str(folder / shot.file), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SvacError(f"{folder / shot.file} can't be read.", "Give the folder of scikit-image's data.")
        frames = filmed(np.ascontiguousarray(bgr[..., ::-1], np.uint8))
        masks = masks_of(loaded, shot, frames)
        tiles += row_of(shot, frames, masks)
        titles += [shot.asked, "", "", shot.credit]
        print(f"{shot.asked}: {100 * masks.mean():.0f} % of the picture", flush=True)
    sheet = contact_sheet(tiles, columns=len(SHOWN), titles=titles)
    _, data = cv2.imencode(".jpg", sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    out.write_bytes(data.tobytes())
    print(f"{out}: {sheet.shape[1]}x{sheet.shape[0]}, {len(data) // 1000} kB")


if __name__ == "__main__":
    try:
        typer.run(main)
    except SvacError as error:
        Console(stderr=True).print(f"{error.message}\n{error.hint}", markup=False)
        sys.exit(1)
