"""Find values that look like no data although nothing declares them, in a decimated image."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tmcnet.raster.io.files import BoolArray

Reals: TypeAlias = npt.NDArray[np.floating[Any]]

LATTICE_PX = 512  # largest side of a decimated image
_MIN_SHARE = 0.01  # smallest share of the pixels that is reported as fill
_MIN_EDGE_SHARE = 0.1  # smallest share of the edge that is reported as fill of one band among several
_MIN_LEVELS = 64  # distinct values of each band from which one combination of them is no chance
_MIN_REPEATED = 8  # pixels of a decimated image with one value far from all others that are no chance
_MIN_GAP_RATIO = 10.0  # gap from a repeated value to all others, in units of their range, that measurements lack
_SENTINELS = (-9999.0, -99999.0, -10000.0, -32768.0, -32767.0, -999.0, -99.0)
"""Common values of no data: for them a gap as large as the range is enough, and a single pixel."""
_MAX_MEASUREMENT = 1e30
_MAX_BYTES = 6  # values of so many bytes are one exact number
_MIN_GREY_GAP = 16  # grey levels around a value that pictures do not leave out
_GREY_TOLERANCE = 3  # how far JPEG compression moves grey levels of fill


@dataclass(frozen=True)
class Fill:
    """Pixels that may have no data."""

    share: float  # share of all pixels
    what: str  # what they have in common, after `... of the pixels`
    is_one_value: bool = True  # whether one declared value would make them no data, and nothing else


@dataclass(frozen=True)
class Lattice:
    """Every n-th pixel of files on one grid."""

    step: int
    stored: Reals  # C x h x w values as stored; NaN for no data
    has_bytes: bool = False  # whether all values are of 8 bits, of which each is an ordinary measurement as well

    @cached_property
    def low(self) -> Reals:
        """Lowest value of each band; NaN without any."""
        return np.asarray(np.fmin.reduce(self.stored.reshape(len(self.stored), -1), axis=1))

    @cached_property
    def high(self) -> Reals:
        """Highest value of each band; NaN without any."""
        return np.asarray(np.fmax.reduce(self.stored.reshape(len(self.stored), -1), axis=1))

    def two_valued(self) -> Iterator[tuple[int, float, float]]:
        """Yield the bands, from 0, beside others that have only two values, and these, as masks do."""
        for number, band in enumerate(self.stored if len(self.stored) > 1 else ()):
            low, high = self.low[number], self.high[number]
            if low < high and not _has_between(band, low, high):
                yield number, float(low), float(high)

    def lone_no_data(self, tags: Sequence[float | None]) -> Iterator[tuple[int, float, float]]:
        """Yield bands of 8 bits, from 0, whose value of no data counts although no other is near; it; its share."""
        for number, (band, tag) in enumerate(zip(self.stored, tags, strict=True)) if self.has_bytes else ():
            if tag is None or _has_between(band, tag - _MIN_GREY_GAP, tag + _MIN_GREY_GAP, tag):
                continue
            is_tag = band[np.isfinite(band)] == tag
            if np.count_nonzero(is_tag) >= _MIN_REPEATED:
                yield number, tag, share_of(is_tag)

    def equal_bands(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of neighbouring bands, from 0, with the same numbers, as grey pictures in three bands have."""
        for number, (one, other) in enumerate(itertools.pairwise(self.stored)):
            few = one[::8, ::8]  # most bands differ there
            is_alike = np.array_equal(few, other[::8, ::8], equal_nan=True) and np.unique(few).size > 2
            if is_alike and np.array_equal(one, other, equal_nan=True):
                yield number, number + 1

    def undeclared_fill(self, bands: Sequence[str]) -> Fill | None:
        """Find a constant in pieces at the edge of the image, or values that only fill has; by the names of bands."""
        constant = self._constant_at_edge(bands)
        if self.has_bytes:
            near = self._nearly_black_or_white()
            return near if near and (constant is None or constant.share < 0.9 * near.share) else constant
        return constant or self.isolated(bands) or self._lowest_of_all() or self._one_band_at_edge(bands)

    def isolated(self, bands: Sequence[str]) -> Fill | None:
        """Find a lowest or highest value that is repeated and much farther from all others than these are apart."""
        found: dict[float, list[tuple[str, float]]] = {}
        for name, band, *ends in zip(bands, self.stored, self.low, self.high, strict=True):
            values = band[np.isfinite(band)]
            for value in ends if values.size else ():
                others = values[values != value]
                count = values.size - others.size
                is_sentinel = value in _SENTINELS or abs(value) > _MAX_MEASUREMENT
                if (count < _MIN_REPEATED and not is_sentinel) or not others.size or others.min() == others.max():
                    continue
                ratio = 1 if is_sentinel else _MIN_GAP_RATIO
                if np.abs(others - value).min() > ratio * np.ptp(others):
                    found.setdefault(float(value), []).append((name, count / band.size))
        for value, where in found.items():
            named = "all bands" if len(where) == len(bands) else f"band {', '.join(name for name, _ in where)}"
            return Fill(max(share for _, share in where), f"are {exact(value)} in {named}, far from all other values")
        return None

    def _constant_at_edge(self, bands: Sequence[str]) -> Fill | None:
        if (found := _constant_from_edge(self.stored, self.has_bytes)) is None:
            return None
        values, _, share = found
        if (values == values[0]).all():
            return Fill(share, f"are {exact(values[0])} in all bands, connected to the edge")
        each = ", ".join(f"{exact(value)} in {name}" for name, value in zip(bands, values, strict=True))
        return Fill(share, f"are {each}, connected to the edge", is_one_value=False)

    def _nearly_black_or_white(self) -> Fill | None:
        """Pixels near the end of 8 bits: compression changes the constants of a collar."""
        for value in (0, 255):
            is_reached = self.low <= _GREY_TOLERANCE if value == 0 else self.high >= 255 - _GREY_TOLERANCE
            if not is_reached.all():
                continue
            ends = self.stored <= _GREY_TOLERANCE if value == 0 else self.stored >= 255 - _GREY_TOLERANCE
            near = np.asarray(ends.all(axis=0))
            if not _MIN_SHARE <= share_of(near) < 1:
                continue
            empty = np.isnan(self.stored).all(axis=0)
            share = share_of(_at_edge(np.asarray(near | empty)) & near)
            if share >= _MIN_SHARE:
                what = f"are within {_GREY_TOLERANCE} of {value} in all bands, connected to the edge"
                return Fill(share, what, is_one_value=False)
        return None

    def _lowest_of_all(self) -> Fill | None:
        """Pixels with the lowest value of every band, which is no chance in several bands of many grey levels.

        In one band only pieces count: values that were clipped, as after subtraction of noise, are scattered.
        """
        lowest = self.low
        filled = np.asarray((self.stored == lowest[:, None, None]).all(axis=0))
        if (lowest != lowest[0]).any() or not _MIN_SHARE <= share_of(filled) < 1:
            return None
        if any(np.unique(band[np.isfinite(band)]).size < _MIN_LEVELS for band in self.stored):
            return None
        if len(lowest) == 1:
            filled = ndimage.binary_opening(filled, np.ones((3, 3)))
        share = share_of(filled)
        return Fill(share, f"are {exact(lowest[0])} in all bands") if share >= _MIN_SHARE else None

    def _one_band_at_edge(self, bands: Sequence[str]) -> Fill | None:
        for name, band, *ends in zip(bands, self.stored, self.low, self.high, strict=True) if len(bands) > 1 else ():
            values, of_edge, share = _constant_from_edge(band[None]) or (np.full(1, np.nan), 0.0, 0.0)
            if of_edge >= _MIN_EDGE_SHARE and values[0] in ends:
                what = f"are {exact(values[0])} in band {name}, connected to the edge"
                return Fill(share, what, is_one_value=False)
        return None


def _constant_from_edge(image: Reals, has_bytes: bool = False) -> tuple[Reals, float, float] | None:
    """The most frequent combination of values at the edge; its share of the edge, and of the image from there on."""
    sides = image[:, [0, -1]], image[:, :, [0, -1]]
    edge = np.concatenate([side.reshape(len(side), -1) for side in sides], axis=1)
    is_known = np.isfinite(edge).all(axis=0)
    known = edge if is_known.all() else edge[:, is_known]
    if not known.size:
        return None
    # as `np.unique(known, axis=1)` would, which takes many times as long
    is_packed = len(known) == 1 or (has_bytes and len(known) <= _MAX_BYTES)
    keys = np.polyval(known, 256.0)[None] if is_packed else known
    ordered = np.sort(keys) if is_packed else keys[:, np.lexsort(keys[::-1])]
    changes = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    starts = np.flatnonzero(np.concatenate([[True], changes, [True]]))
    counts = np.diff(starts)
    frequent = ordered[:, starts[counts.argmax()]]
    values = known[:, (keys == frequent[:, None]).all(axis=0).argmax()]
    filled = np.ones(image.shape[1:], bool)
    for band, value in zip(image, values, strict=True):
        filled &= band == value
        if share_of(filled) < _MIN_SHARE:
            return None
    # Pieces of n pixels at the edge have n links between neighbours or more, but for one that each has on the edge.
    links = np.count_nonzero(filled[1:] & filled[:-1]) + np.count_nonzero(filled[:, 1:] & filled[:, :-1])
    if filled.all() or links + counts.max() < _MIN_SHARE * filled.size:  # few: labels of pieces take longer
        return None
    share = share_of(_at_edge(filled))
    return None if share < _MIN_SHARE else (values, counts.max() / edge.shape[1], share)


def _has_between(band: Reals, low: float, high: float, but: float = math.nan) -> bool:
    """Whether a band has numbers between two, but for one; most bands have in every 64th pixel."""
    return any(((part > low) & (part < high) & (part != but)).any() for part in (band[::8, ::8], band))


def share_of(mask: BoolArray) -> float:
    """Share of the places of a mask that are true; several times as fast as its mean."""
    return np.count_nonzero(mask) / mask.size


def exact(value: float) -> str:
    """A value with the digits by which it can be declared as no data."""
    if math.isfinite(value) and value == round(value) and abs(value) < 2**53:
        return str(round(value))
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return str(single) if float(single) == value else str(float(value))


def _at_edge(filled: BoolArray) -> BoolArray:
    """The pieces of a mask that touch the edge of the image."""
    pieces, count = ndimage.label(filled)
    is_at_edge = np.zeros(count + 1, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        is_at_edge[side] = True
    is_at_edge[0] = False
    return np.asarray(is_at_edge.take(pieces))
