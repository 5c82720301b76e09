"""What files say of their bands in words: colour, wavelength, polarisation, scale of backscatter and unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from tmcnet.raster.inventory.scan import FileSummary

_RANGES_UM = {
    "coastal": (0.40, 0.456),
    "blue": (0.44, 0.53),
    "green": (0.51, 0.60),
    "yellow": (0.58, 0.63),
    "red": (0.61, 0.70),
    "rededge": (0.68, 0.80),
    "nir": (0.75, 1.10),
    "swir1": (1.50, 1.80),
    "swir2": (2.00, 2.50),
    "pan": (0.45, 0.90),
    "vapour": (0.93, 0.96),
    "cirrus": (1.35, 1.40),
    "thermal": (3.50, 14.0),
}
"""Wavelengths of the centre of a band of each colour; ranges overlap where sensors name them differently."""
_RGB, _EDGES = "blue green red", "rededge rededge rededge"
_NUMBERINGS = {
    r"L[CO]0?[89][_\d]|HLS\.L30": f"coastal {_RGB} nir swir1 swir2 pan cirrus thermal thermal",
    r"L[ET]0?[457][_\d]": f"{_RGB} nir swir1 thermal swir2 pan",
    r"T\d\d[A-Z]{3}_\d{8}T|S2[A-D]_MSIL|HLS\.S30": f"coastal {_RGB} {_EDGES} nir vapour cirrus swir1 swir2",
    r"M[OY]D\d\d": "red nir blue green nir swir1 swir2",
    r"AST_": "green red",
}
"""Bands in the order of their numbers, by names of files: Landsat 8 and 9, 4 to 7, Sentinel-2, MODIS, ASTER."""
_OTHER_WORDS = {"nir08": ("nir",), "swir16": ("swir1",), "swir22": ("swir2",), "swir": ("swir1", "swir2")}
_SPELLINGS = {
    r"ultra[\W_]*blue": "coastal",
    r"red[\W_]*edge\w*": "rededge",
    r"near[\W_]*infra[\W_]*red": "nir",
    r"(short[\W_]*wave[\W_]*infra[\W_]*red|swir)[\W_]*([12])\b": r"swir\2",
}
_SCALE_OF_RTC = re.compile(r"_RTC\d\d_G_[gs]([pad])")  # in the names that HyP3 of ASF gives
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(nm|nanomet|um|µm|micromet)", re.IGNORECASE)
_BAND_CODE = re.compile(r"[a-z]+\d+[a-z]?|[hv]{2}")
_POLARISATION = re.compile(r"[hv]{2}")
_SCALES = {
    **dict.fromkeys(("db", "decibel", "decibels"), "db"),
    **dict.fromkeys(("amplitude", "amp"), "amplitude"),
    **dict.fromkeys(("intensity", "power", "linear"), "linear"),
}
_UNITS = {
    **dict.fromkeys(("metre", "meter", "metres", "meters"), "m"),
    **dict.fromkeys(("dl", "1", "unitless", "dimensionless", "reflectance"), "1"),
    **dict.fromkeys(("foot", "feet", "us survey foot", "ftus", "us-ft", "foot_us"), "ft"),
}


class Statement(NamedTuple):
    """What a file says of one of its bands; empty where it says nothing."""

    text: str  # its description and wavelength, or else the name of its file, for messages
    colours: frozenset[str]  # those it can be
    polarisation: str
    unit: str
    is_described: bool = True  # whether it says more than the name of its file

    def contradicts(self, other: Statement) -> bool:
        """Whether both cannot be said of one band."""
        colours = bool(self.colours and other.colours) and not self.colours & other.colours
        pairs = (self.polarisation, other.polarisation), (self.unit, other.unit)
        described = [one for one in (self, other) if one.is_described and (one.colours or one.polarisation)]
        sensors = {bool(one.colours) for one in described}  # optical or SAR
        return len(sensors) == 2 or colours or any(all(pair) and pair[0] != pair[1] for pair in pairs)


def statements(files: Sequence[FileSummary], scene: str = "") -> list[Statement]:
    """What each band of a stack is by its description, unit and wavelength, or by the name of its file.

    Words of the name of the scene do not count, nor codes that only number the bands.
    """
    found = []
    for file, own in zip(files, _own_words(files), strict=True):
        header = file.header
        names = ["" if _only_numbers(header.names) else name or own for name in header.names]
        for name, wavelength, unit in zip(names, header.wavelengths, header.units, strict=True):
            text = f"{name} {f'{wavelength:g} um' if wavelength else ''}".strip()
            polarisation = _polarisation(name or file.name, scene)
            colours = _colours(text, _numberings(file.name))
            found.append(Statement(text or file.name, colours, polarisation, unit_of(unit), bool(text)))
    return found


def of_config(bands: Sequence[str]) -> list[Statement]:
    """What the names of bands in the config say of them."""
    numbered = _only_numbers(tuple(bands))
    return [Statement(band, _colours("" if numbered else band), _polarisation(band), "") for band in bands]


@cache
def _only_numbers(names: tuple[str, ...]) -> bool:
    """Whether names only number the bands, from 0 or 1 on; then a code such as b2 means no colour."""
    plain = [_plain(name) for name in names]
    return any(plain == [f"b{n}" for n in range(first, first + len(plain))] for first in (0, 1))


def stated_scale(file: FileSummary) -> tuple[str, str]:
    """Scale of backscatter that descriptions or units of all bands name, or the name of the file; and that text."""
    texts = [f"{name} {unit}".strip() for name, unit in zip(file.header.names, file.header.units, strict=True)]
    scales = [{_SCALES[word] for word in _words(text) if word in _SCALES} for text in texts]
    scales = [{"db"} if "db" in of_band else of_band for of_band in scales]  # an intensity in decibels is both
    chosen = set().union(*scales)
    if len(chosen) == 1 and all(scales):
        return chosen.pop(), next(filter(None, texts))
    for name in [] if chosen else (path.rpartition("/")[2] for path in file.header.files):  # or of those behind a VRT
        named = _SCALE_OF_RTC.search(name)
        if named or "amplitude" in _words(name):
            return {"p": "linear", "a": "amplitude", "d": "db"}[named[1] if named else "a"], name
    return "", ""


def unit_of(text: str) -> str:
    """A unit in one spelling."""
    return _UNITS.get(text.strip().casefold(), text.strip().casefold())


def band_order(files: Sequence[FileSummary]) -> list[str]:
    """The description of each band, or what is in the name of its file only; empty if there is a band without."""
    bands = [band or own for file, own in zip(files, _own_words(files), strict=True) for band in file.header.names]
    return bands if all(bands) else []


def _own_words(files: Sequence[FileSummary]) -> list[str]:
    """The words in the name of each file of a stack that not all of them have."""
    words = [set(re.split(r"[\W_]+", file.name)) for file in files]
    return [" ".join(sorted(of_file - set.intersection(*words))) for of_file in words]


def misplaced(bands: Sequence[str], files: Sequence[FileSummary]) -> Iterator[tuple[str, str]]:
    """Yield files that by descriptions, marked colours or names have these bands in another order, and by which."""
    number_of = {_plain(band): number for number, band in enumerate(bands)}
    # Composites of other bands are marked as red, green and blue as well, for the screen.
    has_colours = {"red", "green", "blue"} <= number_of.keys()
    described = [
        (file.label, band or (colour if has_colours else ""))
        for file in files
        for band, colour in zip(file.header.names, file.header.marked, strict=True)
    ]
    placed = ((n, label, _described_band(band, number_of)) for n, (label, band) in enumerate(described) if band)
    moved = [label for n, label, place in placed if place not in (None, n)]
    if moved:
        texts = ", ".join(band or "nameless" for label, band in described if label == moved[0])
        yield moved[0], f"describes its bands as {texts}"
    if len(files) != len(bands):
        return
    named = {band: number for band, number in number_of.items() if not band.isdigit()}
    words = [set(map(_plain, _words(file.name))) & set(named) for file in files]
    if any(len(found) != 1 for found in words):
        return
    order = [named[word] for found in words for word in found]
    if len(set(order)) == len(order) and order != sorted(order):
        texts = ", ".join(bands[number] for number in order)
        yield ", ".join(file.label for file in files), f"are by their names the bands {texts}"


def _described_band(description: str, number_of: Mapping[str, int]) -> int | None:
    """The number of the band that a description names, as a whole or by a code in it such as B04 or VV."""
    whole = number_of.get(_plain(description))
    words = set(map(_plain, _words(description)))
    codes = [number_of[word] for word in words if word in number_of and _BAND_CODE.fullmatch(word)]
    return whole if whole is not None or len(codes) != 1 else codes[0]


@cache
def _plain(band: str) -> str:
    """A band name without capitals and leading zeros: B4 and B04 are one."""
    return re.sub(r"(?<=[a-z])0+(?=\d)", "", band.casefold())


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(re.split(r"[\W_]+", text.casefold()))


def _polarisation(text: str, but: str = "") -> str:
    """The only polarisation, such as vv, among the words of a text that are not in `but`; empty without one."""
    found = [word for word in _words(text) - _words(but) if _POLARISATION.fullmatch(word)]
    return found[0] if len(found) == 1 else ""


@cache
def _numberings(name: str) -> tuple[str, ...]:
    """Bands of the sensor of a file by its name, in the order of their numbers; of all sensors if it is unknown."""
    own = tuple(bands for words, bands in _NUMBERINGS.items() if re.search(words, name))
    return own or tuple(_NUMBERINGS.values())


@cache
def _colours(text: str, numberings: tuple[str, ...] = tuple(_NUMBERINGS.values())) -> frozenset[str]:
    """The colours that a band can be by the wavelength in a text, else by its words or a code; empty if unknown."""
    if match := _WAVELENGTH.search(text):
        centre = float(match[1]) / (1000 if match[2].lower().startswith("n") else 1)
        return frozenset(name for name, (low, high) in _RANGES_UM.items() if low <= centre <= high)
    for spelling, name in _SPELLINGS.items():
        text = re.sub(spelling, name, text, flags=re.IGNORECASE)
    words = _words(text)
    known = [set(_OTHER_WORDS.get(word, (word,))) for word in words if word in _RANGES_UM or word in _OTHER_WORDS]
    of_code = {"b8a": {"nir"}}
    for bands in numberings:
        for number, band in enumerate(bands.split(), 1):
            of_code.setdefault(f"b{number}", set()).add(band)
    known = known or [of_code[code] for word in words if (code := _plain(word)) in of_code]
    return frozenset(known[0]) if len(known) == 1 else frozenset()
