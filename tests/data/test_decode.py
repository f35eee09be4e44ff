from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from torchvision.transforms import functional as V

from hssl_search.data.decode import decode, short_side


def smooth(width: int, height: int) -> np.ndarray:
    """Return uint8 height x width x 3, without fine detail, different in every corner."""
    y, x = np.mgrid[:height, :width]
    return np.stack((x * 255 / width, y * 255 / height, 255 - x * 200 / width), -1).astype(np.uint8)


def test_an_image_of_the_right_size_is_copied(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode(tmp_path / "a.png", 9), pixels)


@pytest.mark.parametrize(("width", "height"), [(15, 9), (9, 14)])
def test_the_longer_side_is_cropped_at_the_centre(tmp_path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    left, top = (width - 9) // 2, (height - 9) // 2
    np.testing.assert_array_equal(
        decode(tmp_path / "a.png", 9), pixels[top : top + 9, left : left + 9]
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize(("width", "height", "side"), [(90, 60, 20), (400, 500, 24), (12, 16, 32)])
def test_resizes_as_torchvision_does(tmp_path, name, width, height, side):
    Image.fromarray(smooth(width, height)).save(tmp_path / name, quality=98)
    opened = Image.open(tmp_path / name).convert("RGB")
    oracle = V.center_crop(
        V.resize(opened, side, V.InterpolationMode.BICUBIC, antialias=True), side
    )
    difference = np.abs(decode(tmp_path / name, side).astype(int) - np.asarray(oracle).astype(int))
    assert difference.mean() < 3
    assert difference.max() < 12


def test_orientation_is_applied(tmp_path):
    pixels = smooth(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1).copy()).save(tmp_path / "upright.png")
    np.testing.assert_array_equal(
        decode(tmp_path / "turned.png", 20), decode(tmp_path / "upright.png", 20)
    )


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.fromarray(smooth(16, 16)).convert(mode)
    image.save(path)
    decoded = decode(path, 16)
    assert decoded.shape == (16, 16, 3)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB")).astype(int)).mean() < 3


def test_sixteen_bits_are_scaled_rather_than_clipped(tmp_path):
    Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)).save(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(
        decode(tmp_path / "a.png", 16)[..., 0], np.arange(256).reshape(16, 16)
    )


def test_short_side_is_of_the_file(tmp_path):
    Image.fromarray(smooth(30, 20)).save(tmp_path / "a.jpg")
    assert short_side(tmp_path / "a.jpg") == 20


def test_a_truncated_file_raises(tmp_path):
    Image.fromarray(smooth(60, 60)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:800])
    with pytest.raises(OSError, match="truncated"):
        decode(tmp_path / "a.jpg", 16)


# Broken metadata around sound pixels


def png_chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_with(*chunks: bytes, last: bytes = b"") -> bytes:
    """Return a PNG with those chunks behind its header, and `last` behind its pixels."""
    whole = saved("PNG")
    end = whole.index(b"IEND") - 4
    return whole[:33] + b"".join(chunks) + whole[33:end] + last + whole[end:]


def jpeg_with(*segments: bytes) -> bytes:
    return saved("JPEG")[:2] + b"".join(segments) + saved("JPEG")[2:]


def app(number: int, body: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(body) + 2) + body


def webp_with(kind: bytes, body: bytes, missing: int = 0) -> bytes:
    """Return a WebP that announces ICC profile, EXIF and XMP and has one chunk of them, without its
    last `missing` bytes.
    """
    pixels = saved("WEBP")[12:]
    header = b"VP8X" + struct.pack("<I", 10) + bytes([0x2C, 0, 0, 0, 39, 0, 0, 29, 0, 0])
    chunk = kind + struct.pack("<I", len(body)) + body
    parts = (header, chunk, pixels) if kind == b"ICCP" else (header, pixels, chunk)
    data = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(data)) + data[: len(data) - missing]


@functools.cache
def saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth(40, 30)).save(file, kind)
    return file.getvalue()


LARGE = zlib.compress(bytes(2 * PngImagePlugin.MAX_TEXT_CHUNK))
TIFF = b"II*\0\x08\0\0\0"
TURNED = TIFF + struct.pack("<HHHII", 1, 0x0112, 3, 1, 6) + bytes(4)
BROKEN = {
    "png, EXIF that is no TIFF": png_with(png_chunk(b"eXIf", b"nonsense")),
    "png, EXIF of no bytes": png_with(png_chunk(b"eXIf", b"")),
    "png, truncated EXIF": png_with(png_chunk(b"eXIf", TIFF + b"\xff\xff\x12")),
    "png, EXIF after the pixels": png_with(last=png_chunk(b"eXIf", b"nonsense")),
    "png, EXIF as text": png_with(
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n3\nxyz"))
    ),
    "png, large colour profile": png_with(png_chunk(b"iCCP", b"icc\0\0" + LARGE)),
    "png, colour profile of another compression": png_with(png_chunk(b"iCCP", b"icc\0\x07abc")),
    "png, colour profile without a name": png_with(png_chunk(b"iCCP", b"")),
    "png, large text": png_with(png_chunk(b"zTXt", b"comment\0\0" + LARGE)),
    "png, large XMP after the pixels": png_with(
        last=png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LARGE)
    ),
    "png, wrong checksum of a text": png_with(png_chunk(b"tEXt", b"comment\0text", crc=1)),
    "png, empty gamma": png_with(png_chunk(b"gAMA", b"")),
    "png, short resolution": png_with(png_chunk(b"pHYs", b"abc")),
    "jpeg, EXIF that is no TIFF": jpeg_with(app(1, b"Exif\0\0nonsense")),
    "jpeg, EXIF of no bytes": jpeg_with(app(1, b"Exif\0\0")),
    "jpeg, truncated EXIF": jpeg_with(app(1, b"Exif\0\0" + TIFF + b"\xff\xff\x12")),
    "jpeg, broken XMP": jpeg_with(app(1, b"http://ns.adobe.com/xap/1.0/\0\xff<tiff:Orientation>x")),
    "jpeg, short colour profile": jpeg_with(app(2, b"ICC_PROFILE\0")),
    "jpeg, broken list of images": jpeg_with(app(2, b"MPF\0" + TIFF + b"\xff\xff\x12")),
    "jpeg, short JFIF": jpeg_with(app(0, b"JFIF\0")),
    "jpeg, short Photoshop block": jpeg_with(app(13, b"Photoshop 3.0\x008BIM\x03\xed")),
    "webp, EXIF that is no TIFF": webp_with(b"EXIF", b"nonsense"),
    "webp, EXIF cut off": webp_with(b"EXIF", b"nonsense" * 4, missing=9),
    "webp, broken XMP": webp_with(b"XMP ", b"\xff<tiff:Orientation>x "),
    "webp, colour profile of no use": webp_with(b"ICCP", b"nonsense"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_metadata_leave_the_pixels_alone(tmp_path, name):
    (tmp_path / "sound").write_bytes(saved(name.partition(",")[0].upper()))
    (tmp_path / "broken").write_bytes(BROKEN[name])
    np.testing.assert_array_equal(decode(tmp_path / "broken", 24), decode(tmp_path / "sound", 24))
    assert short_side(tmp_path / "broken") == 30


@pytest.mark.parametrize(
    "broken",
    [
        png_with(png_chunk(b"eXIf", TURNED), png_chunk(b"zTXt", b"comment\0\0" + LARGE)),
        jpeg_with(app(1, b"Exif\0\0" + TURNED), app(2, b"ICC_PROFILE\0")),
    ],
    ids=["png", "jpeg"],
)
def test_orientation_is_read_beside_other_metadata_that_are_broken(tmp_path, broken):
    kind = "JPEG" if broken[:2] == b"\xff\xd8" else "PNG"
    (tmp_path / "broken").write_bytes(broken)
    (tmp_path / "sound").write_bytes(saved(kind))
    np.testing.assert_array_equal(
        decode(tmp_path / "broken", 24), np.rot90(decode(tmp_path / "sound", 24), -1)
    )


def test_transparent_palette_colours_are_kept_without_the_metadata(tmp_path):
    image = Image.fromarray(smooth(40, 30)).quantize(16)
    image.save(tmp_path / "sound.png", transparency=3)
    whole = (tmp_path / "sound.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(
        whole[:33] + png_chunk(b"zTXt", b"comment\0\0" + LARGE) + whole[33:]
    )
    assert b"tRNS" in whole
    np.testing.assert_array_equal(
        decode(tmp_path / "broken.png", 24), decode(tmp_path / "sound.png", 24)
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pixels_that_are_missing_or_damaged_are_refused_with_the_first_error(tmp_path, kind):
    (tmp_path / "cut").write_bytes(saved(kind)[: len(saved(kind)) // 2])
    with pytest.raises((OSError, SyntaxError)):
        decode(tmp_path / "cut", 24)


def test_pixels_with_a_wrong_checksum_are_refused(tmp_path):
    whole = bytearray(png_with(png_chunk(b"eXIf", b"nonsense")))
    whole[whole.index(b"IDAT") + 30] ^= 1
    (tmp_path / "a.png").write_bytes(whole)
    with pytest.raises((OSError, SyntaxError)):
        decode(tmp_path / "a.png", 24)
