"""Small picture files of every kind, made on the spot."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin


def page(height: int = 40, width: int = 60) -> npt.NDArray[np.uint8]:
    """A picture without any symmetry, RGB, with values from 0 to 255: no two corners, sides or channels are alike."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], axis=-1).astype(np.uint8)
    pixels[5:12, 8:30] = (0, 0, 0)
    pixels[-1, -1] = (255, 255, 255)
    return pixels


def encode(picture: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format_, **options)  # type: ignore[arg-type]
    return stream.getvalue()


def png(samples: npt.NDArray[np.generic], *, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of 8 or 16 bits with any chunks before its pixels; what no library writes, such as 16 bits with tRNS."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    big_endian = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big_endian)
    header = struct.pack(">IIBBBBB", width, height, samples.dtype.itemsize * 8, colour_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in body
    )


def tiff(samples: npt.NDArray[np.generic], tags: Mapping[int, object] | None = None, *, byte_order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip, of any sample type, with any tags."""
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    data = samples.astype(samples.dtype.newbyteorder(byte_order)).tobytes()
    header = b"II*\0\x08\0\0\0" if byte_order == "<" else b"MM\0*\0\0\0\x08"
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    sample_format = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    entries = {256: width, 257: height, 258: (samples.dtype.itemsize * 8,) * channels, 259: 1}
    entries |= {262: 1 if channels == 1 else 2, 273: 0, 277: channels, 278: height, 279: len(data), 284: 1}
    for tag, value in {**entries, 339: (sample_format,) * channels, **(tags or {})}.items():
        directory[tag] = value
    return header + directory.tobytes(8) + data  # `tobytes` counts the offset of the strip from its own end


def cmyk_profile(paper: tuple[int, int, int], inks: tuple[int, int, int]) -> bytes:
    """An ICC profile that makes the Lab colour `paper` of CMYK without ink, and `inks` of any full ink (bytes)."""
    table = b"".join(bytes(paper if index == 0 else inks) for index in range(16))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + table + ramp * 3
    lut += b"\0" * (-len(lut) % 4)
    size = 128 + 4 + 12 + len(lut)
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    header += b"\0" * (128 - len(header))
    return header + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def pdf(*objects: str | bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first one is the catalog."""
    content = b"%PDF-1.7\n"
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body.encode() if isinstance(body, str) else body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\n" % (size, table, size)
    return content + trailer + b"startxref\n%d\n%%%%EOF\n" % len(content)
