"""What PyAV does not tell of a file: whether a key packet resets the decoder, whether Matroska is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

_KEY_MEANS_RESET = {"vp9", "av1"}


def resets_decoder(packet: Packet, codec: VideoCodecContext) -> bool:
    """Tell whether what follows a key packet is decoded the same, whatever came before.

    Containers also mark recovery points (open groups, intra refresh) as key; only an instantaneous decoder
    refresh (IDR) of H.264 (ITU-T H.264, table 7-1, NAL type 5) and H.265 (ITU-T H.265, table 7-1, types 19
    and 20) is proof. A key frame of VP9 and AV1 resets the decoder by definition, and so does every frame of
    a codec without prediction between frames. For all other codecs the answer is no.
    """
    name = codec.codec.canonical_name
    if name in _KEY_MEANS_RESET or codec.codec.intra_only:
        return True
    if name not in {"h264", "hevc"}:
        return False
    for header in _nal_headers(bytes(packet), codec.extradata or b"", name):
        kind = header & 31 if name == "h264" else header >> 1 & 63
        if name == "h264" and 1 <= kind <= 5:
            return kind == 5
        if name == "hevc" and kind < 32:
            return kind in {19, 20}
    return False


def _nal_headers(data: bytes, extradata: bytes, codec: str) -> Iterator[int]:
    """Yield the first byte of each NAL unit: start codes (Annex B) or lengths (ISO/IEC 14496-15)."""
    if extradata[:1] != b"\x01":
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            yield data[at + 3]
            at = data.find(b"\0\0\1", at + 3)
        return
    size_byte = 4 if codec == "h264" else 21
    width = (extradata[size_byte] & 3) + 1 if len(extradata) > size_byte else 4
    at = 0
    while at + width < len(data):
        yield data[at + width]
        at += width + int.from_bytes(data[at : at + width], "big")


def matroska_is_cut(path: Path) -> bool:
    """Tell whether a Matroska or WebM file is shorter than its segment says (RFC 8794, RFC 9559).

    FFmpeg ends such a file without a word. A live recording has no known size: never cut.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    at = 4  # behind the EBML header's identifier
    size, width = _vint(head, at)
    if head[:4] != b"\x1a\x45\xdf\xa3" or size is None:
        return False
    at += width + size
    if head[at : at + 4] != b"\x18\x53\x80\x67":
        return False
    size, width = _vint(head, at + 4)
    return size is not None and at + 4 + width + size > path.stat().st_size


def _vint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return (value, width in bytes) of an EBML variable-size integer; the value is None where unknown."""
    if at >= len(data) or data[at] == 0:
        return None, 1
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return (None if value == (1 << 7 * width) - 1 else value), width
