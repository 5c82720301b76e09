"""Normalisation: band statistics of the training tiles, and the scaling of values by them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tmcnet.config import NormaliseConfig, SensorConfig, SensorsConfig
from tmcnet.errors import InputError, Problem
from tmcnet.raster.io.reader import read_float
from tmcnet.readers import read_record, reading
from tmcnet.splits.files import verified_list
from tmcnet.store import TileStore

FloatArray: TypeAlias = npt.NDArray[np.float32]

MAX_BYTES = 120_000_000
"""Approximate maximum memory for the sampled pixels of one modality; more would not change a percentile."""
MAX_TILES = 5000
"""Maximum number of tiles that are read; larger training parts are subsampled evenly."""


@dataclass(frozen=True)
class Band:
    """Statistics of one band: `low` is scaled to -1, `high` to +1; mean and std are of values clipped to these."""

    band: str
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Normalisation(Mapping[str, tuple[Band, ...]]):
    """Bands of each modality by name, and the scaling of their values to a common range.

    Attributes:
        bands: Bands of each modality in file order; the modalities in the order of the config.
        clip: Scaled values are clipped to plus and minus this.
        n_tiles: Number of training tiles that the statistics come from.

    Example:
        >>> normalisation = Normalisation.read("results/normalisation.json")
        >>> scaled = normalisation.apply(read_float("dem.tif"), "dem")
    """

    bands: dict[str, tuple[Band, ...]]
    clip: float
    n_tiles: int

    def __getitem__(self, modality: str) -> tuple[Band, ...]:
        return self.bands[modality]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bands)

    def __len__(self) -> int:
        return len(self.bands)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Normalisation:
        """Build from the output of `to_dict`.

        Raises:
            ValueError: If a limit is not finite, or the lower limit of a band is above the upper one.
        """
        lists = {name: bands for name, bands in values.items() if name not in ("clip", "n_tiles")}
        bands = {name: tuple(Band(**band) for band in some) for name, some in lists.items()}
        clip, limits = float(values["clip"]), [(float(b.low), float(b.high)) for some in bands.values() for b in some]
        if not np.isfinite([clip, *(limit for pair in limits for limit in pair)]).all() or clip <= 0:
            raise ValueError("the limits of its values are not finite")
        if any(low > high for low, high in limits):
            raise ValueError("the lower limit of a band is above the upper one")
        return cls(bands, clip, int(values["n_tiles"]))

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON."""
        plain = {name: [asdict(band) for band in bands] for name, bands in self.items()}
        return {**plain, "clip": self.clip, "n_tiles": self.n_tiles}

    @classmethod
    def read(cls, path: Path | str) -> Normalisation:
        """Read `normalisation.json`.

        Raises:
            InputError: If it is missing or damaged.
        """
        values = read_record(path)
        with reading(path):
            return cls.from_dict(values)

    def apply(self, array: FloatArray, modality: str) -> FloatArray:
        """Scale C x H x W float32 of one modality, NaN for no data, to -clip..+clip, 0 for no data.

        Raises:
            InputError: If the number of bands differs from that of the statistics.
        """
        bands = self.bands[modality]
        if array.shape[0] != len(bands):
            what = f"an image has {array.shape[0]} bands; the statistics are of {[b.band for b in bands]}"
            raise InputError(Problem(f"sensor `{modality}`", what, "Give the bands that the model was trained on."))
        low = np.array([b.low for b in bands], np.float32)[:, None, None]
        high = np.array([b.high for b in bands], np.float32)[:, None, None]
        scaled = (array - (low + high) / 2) / ((high - low) / 2)
        return np.nan_to_num(np.clip(scaled, -self.clip, self.clip), nan=0.0).astype(np.float32, copy=False)


def compute_normalisation(
    tiles_root: Path, splits: Path, sensors: SensorsConfig, config: NormaliseConfig, out: Path
) -> None:
    """Write `normalisation.json` (`out`): robust statistics of every band over the training tiles.

    Pixels without data are left out. Large training parts are subsampled evenly, in tiles and in pixels, so that
    memory and time are limited; the sampled pixels depend on the list only. If both percentiles of a band are equal,
    its extremes are used instead; a constant band is scaled to 0.

    Raises:
        InputError: If there are no training tiles or their list was changed, a tile cannot be read or has another
            number of bands, or a band has no valid pixel.
    """
    tiles = verified_list(splits, "train")
    if not tiles:
        raise InputError(Problem(str(splits / "train_RGB.txt"), "names no tile", "Check the splits."))
    tiles = tiles[:: math.ceil(len(tiles) / MAX_TILES)]
    store = TileStore(tiles_root)
    bands = {name: _sensor_statistics(store, tiles, name, sensor, config) for name, sensor in sensors.items()}
    result = Normalisation(bands, config.clip, len(tiles))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result.to_dict(), indent=1) + "\n")


def _sensor_statistics(
    store: TileStore, tiles: list[str], kind: str, sensor: SensorConfig, config: NormaliseConfig
) -> tuple[Band, ...]:
    pixels = _sample(store, tiles, kind, sensor)
    rows = [row[np.isfinite(row)] for row in pixels]
    empty = [name for name, row in zip(sensor.bands, rows, strict=True) if row.size == 0]
    if empty:
        what = f"bands {empty} have no valid pixel in any training tile"
        raise InputError(Problem(str(store.root / kind), what, f"Check `sensors.{kind}.nodata` and the files."))
    return tuple(_statistics(name, row, config) for name, row in zip(sensor.bands, rows, strict=True))


def _sample(store: TileStore, tiles: list[str], kind: str, sensor: SensorConfig) -> FloatArray:
    """Every k-th pixel of the tiles, C x N; k has no factor in common with their width, so all columns occur."""
    kept: list[FloatArray] = []
    problems: list[Problem] = []
    step, seen = 0, 0
    for tile in tiles:
        array = read_float(store.path(kind, tile), store.window(tile))
        if array.shape[0] != len(sensor.bands):
            what = f"has {array.shape[0]} bands; `sensors.{kind}.bands` names {len(sensor.bands)}: {sensor.bands}"
            problems.append(Problem(str(store.path(kind, tile)), what, "Correct the band names, or tile again."))
            continue
        if step == 0:
            step = _step(array.nbytes * len(tiles), array.shape[2])
        flat = array.reshape(array.shape[0], -1)
        kept.append(flat[:, -seen % step :: step].copy())
        seen += flat.shape[1]
    if problems:
        raise InputError(problems[:10])
    return np.concatenate(kept, axis=1)


def _step(n_bytes: int, width: int) -> int:
    step = math.ceil(n_bytes / MAX_BYTES)
    while step > 1 and math.gcd(step, width) > 1:
        step += 1
    return step


def _statistics(name: str, values: FloatArray, config: NormaliseConfig) -> Band:
    low, high = (_round(v) for v in np.percentile(values, [config.low, config.high]))
    if low == high:
        low, high = _round(values.min()), _round(values.max())
    if low == high:
        low, high = low - max(abs(low), 1.0), high + max(abs(high), 1.0)
    clipped = np.clip(values, low, high)
    return Band(name, low, high, _round(clipped.mean(dtype=np.float64)), _round(clipped.std(dtype=np.float64)))


def _round(value: float | np.floating[Any]) -> float:
    """Six significant digits: more would differ between machines."""
    return float(f"{float(value):.6g}")
