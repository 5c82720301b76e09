"""Convert the codes or colours of label files to class ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.classes import ClassTable
from tmcnet.config import IGNORE, LabelsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.io.files import BoolArray, ByteArray, pad_to_window
from tmcnet.raster.io.geometry import Box
from tmcnet.raster.io.reader import Raster

Unknown: TypeAlias = Counter[int]
"""Pixel counts of codes without a meaning, by code (colours packed as `r * 65536 + g * 256 + b`)."""


NOT_WHOLE = -(2**53)
"""Key of `Unknown` for fractions, NaN, complex numbers, numbers too large to be exact in double precision, and
colours that are not of 8 bits."""


_MAX_CODE = np.iinfo(np.int64).max
_FEW_CODES = 16  # up to here it is faster to compare with each than to count in a table or to sort


class LabelCoder:
    """Translate label files to ids 0..K-1 with 255 for void.

    A code of a class always means that class, even if it is the no-data value of the file; a pixel that the file
    masks, and every code of `labels.void`, is void. Any other code is unknown, which is an error.
    """

    def __init__(
        self, labels: LabelsConfig, classes: ClassTable, encoding: Literal["ids", "rgb"] | None = None
    ) -> None:
        """Prepare the translation; `encoding` replaces `labels.encoding`, where the source defines it.

        Where `labels.classes` is empty the ids of the classes are the codes (255 is void then), and their colours
        those of RGB-coded files.
        """
        self.encoding = encoding or labels.encoding
        self.band = labels.band
        pairs: list[tuple[int, int]] = []
        if self.encoding == "rgb":
            pairs += [(_pack(color), IGNORE) for color in labels.void_rgb]
            given = [c.rgb for c in labels.classes] or [c.rgb for c in classes.classes]
            pairs += [(_pack(color), i) for i, color in enumerate(given) if color is not None]
        else:
            codes = [c.codes for c in labels.classes] or [[c.id] for c in classes.classes]
            pairs += [(code, IGNORE) for code in labels.void] + ([] if labels.classes else [(IGNORE, IGNORE)])
            pairs += [(code, i) for i, class_codes in enumerate(codes) for code in class_codes]
        table = dict(pairs)
        self._codes = np.array(sorted(table), np.int64)
        self._ids = np.array([table[code] for code in sorted(table)], np.int16)
        self._tables: dict[np.dtype[Any], npt.NDArray[np.int16]] = {}
        self._of_classes = {code for code in table if table[code] != IGNORE}

    def encode(
        self, values: npt.NDArray[Any], valid: BoolArray, mask: BoolArray | None = None
    ) -> tuple[ByteArray, Unknown]:
        """Translate values of a file, C x H x W codes or colours, to ids H x W; count unknown codes, which are void.

        A pixel that `mask` excludes is void with any value; one that is not valid, unless its code is a class.
        """
        codes = self._keys(values)
        if codes.dtype.itemsize <= 2:
            table = self._tables.get(codes.dtype)
            if table is None:
                table = self._tables[codes.dtype] = self._find(_all_numbers(codes.dtype))
            ids = table.take(codes.view(f"u{codes.dtype.itemsize}"))
        else:
            ids = self._find(codes)
        strange = (ids < 0) & valid
        if mask is not None:
            strange &= mask
            ids[~mask] = IGNORE
        return ids.astype(np.uint8), _tally(codes[strange]) if strange.any() else Counter()

    def count(self, values: npt.NDArray[Any]) -> Counter[int]:
        """Count pixels by code (colours packed as in `Unknown`) in values read from a file, C x H x W."""
        codes = self._keys(values)
        if len(self._codes) <= _FEW_CODES:
            pairs = ((code, np.count_nonzero(codes == code)) for code in self._codes.tolist())
            counts = Counter({code: count for code, count in pairs if count})
            if counts.total() == codes.size:
                return counts
        counts = _tally(codes)
        del counts[NOT_WHOLE]
        return counts

    def format_code(self, code: int) -> str:
        """A code for people: the number, or red, green and blue."""
        return str((code >> 16, (code >> 8) & 255, code & 255)) if self.encoding == "rgb" else str(code)

    def _keys(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One whole number per pixel; `NOT_WHOLE` where it is not equal to the value in the file."""
        if self.encoding == "rgb":
            colours, whole = values[:3], np.ones((), bool)
            if colours.dtype != np.uint8:
                whole = np.asarray(np.isin(colours, np.arange(256)).all(axis=0))
                colours = np.where(whole, colours, 0).real
            red, green, blue = colours.astype(np.int64)
            return np.where(whole, (red << 16) | (green << 8) | blue, NOT_WHOLE)
        band: npt.NDArray[Any] = values[(self.band or 1) - 1]
        if band.dtype == np.uint64:
            return np.where(band <= _MAX_CODE, band.astype(np.int64), NOT_WHOLE)
        if band.dtype.kind in "iu":
            return band
        if band.dtype.kind == "c":
            return np.full(band.shape, NOT_WHOLE)
        whole = np.isfinite(band) & (band == np.trunc(band)) & (np.abs(band) <= -NOT_WHOLE)
        rounded = self._codes.astype(band.dtype)
        if (is_other := rounded != self._codes).any():  # such numbers may be these codes or others
            whole &= ~np.isin(band, rounded[is_other])
        return np.where(whole, band, NOT_WHOLE).astype(np.int64)

    def _find(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
        """Ids of codes, -1 for those without a meaning, which as a byte is 255 as well."""
        at = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return np.where(self._codes[at] == codes, self._ids[at], np.int16(-1))

    def read(self, source: Raster | Path | str, window: Box | None = None) -> ByteArray:
        """Read a label file, or a window of it, as ids H x W; 255 outside. Unknown codes are an error."""
        raster = source if isinstance(source, Raster) else Raster.of(source)
        with raster.open() as opened:
            box = window or (0, 0, *opened.sizes[0])
            (part,) = opened.parts(box)
        self.check_bands(raster.files[0].label, len(part.values))
        ids, unknown = self.encode(part.codes, part.valid[0], part.mask)
        if unknown:
            raise InputError(self.problem(raster.files[0].label, unknown))
        return pad_to_window(ids, box, IGNORE)

    def is_class(self, code: float | None) -> bool:
        """Whether a number is the code of a class, in files of codes."""
        return self.encoding == "ids" and code in self._of_classes

    def check_bands(self, path: Path | str, count: int) -> None:
        """Refuse a file with too few bands for colours, or too many for codes."""
        if self.encoding == "rgb" and count < 3:
            what = f"has {count} band(s), but `labels.encoding: rgb` needs three"
            raise InputError(Problem(str(path), what, "Set `labels.encoding: ids`, or point to the coloured file."))
        if self.encoding == "ids" and self.band is not None and count < self.band:
            what = f"has {count} band(s), but `labels.band` is {self.band}"
            raise InputError(Problem(str(path), what, "Correct `labels.band`; bands count from 1."))
        if self.encoding == "ids" and self.band is None and count > 1:
            what = f"has {count} bands, but `labels.encoding: ids` means one band of codes"
            remedy = "Set `labels.encoding: rgb` if these are colours, or `labels.band` to the band of the codes."
            raise InputError(Problem(str(path), what, remedy))

    def problem(self, path: Path | str, unknown: Unknown) -> Problem:
        """Report the codes of a file that have no meaning."""
        if NOT_WHOLE in unknown and self.encoding == "rgb":
            what = f"holds {unknown[NOT_WHOLE]} pixels whose colour is not three whole numbers from 0 to 255"
            return Problem(str(path), what, "Write 8-bit colours (`gdal_translate -ot Byte -scale ...`).")
        if NOT_WHOLE in unknown:
            reason = "is no whole number, or too large for its type of numbers"
            what = f"holds {unknown[NOT_WHOLE]} pixels whose code {reason}"
            return Problem(str(path), what, "Write whole numbers (`-ot Int32`), with no data as a nodata tag.")
        listed = format_names(f"{self.format_code(code)} ({count} pixels)" for code, count in unknown.items())
        if self.encoding == "rgb":
            what = f"holds {len(unknown)} colours that no class has: {listed}"
            return Problem(str(path), what, "Give each to a class as `rgb`, or add it to `labels.void_rgb`.")
        what = f"holds {len(unknown)} codes that no class has: {listed}"
        return Problem(str(path), what, "Add each to the `codes` of a class, or to `labels.void`.")


def _tally(codes: npt.NDArray[Any]) -> Counter[int]:
    """Number of pixels by code; small whole numbers are counted in a table, which is faster than sorting them."""
    if codes.dtype.kind not in "iu" or codes.dtype.itemsize > 2:
        distinct, counts = np.unique(codes, return_counts=True)
    else:
        numbers = _all_numbers(codes.dtype)
        table = np.bincount(codes.view(f"u{codes.dtype.itemsize}").ravel(), minlength=len(numbers))
        distinct, counts = numbers[table > 0], table[table > 0]
    return Counter(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))


def _all_numbers(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """All whole numbers of a type of one or two bytes, each at the place that it has as an unsigned number."""
    return np.arange(256**dtype.itemsize).astype(f"u{dtype.itemsize}").view(dtype)


def _pack(color: tuple[int, int, int]) -> int:
    return (color[0] << 16) | (color[1] << 8) | color[2]
