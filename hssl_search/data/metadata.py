"""Image files without their metadata, for files whose metadata a decoder refuses although the
pixels are sound.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_KEPT = (b"tRNS", b"eXIf")
"""Chunks beside the critical ones that change the decoded square: transparency and orientation."""
WEBP_DROPPED = (b"ICCP", b"EXIF", b"XMP ")
WEBP_FLAGS = 0x20 | 0x08 | 0x04
"""Bits of a WebP header that announce those chunks."""


def without_metadata(data: bytes) -> bytes:
    """Return a PNG, JPEG or WebP file without colour profiles, texts and broken chunks, and any
    other file as it is.

    The pixels are copied as they are: a file that is truncated stays truncated. The orientation is
    kept where it can be told from what is broken.
    """
    if data.startswith(PNG):
        return PNG + b"".join(_png_chunks(data))
    if data.startswith(JPEG):
        return JPEG + b"".join(_jpeg_segments(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        body = b"WEBP" + b"".join(_webp_chunks(data))
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return data


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at = len(PNG)
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        # A critical chunk (its first letter is a capital) stays even when its checksum is wrong:
        # the decoder is to refuse those pixels.
        if kind[:1].isupper() or (
            kind in PNG_KEPT and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        ):
            yield chunk
        at += 12 + length


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    at = len(JPEG)
    # Up to the start of scan, from where on there are pixels.
    while data[at : at + 1] == b"\xff" and (marker := data[at + 1]) != 0xDA:
        if marker == 0xFF:  # padding between segments
            at += 1
            continue
        segment = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        if _changes_pixels(marker, segment):
            yield segment
        at += max(4, len(segment))
    yield data[at:]


def _changes_pixels(marker: int, segment: bytes) -> bool:
    """Tell whether a JPEG segment is no metadata, or says how colours are coded (JFIF, Adobe) or
    how the image is turned (Exif).
    """
    if marker == 0xE0:
        return len(segment) >= 18  # as long as JFIF has it
    if marker == 0xE1:
        return segment[4:10] == b"Exif\0\0"
    return marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    at = 12
    while at < len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + length + length % 2]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_FLAGS]) + chunk[9:]
        if kind not in WEBP_DROPPED:
            yield chunk
        at += 8 + length + length % 2
