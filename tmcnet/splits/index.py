"""The tile index as the splits see it: sorted by tile, checked, and as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.io.geometry import geocentric

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float64]
Names: TypeAlias = npt.NDArray[np.object_]

_TEXT = ["tile", "scene", "role"]
_WINDOW = ["row", "col", "height", "width"]
_ALIGNMENT = "alignment_px"
_REMEDY = "Run the tiling stage again."
_CENTRE = ["x", "y"]
_PIXEL = ["pixel_x", "pixel_y"]
_CIRCLE = ["lon", "lat", "radius_metres"]
_NORTH_UP = "north_up"
_GROUND = [*_CENTRE, *_PIXEL, "pixel_metres", _NORTH_UP, *_CIRCLE]


@dataclass(frozen=True)
class Ground:
    """Places of N tiles on the ground.

    Attributes:
        crs: N numbers of coordinate reference systems; -1 where the place or the size of a pixel is unknown, or the
            tile is turned against the axes of its CRS and has a circle.
        window: N x 4: row, column, height and width on one grid per CRS, whose pixels are the smallest of the CRS and
            whose rows run south; zeros where the place is unknown.
        metres: N sides of a pixel in metres; NaN where unknown.
        circle: N x 4: geocentric centre and radius, in metres, of a circle that holds the tile; NaN where unknown.
            None where windows suffice: one CRS and no tile turned, or an index without circles.
    """

    crs: IntArray
    window: IntArray
    metres: FloatArray
    circle: FloatArray | None = None

    @property
    def known(self) -> BoolArray:
        """N flags: tiles that can be compared with those of other scenes, by window or by circle."""
        window = self.crs >= 0
        return window if self.circle is None else window | np.isfinite(self.circle).all(axis=1)


@dataclass(frozen=True)
class TileIndex:
    """What the splits need to know of N tiles and K classes; tiles are sorted by name.

    Attributes:
        tiles: N names.
        scene: N numbers of scenes. A tile without a known place in a scene is a scene by itself.
        scenes: Names of the scenes by number.
        window: N x 4: row, column, height and width in the scene, in pixels.
        labelled: N; whether any pixel has a label.
        area: N x K labelled pixels of each class. Whole numbers, so that sums do not depend on their order.
        classes: K names.
        field: N values of the column that methods `column` and `given` use; else None.
        subsets: N label subsets given by the source, such as `R1;R5`; None unless the config uses them.
        ground: Places of the tiles on the ground; None where nothing is known.
        misalignment: N residuals of the registration at the tile in pixels, NaN where unknown; None unless the config
            limits them.
    """

    tiles: Names
    scene: IntArray
    scenes: list[str]
    window: IntArray
    labelled: BoolArray
    area: npt.NDArray[np.int32]
    classes: list[str]
    field: Names | None = None
    subsets: Names | None = None
    ground: Ground | None = None
    misalignment: FloatArray | None = None

    @property
    def pixel_side(self) -> float | None:
        """Side of a pixel in metres, if it is known and about the same (to 1 %) for all tiles; else None."""
        if self.ground is None or not np.isfinite(self.ground.metres).all():
            return None
        low, high = float(self.ground.metres.min()), float(self.ground.metres.max())
        return float(np.median(self.ground.metres)) if 0 < high <= low * 1.01 else None


def read_index(path: Path, config: SplitsConfig) -> TileIndex:
    """Read the index; rows of scenes that are only mapped (role `predict`) are left out.

    Args:
        path: `tiles/index.csv`.
        config: The section `splits`; decides which columns are needed.

    Raises:
        InputError: If columns are missing, a tile is listed twice, a number is missing or out of its range, or no
            tile has a label; lists every such problem.
    """
    if not path.is_file():
        raise InputError(Problem(str(path), "does not exist", "Make the tiles first."))
    field = f"field_{config.column}" if config.method in ("column", "given") else None
    subsets = "field_subsets" if config.given_fractions else None
    alignment = [] if config.max_misalignment is None else [_ALIGNMENT]
    texts = [*_TEXT, *dict.fromkeys(name for name in (field, subsets) if name)]
    header = pd.read_csv(path, nrows=0).columns.tolist()
    shares = [name for name in header if name.startswith("share_")]
    _check_columns(path, header, [*texts, *alignment], shares)
    places = [name for name in _GROUND if name in header]
    frame = _read(path, texts, [*_WINDOW, "label_share", *shares, *places, *alignment], "crs" in header)
    frame = frame[frame["role"] != "predict"].sort_values("tile", kind="stable", ignore_index=True)
    _check_rows(path, frame, shares, field)
    scene, scenes = _scenes(frame)
    window = frame[_WINDOW].to_numpy(np.int64)
    pixels = frame["label_share"].to_numpy() * (window[:, 2] * window[:, 3])
    area = np.empty((len(frame), len(shares)), np.int32)
    for k, name in enumerate(shares):
        area[:, k] = np.rint(np.nan_to_num(frame[name].to_numpy()) * pixels)
    return TileIndex(
        frame["tile"].to_numpy(object),
        scene,
        scenes,
        window,
        frame["label_share"].to_numpy() > 0,
        area,
        [name.removeprefix("share_") for name in shares],
        frame[field].to_numpy(object) if field else None,
        frame[subsets].to_numpy(object) if subsets else None,
        _locate(frame, window),
        frame[_ALIGNMENT].to_numpy(np.float64) if alignment else None,
    )


def _read(path: Path, texts: list[str], numbers: list[str], with_crs: bool) -> pd.DataFrame:
    """Read these columns; a number that cannot be read becomes NaN."""
    types = {**dict.fromkeys(texts, "str"), "role": "category", **({"crs": "category"} if with_crs else {})}
    wanted = [*types, *numbers]
    try:
        return pd.read_csv(
            path,
            usecols=wanted,
            dtype={**types, **dict.fromkeys(numbers, "float64")},
            keep_default_na=False,
            na_values={name: ["", "nan", "NaN"] for name in numbers},
        )
    except ValueError:
        frame = pd.read_csv(path, usecols=wanted, dtype="str", keep_default_na=False)
        return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in numbers})


def _check_columns(path: Path, header: list[str], columns: list[str], shares: list[str]) -> None:
    problems = [
        Problem(str(path), f"has no column `{name}`", _column_remedy(name, header))
        for name in [*columns, *_WINDOW, "label_share"]
        if name not in header
    ]
    if not shares:
        problems.append(Problem(str(path), "has no columns `share_<class>`", _REMEDY))
    if problems:
        raise InputError(problems)


def _column_remedy(name: str, header: list[str]) -> str:
    if name == _ALIGNMENT:
        return "Run the tiling stage again, or set `splits.max_misalignment` to null."
    if name == "field_subsets":
        return "Only layout `seed` comes with label subsets; set `splits.given_fractions` to false."
    if name.startswith("field_"):
        known = [column.removeprefix("field_") for column in header if column.startswith("field_")]
        return f"Set `splits.column` to a field of the source; it has {known}."
    return _REMEDY


def _check_rows(path: Path, frame: pd.DataFrame, shares: list[str], field: str | None) -> None:
    problems: list[Problem] = []

    def check(wrong: pd.Series[bool], what: str, remedy: str = _REMEDY) -> None:
        if wrong.any():
            tiles = format_names(frame["tile"][wrong].unique())
            problems.append(Problem(str(path), f"{what}: {tiles}", remedy))

    check(frame["tile"].duplicated(), "names tiles twice")
    check(frame["tile"].str.strip() == "", "has rows without a tile name")
    for name in _WINDOW:
        lowest = 1 if name in ("height", "width") else -(2**31)
        check(~(frame[name] >= lowest) | (frame[name] % 1 != 0), f"`{name}` is no proper whole number")
    check(~frame["label_share"].between(0, 1), "`label_share` is not between 0 and 1")
    labelled = frame["label_share"] > 0
    for name in shares:
        wrong = ~frame[name].between(0, 1) & (labelled | frame[name].notna())
        check(wrong, f"`{name}` is not between 0 and 1")
    if field:
        check(frame[field] == "", f"`{field}` is empty", "Give every tile a value, or exclude these tiles.")
    if not labelled.any():
        what = f"none of its {len(frame)} tiles has a label"
        problems.append(
            Problem(str(path), what, "Check the label files and `labels`; without labels nothing is learnt.")
        )
    if problems:
        raise InputError(problems)


def _scenes(frame: pd.DataFrame) -> tuple[IntArray, list[str]]:
    """Numbers and names of scenes.

    Ready-made tiles may have no scene, or one name for all and the same window: their place in it is unknown, and
    each counts as a scene.
    """
    codes, _ = pd.factorize(frame["scene"])
    first = frame[["row", "col"]].groupby(codes)
    same = (first.transform("min") == first.transform("max")).all(axis=1).to_numpy()
    placeless = (frame["scene"] == "").to_numpy() | (same & (np.bincount(codes)[codes] > 1))
    names = frame["scene"].mask(placeless, frame["tile"]) if placeless.any() else frame["scene"]
    codes, unique = pd.factorize(names)
    return codes.astype(np.int64), [str(name) for name in unique]


def _locate(frame: pd.DataFrame, window: IntArray) -> Ground | None:
    """Ground of the tiles; None where no tile has any. Without a column `north_up`, tiles count as north up."""
    if not {"crs", *_CENTRE, *_PIXEL, "pixel_metres"} <= set(frame.columns):
        return None
    center, pixel = frame[_CENTRE].to_numpy(np.float64), frame[_PIXEL].to_numpy(np.float64)
    known = (frame["crs"] != "").to_numpy() & np.isfinite(center).all(axis=1) & (pixel > 0).all(axis=1)
    if not known.any():
        return None
    codes, _ = pd.factorize(frame["crs"].astype(str), sort=True)
    crs = np.where(known, codes, -1).astype(np.int64)
    turned = frame[_NORTH_UP].to_numpy() == 0 if _NORTH_UP in frame else np.zeros(len(frame), bool)
    circle = None
    if set(_CIRCLE) <= set(frame.columns) and (turned.any() or (crs[known] != crs[known][0]).any()):
        lon, lat, radius = frame[_CIRCLE].to_numpy(np.float64).T
        circle = np.column_stack([geocentric(lon, lat), radius])
        crs[turned & np.isfinite(circle).all(axis=1)] = -1
    return Ground(crs, _on_grid(crs, center, pixel, window), frame["pixel_metres"].to_numpy(np.float64), circle)


def _on_grid(crs: IntArray, center: FloatArray, pixel: FloatArray, window: IntArray) -> IntArray:
    """Windows (N x 4) on one grid of the smallest pixels of each CRS."""
    result = np.zeros_like(window)
    for code in np.unique(crs[crs >= 0]):
        chosen = crs == code
        unit = pixel[chosen].min(axis=0)
        sides = window[chosen][:, [3, 2]] * pixel[chosen] / unit
        corner = center[chosen] * (1, -1) / unit - sides / 2
        corner -= corner[0]  # grids often begin at half a pixel, where rounding would go either way
        result[chosen] = np.rint(np.hstack([corner[:, ::-1], sides[:, ::-1]])).astype(np.int64)
    return result
