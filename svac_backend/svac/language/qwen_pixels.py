"""Pixels for Qwen-VL's vision towers: two resizes, normalised patches, and where they lie. No torchvision.

The published code (bytedance/Sa2VA, class Sa2VAChatModelQwen) hands each frame to qwen-vl-utils, which resizes it with
Pillow to multiples of 28 px, and then to transformers' processor, which resizes it once more with torch's antialiased
bicubic filter on bytes, within bounds of its own. Pillow in the place of torch, floats in the place of bytes or one
resize in the place of two give other pixels, so each step is done as they do it.

All images of a video have one size, that of its frames: ASTC resizes a composite to the size of one frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from svac_backend.errors import SvacError

# qwen-vl-utils: multiples of 28 px whatever the tower's patches are, and its bounds in pixels.
_FIRST_UNIT, _FIRST_LEAST, _FIRST_MOST = 28, 4 * 28 * 28, 16384 * 28 * 28
# Both libraries refuse what is more elongated.
_MOST_ELONGATED = 200

Size = tuple[int, int]


def bounded_size(height: int, width: int, unit: int, least: int, most: int) -> Size:
    """Return the size nearest to (height, width) in multiples of `unit`, with `least` to `most` pixels.

    Rows and columns; by Python's rounding, half to even, as in both libraries.
    """
    rows, columns = (max(unit, round(side / unit) * unit) for side in (height, width))
    if rows * columns > most:
        shrink = math.sqrt(height * width / most)
        rows, columns = (max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width))
    elif rows * columns < least:
        grow = math.sqrt(least / (height * width))
        rows, columns = (math.ceil(side * grow / unit) * unit for side in (height, width))
    return rows, columns


def image_sizes(height: int, width: int, unit: int, bounds: tuple[int, int]) -> tuple[Size, Size]:
    """Return the sizes of a frame after the first and the second resize, rows and columns each.

    Args:
        height, width: of the frame.
        unit: pixels a side of one visual token: patch size times merged patches.
        bounds: fewest and most pixels after the second resize.

    Raises:
        SvacError: the frame is too elongated.
    """
    if max(height, width) > _MOST_ELONGATED * min(height, width):
        raise SvacError(
            f"A frame of {width}x{height} pixels is too elongated for Qwen-VL.",
            f"Use a video whose longer side is at most {_MOST_ELONGATED} times the shorter one, or another model.",
        )
    first = bounded_size(height, width, _FIRST_UNIT, _FIRST_LEAST, _FIRST_MOST)
    return first, bounded_size(*first, unit, *bounds)


def fit(image: NDArray[np.uint8], frame: Size, unit: int, bounds: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image u8 [H, W, 3] to the size that a frame gets: u8 [h, w, 3].

    Args:
        image: a frame, or a composite.
        frame: rows and columns of the video's frames.
        unit, bounds: see `image_sizes`.

    Raises:
        SvacError: the frame is too elongated.
    """
    (rows, columns), second = image_sizes(*frame, unit, bounds)
    small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))
    planes = torch.from_numpy(small.transpose(2, 0, 1).copy())[
        None
    ]  # bytes on the CPU, one plane after the other
    large = F.interpolate(planes, size=second, mode="bicubic", antialias=True)
    return large[0].permute(1, 2, 0).contiguous().numpy()


def patch_rows(
    image: NDArray[np.uint8], patch: int, merge: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Normalise an image and cut it into patches, in blocks of merge x merge patches.

    Args:
        image: u8 [h, w, 3], multiples of patch x merge pixels.
        patch: pixels a side.
        merge: patches a side of one visual token.
        mean, std: of the three channels, in 0..1.

    Returns:
        f32 [h/patch * w/patch, 3 * 2 * patch * patch]: to the tower a still image is two equal frames.
    """
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()
    # In bytes' units, as transformers joins scaling and normalising; one after the other rounds otherwise.
    middle, scale = (torch.tensor(values) * 255.0 for values in (mean, std))
    planes.sub_(middle.view(3, 1, 1)).div_(scale.view(3, 1, 1))
    rows, columns = (side // (patch * merge) for side in image.shape[:2])
    blocks = planes.view(3, rows, merge, patch, columns, merge, patch).permute(1, 4, 2, 5, 0, 3, 6)
    return blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1).reshape(-1, 3 * 2 * patch * patch)


def rotary_positions(ids: Tensor, image_id: int, grids: Sequence[Size]) -> tuple[Tensor, int]:
    """Return where each token stands for M-RoPE (frame, row and column), and where the text goes on.

    Text counts up in all three. An image that begins at p has p for its frame, and p plus the row and p plus the column
    for each of its tokens; what follows it begins at p plus its longer side.

    Args:
        ids: i64 [L].
        image_id: id of the image placeholder.
        grids: rows and columns of each image's tokens, in their order in the text.

    Returns:
        i64 [3, L], and the position of the token after the last one.
    """
    starts = (ids == image_id).nonzero()[:, 0].tolist()
    parts, place, done = [], 0, 0
    for rows, columns in grids:
        start = starts[0]
        parts.append(_text(place, start - done))
        place += start - done
        row, column = torch.arange(rows), torch.arange(columns)
        grid = torch.stack(
            [torch.zeros(rows, columns, dtype=torch.long), *torch.meshgrid(row, column, indexing="ij")]
        )
        parts.append(grid.flatten(1) + place)
        place, done = place + max(rows, columns), start + rows * columns
        starts = starts[rows * columns :]
    parts.append(_text(place, len(ids) - done))
    return torch.cat(parts, dim=1), place + len(ids) - done


def _text(place: int, count: int) -> Tensor:
    return torch.arange(place, place + count).expand(3, -1)
