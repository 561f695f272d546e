"""Arrays of numbers from mat files of MATLAB 5 to 7, the format of published annotations.

SciPy's reader ends the whole process on some damaged files, so these few lines stand in for it. The
format is MathWorks' "MAT-File Format" (level 5): elements of a type, a length and data, padded to
eight bytes; an array is an element that holds flags, sizes, a name and numbers. Cells, structures,
sparse and complex arrays are not read.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

HEADER_BYTES = 128
LARGEST_BYTES = 400_000_000  # of an array, unpacked
MATRIX, COMPRESSED = 14, 15
COMPLEX = 1 << 11
# Numbers that the format gives to what data are stored as, and to what an array is.
STORED = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
CLASSES = {
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2"},
    **{12: "i4", 13: "u4", 14: "i8", 15: "u8"},
}


class Element(NamedTuple):
    """A type and the bytes that belong to it."""

    kind: int
    data: memoryview


def read_arrays(content: bytes, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the arrays of some names that a mat file holds; others are passed over.

    Args:
        content: The file.
        names: Which.

    Raises:
        ValueError: It is damaged, of another version, or has no numbers under one of the names.

    >>> read_arrays(b"MATLAB 7.3 MAT-file" + bytes(109), ())
    Traceback (most recent call last):
    ValueError: it is no mat file of MATLAB 5 to 7
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[HEADER_BYTES - 2 : HEADER_BYTES])
    if order is None:
        raise ValueError("it is no mat file of MATLAB 5 to 7")
    found = {}
    for element in _elements(memoryview(content)[HEADER_BYTES:], order):
        if element.kind == COMPRESSED:
            (element,) = _elements(memoryview(_unpacked(element.data)), order)
        if element.kind == MATRIX:
            parts = _elements(element.data, order)
            flags, sizes, name = (_next(parts) for _ in range(3))
            named = bytes(name.data).decode("latin-1")
            if named in names:
                found[named] = _array(flags, sizes, parts, order)
    return found


def _unpacked(data: memoryview) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, LARGEST_BYTES)
    except zlib.error as error:
        raise ValueError(f"an array cannot be unpacked ({error})") from error
    if stream.unconsumed_tail or not stream.eof:
        raise ValueError(f"an array is cut off, or has more than {LARGEST_BYTES} bytes")
    return content


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """Take data apart; in a short element type, length and data share eight bytes."""
    while len(data) >= 8:
        kind, length = struct.unpack_from(f"{order}II", data)
        start, end = 8, 8 + length
        if kind >> 16:
            kind, length = kind & 0xFFFF, kind >> 16
            start, end = 4, 4 + length
            if length > 4:
                raise ValueError("a short element is too long")
        if end > len(data):
            raise ValueError("it is cut off")
        yield Element(kind, data[start:end])
        data = data[end if kind == COMPRESSED else (end + 7) // 8 * 8 :]


def _next(parts: Iterator[Element]) -> Element:
    part = next(parts, None)
    if part is None:
        raise ValueError("an array is cut off")
    return part


def _numbers(element: Element, order: str) -> np.ndarray:
    if element.kind not in STORED:
        raise ValueError(f"numbers are stored in the unknown way {element.kind}")
    kind = np.dtype(order + STORED[element.kind])
    if len(element.data) % kind.itemsize:
        raise ValueError("numbers are cut off")
    return np.frombuffer(element.data, kind)


def _array(flags: Element, sizes: Element, parts: Iterator[Element], order: str) -> np.ndarray:
    if len(flags.data) < 4:
        raise ValueError("an array has no flags")
    flag = int(struct.unpack_from(f"{order}I", flags.data)[0])
    if (flag & 0xFF) not in CLASSES or flag & COMPLEX:
        raise ValueError(f"an array is of class {flag & 0xFF}, not of real numbers")
    shape = [int(size) for size in _numbers(sizes, order)]
    values = _numbers(_next(parts), order)
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"an array of shape {tuple(shape)} has {len(values)} numbers")
    with np.errstate(invalid="ignore"):
        return values.astype(CLASSES[flag & 0xFF]).reshape(shape, order="F")
