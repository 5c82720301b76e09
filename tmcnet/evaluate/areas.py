"""Areas of classes from a map and the errors that it makes, with confidence intervals.

The pixels of a map do not give the areas of the classes: a network that takes a tenth of the forest for cropland
shows too little forest. The stratified estimator (Olofsson et al., 2014, Remote Sensing of Environment 148, eq. 9)
corrects this: the area mapped as class i, times the share of class j among test pixels mapped as i, summed over i.

Its usual variance (eq. 10) takes test pixels for independent, which neighbours are not. Here the sampling units are
the spatial blocks of the test part: the shares are ratios of sums over blocks, and their variance is that of the
linearised residuals of the blocks (Cochran, 1977, section 6.3). Three things widen the intervals:

- The mapped ground is a sample too. Its own errors differ from those of all ground, by as much as those of a test
  part of its size would.
- Residuals of a rare class come from few blocks. Student's distribution gets as many degrees of freedom as blocks
  effectively count: the squared sum of their squares over the sum of their fourth powers.
- Ground mapped as a class that no test pixel is mapped as may be any class, and widens all intervals by its share.

The assumption is that the test blocks represent the mapped ground: a class is mistaken for others as often as in the
test blocks. Areas of another region, season or sensor may be wrong by more than the interval.

In simulations where the assumption holds (`python -m benchmarks areas`), 95 % intervals contain the true area in 94
to 98 % of cases with 12 or more test blocks, but in as few as 83 % for a class with 3 % of the ground, and in 67 %
with six blocks. Intervals that take pixels for independent do so in 4 to 14 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from tmcnet.config import IGNORE
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.geometry import equal_area, pixel_area
from tmcnet.raster.io.reader import label_blocks, read_grid
from tmcnet.raster.io.writer import write_table
from tmcnet.readers import read_rows

Counts: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

WHOLE = "all scenes"
"""In the column `scene`: the sum of all mapped scenes; ground that several of them show counts several times."""
ASSUMPTION = "test blocks represent the mapped ground"
"""What corrected areas and their intervals assume."""
COLUMNS = (
    *("scene", "class", "mapped_pixels", "mapped_ha", "mapped_percent"),
    *("ha", "ha_low", "ha_high", "percent", "percent_low", "percent_high", "confidence", "test_blocks", "assumption"),
)
_PIECE_PX = 256
"""Side of the pieces within which pixels count as equally large, where the projection changes areas."""
_M2_PER_HA = 1e4


@dataclass(frozen=True)
class Mapped:
    """What a map shows of K classes.

    Attributes:
        pixels: Number of pixels, K.
        hectares: Area on the ground, K; None for a map without CRS.
    """

    pixels: Counts
    hectares: Floats | None

    @property
    def shares(self) -> Floats:
        """Share of each class, of the area where it is known; zeros for an empty map."""
        sizes = self.pixels.astype(np.float64) if self.hectares is None else self.hectares
        return np.asarray(sizes / max(sizes.sum(), np.finfo(np.float64).tiny))

    def __add__(self, other: Mapped) -> Mapped:
        measured = self.hectares is not None and other.hectares is not None
        hectares = np.add(self.hectares, other.hectares) if measured else None  # type: ignore[arg-type]
        return Mapped(self.pixels + other.pixels, hectares)


@dataclass(frozen=True)
class Shares:
    """Shares of K classes in the mapped ground, in 0..1, with their limits."""

    estimate: Floats
    low: Floats
    high: Floats


def measure(map_file: Path, classes: int) -> Mapped:
    """Count the pixels of a map by class and sum their areas, geodesic where the projection changes areas."""
    grid = read_grid(map_file)
    pixels, square_metres = np.zeros(classes, np.int64), np.zeros(classes)
    georeferenced = pixel_area(grid) is not None
    side = max(grid.height, grid.width) if equal_area(grid) is None else _PIECE_PX
    for (top, left, height, width), ids in label_blocks(map_file):
        for row in range(0, height, side):
            for column in range(0, width, side):
                piece = ids[row : row + side, column : column + side]
                counts = np.bincount(piece[piece != IGNORE], minlength=classes)
                pixels += counts
                if georeferenced:
                    place = grid.window((top + row, left + column, *piece.shape))
                    square_metres += counts * (pixel_area(place) or np.nan)
    return Mapped(pixels, square_metres / _M2_PER_HA if georeferenced else None)


def estimate_shares(mapped: Mapped, blocks: Counts, confidence: float) -> Shares:
    """Estimate the true shares of the classes in mapped ground from B x K x K matrices of test blocks, truth in rows.

    With a single test block the limits are 0 and 1.

    Example:
        >>> blocks = np.array([[[90, 5], [10, 95]], [[80, 10], [20, 90]]])
        >>> estimate_shares(Mapped(np.array([500, 500]), None), blocks, 0.95).estimate
        array([0.4625, 0.5375])
    """
    weights, pooled = mapped.shares, blocks.sum(axis=0)
    as_mapped = pooled.sum(axis=0)
    # a class that the map never shows in the test part is taken as mapped
    truth_of = np.where(as_mapped > 0, pooled / np.maximum(as_mapped, 1), np.eye(len(weights)))
    estimate = truth_of @ weights
    number = len(blocks)
    if number < 2:
        return Shares(estimate, np.zeros_like(estimate), np.ones_like(estimate))
    residuals = (blocks - truth_of * blocks.sum(axis=1, keepdims=True)) / np.maximum(as_mapped, 1) @ weights
    squares = residuals**2
    of_test_part = number / (number - 1) * squares.sum(axis=0)
    of_ground = of_test_part * pooled.sum() / max(mapped.pixels.sum(), 1)
    effective = squares.sum(axis=0) ** 2 / np.maximum((squares**2).sum(axis=0), np.finfo(np.float64).tiny)
    quantile = stdtrit(np.clip(effective, 1, number - 1), (1 + confidence) / 2)
    margin = quantile * np.sqrt(of_test_part + of_ground)
    unseen = np.where(as_mapped > 0, 0, weights)
    low, high = estimate - margin - unseen, estimate + margin + unseen.sum() - unseen
    return Shares(estimate, np.clip(low, 0, 1), np.clip(high, 0, 1))


def write_areas(
    path: Path,
    scenes: Mapping[str, Mapped],
    names: list[str],
    blocks: Counts | None,
    confidence: float,
    whole: bool = False,
) -> None:
    """Write the area of every class in every scene, one row each, as CSV with the columns of `COLUMNS`.

    | column | content |
    | --- | --- |
    | `scene` | name of the scene, or `all scenes` for their sum |
    | `class` | name of the class |
    | `mapped_pixels`, `mapped_ha`, `mapped_percent` | what the map shows |
    | `ha`, `ha_low`, `ha_high` | area corrected for the errors of the map, and its interval, in hectares |
    | `percent`, `percent_low`, `percent_high` | the same in percent of the mapped ground |
    | `confidence` | confidence level of the intervals, such as 0.95 |
    | `test_blocks` | number of test blocks that they rest on |
    | `assumption` | what they assume |

    Hectares are empty for maps without CRS. Without test blocks (B x K x K confusion matrices) the columns from `ha`
    on are empty. With `whole`, rows for the sum of all scenes follow.

    Raises:
        InputError: If the confusion matrices have another number of classes.
    """
    if blocks is not None and blocks.shape[1:] != (len(names), len(names)):
        what = f"the confusion matrices of the network have {blocks.shape[1]} classes; the map has {len(names)}"
        raise InputError(Problem(str(path), what, "Evaluate the network again on these classes."))
    grounds = dict(scenes)
    if whole and scenes:
        first, *others = scenes.values()
        grounds[WHOLE] = sum(others, first)
    rows = (
        {"scene": scene, "class": name, **row}
        for scene, mapped in grounds.items()
        for name, row in zip(names, _rows(mapped, blocks, confidence), strict=True)
    )
    write_table(path, COLUMNS, rows)


def _rows(mapped: Mapped, blocks: Counts | None, confidence: float) -> list[dict[str, str | int]]:
    """Cells of the columns from `mapped_pixels` on, by class."""
    total = None if mapped.hectares is None else float(mapped.hectares.sum())
    columns: dict[str, Floats] = {"mapped": mapped.shares}
    basis: dict[str, str | int] = {}
    if blocks is not None:
        shares = estimate_shares(mapped, blocks, confidence)
        columns |= {"": shares.estimate, "low": shares.low, "high": shares.high}
        basis = {"confidence": f"{confidence:g}", "test_blocks": len(blocks), "assumption": ASSUMPTION}
    rows = [basis | {"mapped_pixels": int(n)} for n in mapped.pixels]
    for kind, values in columns.items():
        percent, hectares = (
            f"mapped_{unit}" if kind == "mapped" else f"{unit}_{kind}".strip("_") for unit in ("percent", "ha")
        )
        for row, share in zip(rows, values.tolist(), strict=True):
            row[percent] = f"{100 * share:.4f}"
            row[hectares] = "" if total is None else f"{total * share:.4f}"
    return rows


def read_mapped(tables: Iterable[Path]) -> tuple[list[str], dict[str, Mapped]]:
    """Read the names of the classes, and what the maps show by scene, from files of `write_areas`.

    Rows of all scenes together are left out.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for path in tables:
        for row in read_rows(path, COLUMNS):
            rows.setdefault(row["scene"], []).append(row)
    rows.pop(WHOLE, None)
    names = [row["class"] for row in next(iter(rows.values()), [])]
    return names, {
        scene: Mapped(
            np.array([int(row["mapped_pixels"]) for row in lines], np.int64),
            np.array([float(row["mapped_ha"]) for row in lines]) if all(row["mapped_ha"] for row in lines) else None,
        )
        for scene, lines in rows.items()
    }
