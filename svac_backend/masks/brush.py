"""Label Studio's brush RLE: rle-pack (thi.ng/umbrella) over the flattened RGBA pixels of a mask.

The stream, most significant bit first: the number of bytes (32 bits), the word size - 1 (5 bits), four run
sizes - 1 (4 bits each), then tokens. A token is a flag, a 2-bit index into the run sizes and a count - 1 of
that size; flag 1 is followed by one word that repeats count times, flag 0 by count words. Zero bits fill the
last byte.

The encoder writes what `label_studio_sdk.converter.brush.mask2rle` writes for a 0/255 mask, byte for byte:
all four channels of a pixel carry the mask. It works on runs, not on pixels, which is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from svac_backend.errors import SvacError
from svac_backend.masks.limits import MAX_RLE_BYTES, check_count, check_size

_CHANNELS = 4
_ALPHA_THRESHOLD = 128
_WORD_BITS = 8
_RUN_BITS = (3, 4, 8, 16)
_RUN_LIMITS = np.array([1 << bits for bits in _RUN_BITS])
_LONGEST_RUN = 1 << _RUN_BITS[-1]
_HEADER_BITS = 32 + 5 + 4 * 4
_MAX_BYTES = (1 << 32) - 1

_ADVICE = (
    "Take `rle` unchanged from a brush result of Label Studio, with its original_width and original_height."
)


def encode_brush(mask: NDArray[np.bool_]) -> list[int]:
    """Encode a mask as the `rle` of a Label Studio brush result.

    Args:
        mask: bool [H, W], at least one pixel.

    Returns:
        Bytes 0..255 as a list; object pixels are RGBA 255, 255, 255, 255 and all others 0, 0, 0, 0.

    Raises:
        SvacError: the mask is no bool [H, W] array or has more pixels than the format can count.
    """
    check_mask(mask)
    total = mask.size * _CHANNELS
    if total > _MAX_BYTES:
        raise SvacError(
            f"A mask of {mask.shape[1]}x{mask.shape[0]} pixels does not fit into brush RLE.",
            "Scale it down first.",
        )
    flat = np.ascontiguousarray(mask).reshape(-1)
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    values = np.where((np.arange(lengths.size) & 1) ^ int(flat[0]), 255, 0)
    sizes = np.searchsorted(_RUN_LIMITS[:-1], lengths)  # index into _RUN_BITS

    if lengths.max() > _LONGEST_RUN:  # several tokens; all keep the widest count, as the SDK writes them
        pieces = -(-lengths // _LONGEST_RUN)
        last = np.cumsum(pieces) - 1
        rest = lengths - (pieces - 1) * _LONGEST_RUN
        values, sizes = np.repeat(values, pieces), np.repeat(sizes, pieces)
        lengths = np.full(values.size, _LONGEST_RUN)
        lengths[last] = rest

    count_bits = np.array(_RUN_BITS)[sizes]
    tokens = (((4 | sizes) << count_bits | (lengths - 1)) << _WORD_BITS) | values
    return _pack(tokens, 3 + count_bits + _WORD_BITS, total)


def _pack(tokens: NDArray[np.int64], widths: NDArray[np.int64], total: int) -> list[int]:
    """Write the header and then `tokens`, each in as many bits as `widths` says (32 at most)."""
    ends = np.cumsum(widths) + _HEADER_BITS
    starts = ends - widths
    words = int(ends[-1]) // 32 + 2
    at = starts >> 5
    # A token lies within two neighbouring 32-bit words. Bits never overlap, so adding is the same as or-ing,
    # and bincount adds exactly: its float64 holds 53 bits.
    placed = (tokens << (64 - widths - (starts & 31))).view(np.uint64)
    stream = np.bincount(at, (placed >> np.uint64(32)).astype(np.float64), words)
    stream[1:] += np.bincount(at, (placed & np.uint64(0xFFFFFFFF)).astype(np.float64), words)[:-1]

    header = total << 21 | (_WORD_BITS - 1) << 16
    for i, bits in enumerate(_RUN_BITS):
        header |= (bits - 1) << (12 - 4 * i)
    header <<= 64 - _HEADER_BITS
    stream[0] += header >> 32
    stream[1] += header & 0xFFFFFFFF
    # The editor writes whole bytes and no more; the SDK adds an empty one where the bits end on a byte.
    return list(stream.astype(">u4").tobytes()[: -(-int(ends[-1]) // 8)])


def decode_brush(rle: Sequence[int] | bytes, height: int, width: int) -> NDArray[np.bool_]:
    """Decode the `rle` of a Label Studio brush result.

    Args:
        rle: bytes 0..255, as the editor, the SDK or `encode_brush` wrote them; any RGBA content.
        height, width: size of the image in pixels (`original_height`, `original_width`).

    Returns:
        bool [height, width], true where alpha >= 128: the editor's brush strokes have anti-aliased edges.

    Raises:
        SvacError: not a list of bytes, another format, cut off, or of another size.
    """
    check_size(height, width)
    data = _as_bytes(rle)
    if len(data) * 8 < _HEADER_BITS:
        raise SvacError(
            f"The brush RLE is cut off: it has {len(data)} bytes and no complete header.", _ADVICE
        )
    header = int.from_bytes(data[:7], "big") >> 3
    total, word_bits = header >> 21, (header >> 16 & 31) + 1
    run_bits = [(header >> (12 - 4 * i) & 15) + 1 for i in range(4)]
    if word_bits != _WORD_BITS:
        raise SvacError(f"The brush RLE has words of {word_bits} bits; Label Studio's have 8.", _ADVICE)
    if total != height * width * _CHANNELS:
        raise SvacError(
            f"The brush RLE holds {total} bytes, but a mask of {width}x{height} pixels has "
            f"{height * width * _CHANNELS} (RGBA).",
            _ADVICE,
        )
    ends, alpha = _runs(data, run_bits, total)
    # Byte 4x + 3 is the alpha of pixel x, so a run up to byte e (exclusive) reaches up to pixel e // 4.
    lengths = np.diff(np.minimum(ends, total) >> 2, prepend=0)
    return np.repeat(alpha >= _ALPHA_THRESHOLD, lengths).reshape(height, width)


def _runs(data: bytes, run_bits: list[int], total: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the end (in bytes of RGBA, exclusive) and the value of every run of the stream."""
    starts, kinds = _token_starts(data, run_bits)
    source = np.frombuffer(data + bytes(8), np.uint8)
    count_bits = np.array(run_bits)[kinds & 3]
    counts = _read(source, starts + 3, count_bits) + 1
    covered = np.cumsum(counts)
    used = int(np.searchsorted(covered, total)) + 1  # what follows is the fill of the last byte
    if used > counts.size:
        raise SvacError("The brush RLE is cut off: it ends before its last pixel.", _ADVICE)
    starts, kinds, counts, count_bits = starts[:used], kinds[:used], counts[:used], count_bits[:used]
    word_at = starts + 3 + count_bits
    repeated = kinds >= 4
    if repeated.all():
        ends = covered[:used]
    else:  # each word of a flag-0 token is a run of its own, of length 1
        words = np.where(repeated, 1, counts)
        first = np.repeat(np.cumsum(words) - words, words)
        word_at = np.repeat(word_at, words) + (np.arange(first.size) - first) * _WORD_BITS
        ends = np.cumsum(np.repeat(np.where(repeated, counts, 1), words))
    return ends, _read(source, word_at, np.array(_WORD_BITS))


def _token_starts(data: bytes, run_bits: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return bit position and kind (flag * 4 + size index) of each token that lies wholly in `data`."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    kind_at = (bits[:-2] << 2 | bits[1:-1] << 1 | bits[2:]).tobytes()
    stream = int.from_bytes
    step = [3 + size for size in run_bits] + [3 + size + _WORD_BITS for size in run_bits]
    starts = []
    at, stop = _HEADER_BITS, len(data) * 8
    while at < stop - 2:
        starts.append(at)
        kind = kind_at[at]
        after = at + step[kind]
        if kind < 4:
            count_at, size = at + 3, run_bits[kind]
            window = stream(data[count_at >> 3 : (count_at >> 3) + 4].ljust(4, b"\0"), "big")
            after += ((window >> (32 - (count_at & 7) - size) & ((1 << size) - 1)) + 1) * _WORD_BITS
        at = after
    if at > stop:  # the last one reaches beyond the end: the fill, or the stream is cut off
        starts.pop()
    found = np.array(starts, dtype=np.int64)
    return found, np.frombuffer(kind_at, np.uint8)[found].astype(np.int64)


def _read(source: NDArray[np.uint8], at: NDArray[np.int64], bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read unsigned integers of `bits` bits (16 at most) at the bit positions `at`; `source` is padded."""
    byte = at >> 3
    window = source[byte].astype(np.int64) << 16 | source[byte + 1].astype(np.int64) << 8 | source[byte + 2]
    return window >> (24 - (at & 7) - bits) & ((1 << bits) - 1)


def _as_bytes(rle: Sequence[int] | bytes) -> bytes:
    if isinstance(rle, (bytes, bytearray)):
        return bytes(rle)
    if not isinstance(rle, (list, tuple)):
        raise SvacError(f"Brush RLE is a list of bytes, not {type(rle).__name__}.", _ADVICE)
    check_count(len(rle), MAX_RLE_BYTES, "bytes in a brush mask")
    try:
        return bytes(rle)
    except (TypeError, ValueError) as error:
        raise SvacError("Brush RLE holds something that is no integer from 0 to 255.", _ADVICE) from error


def check_mask(mask: NDArray[np.bool_]) -> None:
    """Raise `SvacError` unless `mask` is a bool array [H, W] with at least one pixel."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
        found = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise SvacError(
            f"A mask is a bool array [height, width], not {found}.",
            "Compare with a threshold first, one object at a time.",
        )
