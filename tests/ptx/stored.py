"""How values are stored, written from docs/precision.md; never imports the package."""

import numpy as np

from .intervals import WIDE, Interval, Unit

DTYPES = {
    "bfloat16": np.uint16,
    "float16": np.float16,
    **{name: np.dtype(name) for name in ("float32", "float64", "int8", "uint8", "int16")},
}


def wide(stored: np.ndarray, dtype: str) -> np.ndarray:
    return (stored.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else stored


def narrow(values: np.ndarray, dtype: str) -> np.ndarray:
    """Cut off to what a row holds."""
    with np.errstate(over="ignore"):
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) if dtype == "bfloat16" else values.astype(DTYPES[dtype])


def joined(stored: list[np.ndarray]) -> np.ndarray:
    """The master of a split parameter."""
    upper = stored[0].astype(np.uint32) << 16
    bits = upper + stored[1].astype(np.int32).view(np.uint32)
    beyond = np.isnan(bits.view(np.float32)) | ((bits ^ upper) > 0x7FFFFFFF)
    return np.where(beyond, upper, bits).view(np.float32)


def random_bits(words, steps: int, place: np.ndarray, stream: int) -> np.ndarray:
    """16 of each element; words: two of its parameter; place: where in it the element is."""
    mask = np.uint64(0xFFFFFFFF)

    def mixed(x, key):
        x = x ^ x >> np.uint64(16)
        x = x * np.uint64(0x7FEB352D) & mask
        x = x ^ x >> np.uint64(15) ^ key
        x = x * np.uint64(0x846CA68B) & mask
        return x ^ x >> np.uint64(16)

    place = place.astype(np.uint64)
    keys = [mixed(np.uint64(int(word) & 0xFFFFFFFF) ^ np.uint64(steps), place >> np.uint64(32)) for word in words]
    word = mixed(place & mask ^ keys[0], keys[1] + np.uint64(0x9E3779B9 * (stream // 2)) & mask)
    return (word >> np.uint64(16) if stream % 2 else word & np.uint64(0xFFFF)).astype(np.uint32)


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


def decoded(unit: Unit, codes: np.ndarray, scale: np.ndarray) -> Interval:
    """scale: of each code."""
    part = Interval(unit, codes) * (Interval(unit, WIDE(1) / (255 if codes.dtype == np.uint8 else 127)) * 1.0)
    return part * Interval(unit, np.abs(part.low), np.abs(part.high)) * scale


def code(size: np.ndarray, scale: np.ndarray, noise: np.ndarray, top: int) -> np.ndarray:
    """Of a magnitude, by exact arithmetic."""
    square = np.minimum(size * (top * top * (1 - WIDE(2.0) ** -19)) / scale, top * top)
    low = np.floor(np.sqrt(square))
    return low + (noise * WIDE(2.0) ** -15 * (1 - WIDE(2.0) ** -11) * (low + 0.5) < square - low * low)
