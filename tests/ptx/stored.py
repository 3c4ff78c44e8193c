"""How values are stored, written from docs/precision.md; never imports the package."""

import numpy as np

from .intervals import WIDE, Interval, Unit

DTYPES = {
    "bfloat16": np.uint16,
    "float16": np.float16,
    **{name: np.dtype(name) for name in ("float32", "float64", "int8", "uint8", "int16")},
}
TOP = dict(uint8=255, int8=127, uint4=15, int4=7)  # the largest code
PLACES = np.arange(0, 16, 4)  # of codes of 4 bits in a word


def wide(stored: np.ndarray, dtype: str) -> np.ndarray:
    return (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else stored


def narrow(values: np.ndarray, dtype: str) -> np.ndarray:
    """Cut off to what a row holds."""
    with np.errstate(over="ignore"):
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(DTYPES[dtype])


def in_words(codes: np.ndarray, dtype: str) -> np.ndarray:
    """Codes as a row has them: four of 4 bits in a word, the first in its lowest bits, what is left over 0."""
    if dtype not in ("uint4", "int4"):
        return codes.astype(dtype)
    codes = np.pad(codes, (0, -len(codes) % 4)).reshape(-1, 4)
    return ((codes & 15) << PLACES).sum(axis=1).astype(np.uint16).view(f"{dtype.removesuffix('4')}16")


def from_words(stored: np.ndarray, dtype: str) -> np.ndarray:
    """All codes in a row, what is left over too."""
    if dtype not in ("uint4", "int4"):
        return stored
    codes = (stored[:, None].astype(np.int64) >> PLACES & 15).ravel()
    return codes - 16 * (codes > 7) if dtype == "int4" else codes


def joined(stored: list[np.ndarray]) -> np.ndarray:
    """The master of a split parameter; a remainder of 8 bits is the upper half of one of 16."""
    upper = stored[0].astype(np.uint32) << 16
    bits = upper + (stored[1].astype(np.int32) << (8 if stored[1].dtype == np.int8 else 0)).view(np.uint32)
    beyond = np.isnan(bits.view(np.float32)) | ((bits ^ upper) > 0x7FFFFFFF)
    return np.where(beyond, upper, bits).view(np.float32)


def random_bits(words, steps: int, place: np.ndarray, stream: int) -> np.ndarray:
    """16 of each element; words: two of its parameter; place: where in it the element is.

    A hash of what four elements have in common, times a power of one number: the 1st to 4th of stream 0, the 5th to 8th of stream 1, ...
    """
    mask = np.uint64(0xFFFFFFFF)

    def hashed(x, key):
        x = x ^ x >> np.uint64(16)
        x = x * np.uint64(0x7FEB352D) & mask
        x = x ^ x >> np.uint64(15) ^ key
        x = x * np.uint64(0x846CA68B) & mask
        return x ^ x >> np.uint64(16)

    place = place.astype(np.uint64)
    four, which = place >> np.uint64(2) << np.uint64(2), (place & np.uint64(3)).astype(int)
    keys = [hashed(np.uint64(int(word) & 0xFFFFFFFF) ^ np.uint64(steps), place >> np.uint64(32)) for word in words]
    powers = np.array([pow(0x55BE25C5, 4 * stream + n, 2**32) for n in range(1, 5)], np.uint64)
    return ((hashed(four & mask ^ keys[0], keys[1]) * powers[which] & mask) >> np.uint64(16)).astype(np.uint32)


def to_float32(values: np.ndarray, up: bool) -> np.ndarray:
    """Towards one side."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    wrong = near < values if up else near > values
    return np.where(wrong, np.nextafter(near, np.float32(np.inf if up else -np.inf)), near)


def stochastic(value: np.ndarray, noise: np.ndarray, dtype: str) -> np.ndarray:
    """float32 -> the value that a 16-bit dtype stores, as float32."""
    if dtype == "bfloat16":
        return ((value.view(np.uint32) + noise) & np.uint32(0xFFFF0000)).view(np.float32)
    size, noise = np.abs(value), noise >> 3
    large = ((size.view(np.uint32) + noise) & np.uint32(0xFFFFE000)).view(np.float32)
    steps = np.floor(size * np.float32(2.0**24) + noise.astype(np.float32) * np.float32(2.0**-13))
    with np.errstate(over="ignore"):
        return np.copysign(np.where(size < 2.0**-14, steps * np.float32(2.0**-24), large).astype(np.float16).astype(np.float32), value)


def nearest(value: np.ndarray, dtype: str, away: bool = False) -> np.ndarray:
    """float32 -> likewise; away: ties of bfloat16 go away from 0."""
    if dtype == "bfloat16":
        bits = value.view(np.uint32)
        return ((bits + (0x8000 if away else 0x7FFF + (bits >> 16 & 1))) & np.uint32(0xFFFF0000)).view(np.float32)
    with np.errstate(over="ignore"):
        return value.astype(np.float16).astype(np.float32)


def master24(value: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """float32 -> the master that a remainder of 8 bits keeps, as float32."""
    return ((value.view(np.uint32) + (noise >> 8)) & np.uint32(0xFFFFFF00)).view(np.float32)


def decoded(unit: Unit, codes: np.ndarray, scale: np.ndarray, top: int) -> Interval:
    """scale: of each code; top: the largest code."""
    part = Interval(unit, codes) * (Interval(unit, WIDE(1) / top) * 1.0)
    return part * Interval(unit, np.abs(part.low), np.abs(part.high)) * scale


def code(size: np.ndarray, scale: np.ndarray, noise: np.ndarray, top: int) -> np.ndarray:
    """Of a magnitude, by exact arithmetic."""
    square = np.minimum(size * (top * top / (1 + WIDE(2.0) ** -19)) / scale, top * top)
    low = np.floor(np.sqrt(square))
    return low + (noise * WIDE(2.0) ** -15 * (1 - WIDE(2.0) ** -11) * (low + 0.5) < square - low * low)
