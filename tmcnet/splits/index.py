"""The tile index as the splits see it: sorted by tile, checked, and as arrays; and tiles that are too close."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree

from tmcnet.config import Budget, SplitsConfig
from tmcnet.errors import InputError, Problem, format_names
from tmcnet.raster.io.geometry import geocentric
from tmcnet.readers import REMEDY, reading

IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float64]
AreaArray: TypeAlias = npt.NDArray[np.int32]
Names: TypeAlias = npt.NDArray[np.object_]

_WINDOW = ["row", "col", "height", "width"]
_ALIGNMENT, _SUBSETS = "alignment_px", "field_subsets"
_CENTRE, _PIXEL, _CIRCLE = ["x", "y"], ["pixel_x", "pixel_y"], ["lon", "lat", "radius_metres"]
_GROUND = [*_CENTRE, *_PIXEL, "pixel_metres", "north_up", *_CIRCLE]


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
        centre: N x 2: row and column of the centre of ready-made tiles, which have no place in a scene, in pixels of
            their size from the origin of their CRS; NaN for others.
        region: N numbers of the CRSs of ready-made tiles; -1 for others.
        regions: Names of these CRSs.
    """

    crs: IntArray
    window: IntArray
    metres: FloatArray
    circle: FloatArray | None
    centre: FloatArray
    region: IntArray
    regions: list[str]

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
        scene: N numbers of scenes. A tile without a known place in a scene counts as one.
        scenes: Names of the scenes by number.
        window: N x 4: row, column, height and width in the scene, in pixels.
        labelled: N; whether any pixel has a label.
        area: N x K labelled pixels of each class. Whole numbers, so that sums do not depend on their order.
        classes: K names.
        column: N values of the column that methods `column` and `given` use; else None.
        given: The label fractions that the source gives, of those in the config: N flags by name of the list.
        ground: Places of the tiles on the ground; None where nothing is known.
        misalignment: N residuals of the registration at the tile in pixels, NaN where unknown; None unless the config
            limits them.
    """

    tiles: Names
    scene: IntArray
    scenes: list[str]
    window: IntArray
    labelled: BoolArray
    area: AreaArray
    classes: list[str]
    column: Names | None = None
    given: dict[str, BoolArray] = field(default_factory=dict)
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

    The section `splits` decides which columns are needed.

    Raises:
        InputError: If columns are missing, a tile is listed twice, a number is missing or out of its range, or no
            tile has a label; lists every such problem.
    """
    if not path.is_file():
        raise InputError(Problem(str(path), "does not exist", "Run the same command again: the workflow makes it."))
    group = f"field_{config.column}" if config.method in ("column", "given") else None
    fields = [name for name in (group, _SUBSETS if config.given_fractions else None) if name]
    alignment = [] if config.max_misalignment is None else [_ALIGNMENT]
    with reading(path):
        header = pd.read_csv(path, nrows=0).columns.tolist()
    shares = [name for name in header if name.startswith("share_")]
    _check_columns(path, header, ["tile", "scene", "role", *fields, *alignment, *_WINDOW, "label_share"], shares)
    places = [name for name in _GROUND if name in header]
    texts = dict.fromkeys(["tile", "scene", *fields], "str") | dict.fromkeys({"role", "crs"} & {*header}, "category")
    frame = _read(path, texts, [*_WINDOW, "label_share", *shares, *places, *alignment])
    frame = frame[frame["role"] != "predict"].sort_values("tile", kind="stable", ignore_index=True)
    _check_rows(path, frame, shares, group)
    scene, scenes = _scenes(frame)
    window = frame[_WINDOW].to_numpy(np.int64)
    pixels = frame["label_share"].to_numpy() * (window[:, 2] * window[:, 3])
    area = np.empty((len(frame), len(shares)), np.int32)
    for k, name in enumerate(shares):
        area[:, k] = np.rint(np.nan_to_num(frame[name].to_numpy()) * pixels)
    return TileIndex(
        tiles=frame["tile"].to_numpy(object),
        scene=scene,
        scenes=scenes,
        window=window,
        labelled=frame["label_share"].to_numpy() > 0,
        area=area,
        classes=[name.removeprefix("share_") for name in shares],
        column=frame[group].to_numpy(object) if group else None,
        given=_given_fractions(frame[_SUBSETS], config) if config.given_fractions else {},
        ground=_locate(frame, window),
        misalignment=frame[_ALIGNMENT].to_numpy(np.float64) if alignment else None,
    )


def _read(path: Path, texts: dict[str, str], numbers: list[str]) -> pd.DataFrame:
    """Read columns of text (by type) and of numbers; a number that cannot be read becomes NaN."""
    wanted = [*texts, *numbers]
    types = texts | dict.fromkeys(numbers, "float64")
    empty = {name: ["", "nan", "NaN"] for name in numbers}
    try:
        return pd.read_csv(path, usecols=wanted, dtype=types, keep_default_na=False, na_values=empty)
    except ValueError:
        with reading(path):
            frame = pd.read_csv(path, usecols=wanted, dtype="str", keep_default_na=False)
        return frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in numbers})


def _check_columns(path: Path, header: list[str], columns: list[str], shares: list[str]) -> None:
    fields = [column.removeprefix("field_") for column in header if column.startswith("field_")]
    remedies = {
        _ALIGNMENT: f"{REMEDY} Or set `splits.max_misalignment` to null.",
        _SUBSETS: "Only layout `seed` comes with label subsets; set `splits.given_fractions` to false.",
    }
    problems = []
    for name in dict.fromkeys(columns):
        if name not in header:
            remedy = f"Set `splits.column` to a field of the source; it has {fields}."
            remedy = remedies.get(name, remedy if name.startswith("field_") else REMEDY)
            problems.append(Problem(str(path), f"has no column `{name}`", remedy))
    if not shares:
        problems.append(Problem(str(path), "has no columns `share_<class>`", REMEDY))
    if problems:
        raise InputError(problems)


def _check_rows(path: Path, frame: pd.DataFrame, shares: list[str], group: str | None) -> None:
    problems: list[Problem] = []

    def check(wrong: pd.Series[bool], what: str, remedy: str = REMEDY) -> None:
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
    if group:
        check(frame[group] == "", f"`{group}` is empty", "Give every tile a value, or exclude these tiles.")
    if not labelled.any():
        remedy = "Check the label files and `labels`; without labels nothing is learnt."
        problems.append(Problem(str(path), f"none of its {len(frame)} tiles has a label", remedy))
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


def _given_fractions(subsets: pd.Series[str], config: SplitsConfig) -> dict[str, BoolArray]:
    """Flags of the tiles of each label fraction of the config that the source gives, from texts such as `R1;R5`."""
    members: dict[str, list[int]] = {}
    for position, text in enumerate(subsets):
        for subset in {name.strip() for name in text.split(";") if text}:
            members.setdefault(f"train{subset}", []).append(position)
    budgets = [Budget("R", f) for f in config.fractions if f < 100]
    names = [budget.subset(draw) for draw in range(1, config.subsets + 1) for budget in budgets]
    return {name: np.isin(np.arange(len(subsets)), members[name]) for name in names if name in members}


def _locate(frame: pd.DataFrame, window: IntArray) -> Ground | None:
    """Ground of the tiles; None where no tile has any. Without a column `north_up`, tiles count as north up."""
    if not {"crs", *_CENTRE, *_PIXEL, "pixel_metres"} <= set(frame.columns):
        return None
    center, pixel = frame[_CENTRE].to_numpy(np.float64), frame[_PIXEL].to_numpy(np.float64)
    placed = (frame["crs"] != "").to_numpy() & np.isfinite(center).all(axis=1) & (pixel > 0).all(axis=1)
    if not placed.any():
        return None
    codes, names = pd.factorize(frame["crs"].astype(str), sort=True)
    crs = np.where(placed, codes, -1).astype(np.int64)
    turned = frame["north_up"].to_numpy() == 0 if "north_up" in frame else np.zeros(len(frame), bool)
    circle = None
    if set(_CIRCLE) <= set(frame.columns) and (turned.any() or (crs[placed] != crs[placed][0]).any()):
        lon, lat, radius = frame[_CIRCLE].to_numpy(np.float64).T
        circle = np.column_stack([geocentric(lon, lat), radius])
        crs[turned & np.isfinite(circle).all(axis=1)] = -1
    metres = frame["pixel_metres"].to_numpy(np.float64)
    ready_made = placed & ((frame["scene"] == "") | (frame["scene"] == frame["tile"])).to_numpy()
    middle = np.where(ready_made[:, None], (center * (1, -1) / pixel)[:, ::-1], np.nan)
    region = np.where(ready_made, codes, -1).astype(np.int64)
    return Ground(crs, _on_grid(crs, center, pixel, window), metres, circle, middle, region, list(names))


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


def close_pairs(index: TileIndex, key: IntArray, guard: int) -> IntArray:
    """Pairs of tiles with different keys (N) whose windows overlap once one of them is widened by the guard band.

    Windows are compared within scenes and, where the place on the ground is known, between scenes of one CRS. Between
    scenes of different CRSs, or turned ones, circles around the tiles are compared, see `_close_circles`. The band is
    in pixels. Returns M x 2 positions in the index, the smaller first, sorted.
    """
    keys = pd.Series(key).groupby(index.scene)
    mixed = np.flatnonzero(keys.transform("min") != keys.transform("max"))
    pairs = _close_windows(mixed, index.scene, index.window, guard)
    if index.ground is not None and len(index.scenes) > 1:
        placed = np.flatnonzero(index.ground.crs >= 0)
        windows = _close_windows(placed, index.ground.crs, index.ground.window, guard)
        others = np.concatenate([windows, _close_circles(index.ground, guard)])
        pairs = np.concatenate([pairs, others[index.scene[others[:, 0]] != index.scene[others[:, 1]]]])
    pairs = pairs[key[pairs[:, 0]] != key[pairs[:, 1]]]
    ordered: IntArray = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def _close_windows(chosen: IntArray, place: IntArray, window: IntArray, guard: int) -> IntArray:
    """Pairs among the chosen tiles in the same place (scene or CRS) that are closer than the guard band."""
    if chosen.size == 0:
        return np.empty((0, 2), np.int64)
    corner, size = window[chosen, :2], window[chosen, 2:]
    # Two windows can only be close if their centres are: the distance in units of the largest reach is then below 1,
    # and at most 1 less half a pixel. A radius between the two leaves out neighbours that merely touch.
    reach = int(size.max()) + guard
    points = np.column_stack([place[chosen] * 4.0, (2 * corner + size) / (2 * reach)])
    pairs = cKDTree(points).query_pairs(1 - 0.25 / reach, p=np.inf, output_type="ndarray")
    a, b = pairs.T
    close = (corner[a] < corner[b] + size[b] + guard) & (corner[b] < corner[a] + size[a] + guard)
    return np.sort(chosen[pairs[close.all(axis=1)]], axis=1)


def _close_circles(ground: Ground, guard: int) -> IntArray:
    """Pairs of tiles without a common grid whose circles may share ground.

    Circles are larger than windows. Tiles are too close where the distance between the centres is below the sum of
    the radii and the guard band, in the larger pixels of the two.
    """
    if ground.circle is None:
        return np.empty((0, 2), np.int64)
    band = guard * ground.metres
    chosen = np.flatnonzero(np.isfinite(ground.circle).all(axis=1) & np.isfinite(band))
    center, radius, crs = ground.circle[:, :3], ground.circle[:, 3], ground.crs
    largest = 2 * float(radius[chosen].max(initial=0)) + float(band[chosen].max(initial=0))
    pairs = np.sort(chosen[cKDTree(center[chosen]).query_pairs(largest, output_type="ndarray")], axis=1)
    a, b = pairs.T
    near = np.linalg.norm(center[a] - center[b], axis=1) < radius[a] + radius[b] + np.maximum(band[a], band[b])
    close: IntArray = pairs[near & ((crs[a] != crs[b]) | (crs[a] < 0))]
    return close
