"""How the stored picture is turned before it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """A turn by a multiple of 90 degrees and perhaps a mirroring: transpose first, then flip.

    Attributes:
        transposed: rows become columns.
        flip_x: mirrored left to right.
        flip_y: mirrored top to bottom.
    """

    transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """Read a frame's display matrix (ISO/IEC 14496-12, `matrix` of the track header).

        The matrix (a b u, c d v, x y w) sends a stored point (p, q) to (a p + c q, b p + d q). Angles that
        are no multiple of 90 degrees are rounded to one.
        """
        matrix: SideData | None = next(
            (d for d in cast("Iterable[SideData]", frame.side_data) if d.type == Type.DISPLAYMATRIX), None
        )
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def clockwise(self) -> int:
        """Clockwise degrees from the stored to the shown picture: 0, 90, 180 or 270, mirroring set aside."""
        if self.transposed:
            return 270 if self.flip_y else 90
        return 180 if self.flip_y else 0

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture u8 [H, W, 3]; the result is contiguous."""
        if self == Orientation():
            return picture
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        if self.flip_x:
            picture = picture[:, ::-1]
        if self.flip_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)
