"""What a picture file declares besides its pixels, looked at before anything is decoded: a small file can ask for hours and gigabytes.

Pillow keeps each value of a TIFF directory, and thousands of entries may name the same bytes; a JPEG may be refined by any number of
scans, each of which visits every pixel.
"""

import binascii
import struct
from collections.abc import Iterator

MOST_DIRECTORIES, MOST_ENTRIES = 4096, 2**17
MOST_NUMBERS = 2**24  # bytes of numeric values in TIFF directories; the strips of 100 megapixels in tiles of 16x16 take half of it
FEW_SCANS = 20  # a progressive JPEG has about 10
MOST_SCANNED = 2 * 10**9  # pixels times scans: some seconds
RAW_EXIF = "Raw profile type exif"  # where ImageMagick puts EXIF in a PNG
UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # bytes, by TIFF type
NUMERIC = set(UNITS) - {1, 2, 6, 7}
SUB_DIRECTORIES = {330, 34665, 34853, 40965}


def is_tiff(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def directories_fit(data: bytes) -> bool:
    """Whether the directories of a TIFF file, or of EXIF data, hold no more than the file itself. True for what has no directory."""
    if not is_tiff(data):
        return True
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    number, size = ("Q", 20) if big else ("H", 12)
    waiting, seen = [_unpack(order + ("Q" if big else "I"), data, 8 if big else 4)], set()
    held = numbers = found = 0
    while waiting:
        at = waiting.pop()
        if at is None or at == 0 or at in seen:
            continue
        seen.add(at)
        entries = min(_unpack(order + number, data, at) or 0, len(data) // size)
        found += entries
        if len(seen) > MOST_DIRECTORIES or found > MOST_ENTRIES:
            return False
        begin = at + struct.calcsize(number)
        for entry in range(begin, begin + size * entries, size):
            tag, kind = _unpack(order + "H", data, entry), _unpack(order + "H", data, entry + 2)
            count = _unpack(order + ("Q" if big else "I"), data, entry + 4)
            if count is None:
                break
            held += (value := min(count * UNITS.get(kind, 1), len(data)))
            numbers += value * (kind in NUMERIC)
            if held > 2 * len(data) + MOST_NUMBERS or numbers > MOST_NUMBERS:
                return False
            if tag in SUB_DIRECTORIES:
                waiting.append(_unpack(order + ("Q" if big else "I"), data, entry + (12 if big else 8)))
        waiting.append(_unpack(order + ("Q" if big else "I"), data, begin + size * entries))
    return True


def _unpack(form: str, data: bytes, at: int) -> int | None:
    """One number at a place, None beyond the end."""
    return struct.unpack_from(form, data, at)[0] if 0 <= at <= len(data) - struct.calcsize(form) else None


def exif_fits(info: dict) -> bool:
    """Whether the EXIF data that Pillow has found in a picture can be read."""
    found = [info.get("exif") or b""]
    raw = info.get(RAW_EXIF)
    if isinstance(raw, str | bytes):
        text = raw if isinstance(raw, str) else raw.decode("latin-1")
        try:
            found.append(binascii.unhexlify("".join(text.split("\n")[3:])))
        except ValueError:
            return False
    return all(directories_fit(bytes(exif).removeprefix(b"Exif\0\0")) for exif in found if isinstance(exif, bytes))


def exif_of_jpeg(data: bytes) -> bytes:
    """The EXIF data of a JPEG file: Pillow joins those of all its segments, and reads them while it opens the file."""
    return b"".join(data[at + 10 : end] for at, end in segments(data) if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0")


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the segments of a JPEG file before its first scan begin and end. The last one found begins and ends where the scan begins."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # with a thumbnail perhaps
        if data[at + 1 : at + 2] == b"\xff":
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield at, end
        at = end
    yield at, at


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG file ends before its picture does; some decoders fill the rest with gray."""
    if data[:2] != b"\xff\xd8":
        return False
    *_, (scan, _) = segments(data)
    return data.find(b"\xff\xd9", scan) < 0


def scans_too_often(data: bytes, pixels: int) -> bool:
    """Whether a JPEG file of so many pixels has so many scans that decoding would take minutes."""
    scans = data.count(b"\xff\xda") if data[:2] == b"\xff\xd8" else 0
    return scans > FEW_SCANS and scans * pixels > MOST_SCANNED
