"""Co-registration of scenes with a known warp, and of unrelated images, which must be rejected."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.warp import Resampling, reproject
from scipy.spatial import cKDTree

from tmcnet.config import AlignConfig, DemoConfig
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register import estimate, warp
from tmcnet.raster.register.alignment import AffineMap, Alignment, rotation_and_scale
from tmcnet.seeding import generator
from tmcnet.simulate.scene import simulate_scene

DEMO = ("birch", "cedar", "alder")
VOLKOV = ("034", "101", "280")
SIZE = 640
"""Side of a demo scene in pixels."""
MAX_BEND_PX = 8.0
SMOOTH = "smooth, 8 px"
NEAR_PX = 32.0
"""Places up to this distance from an inlier, the spacing of tie points, count as near it."""
Floats = NDArray[np.float64]
Pair = tuple[str, Floats, Floats]


def run() -> None:
    """Print errors of recovered warps, then how many true and shuffled pairs are rejected.

    `TMCNET_PAIRS`, a list such as `birch,034`, restricts the pairs.
    """
    pairs = [*_demo(), *_volkov()]
    print("Median / 95th percentile in pixels, everywhere and near tie points; share of the places near one.\n")
    print("| pair | warp | status | model | everywhere | near tie points | same model, near | near | CPU s |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    rejected = 0
    for name, optical, sar in pairs:
        known = estimate(optical, sar)
        rejected += known.status == "rejected"
        by_model: dict[str, Alignment] = {known.model: known}
        for kind, applied in warps(optical.shape[-2:], name).items():
            began = time.process_time()
            found = estimate(optical, warp(sar, inverse(applied)))
            seconds = time.process_time() - began
            rejected += found.status == "rejected"
            if found.model != "none" and found.model not in by_model:
                by_model[found.model] = estimate(optical, sar, AlignConfig(models=[found.model]))
            shape = optical.shape[-2:]
            everywhere, near, share = recovered(found, known.where, applied, shape)
            _, same, _ = recovered(found, by_model.get(found.model, known).where, applied, shape)
            cells = (name, kind, found.status, found.model, everywhere, near, same, share, f"{seconds:.1f}")
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nTrue pairs rejected: {rejected} of {5 * len(pairs)}.", flush=True)
    groups = [[p for p in pairs if p[0].startswith(kind)] for kind in ("demo", "volkov")]
    unrelated = [estimate(one[1], two[2]).status for group in groups for one, two in permutations(group, 2)]
    print(f"Shuffled pairs rejected: {unrelated.count('rejected')} of {len(unrelated)}.")


def recovered(found: Alignment, known: PointMap, applied: PointMap, shape: tuple[int, ...]) -> tuple[str, str, str]:
    """Errors against the applied warp after the map estimated without it, everywhere and near points; their share.

    Evaluated at 900 places, if their content is still in the image. Nothing can be matched below clouds and on open
    water, so the places near inliers are summarised separately. A bending model follows bends of the scene itself,
    which an affine model estimated without the warp does not: so the caller compares with the same model too.
    """
    height, width = shape
    axes = (np.linspace(0.05, 0.95, 30) * side for side in (width, height))
    places = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    truth = applied(known(places))
    inside = ((truth > 10) & (truth < [width - 10, height - 10])).all(axis=1)
    errors = np.hypot(*(found.where(places) - truth)[inside].T)
    inliers = [point[:2] for point in found.points if point[4]]
    if not inliers:
        return _summary(errors), "none", "0 %"
    near = cKDTree(inliers).query(places[inside])[0] < NEAR_PX
    return _summary(errors), _summary(errors[near]), f"{near.mean():.0%}"


def _summary(errors: Floats) -> str:
    return f"{np.median(errors):.2f} / {np.percentile(errors, 95):.2f}"


def warps(shape: tuple[int, ...], name: str) -> dict[str, PointMap]:
    """A shift, an affine map, a smooth local warp, and an affine map at the limits of the search."""
    random = generator(1, "known warps", name)
    shift, affine = np.eye(2, 3), rotation_and_scale(random.uniform(-0.5, 0.5), 1.004, *shape)
    shift[:, 2] = random.uniform(-12, 12, 2)
    affine[:, 2] += random.uniform(-8, 8, 2)
    large = rotation_and_scale(random.choice([-2.0, 2.0]), random.choice([0.97, 1.03]), *shape)
    large[:, 2] += np.array([48.0, -36.0]) * random.choice([-1, 1])
    wave = 2 * np.pi / (random.uniform(0.6, 1.0) * max(shape))
    phase = random.uniform(0, 2 * np.pi, 4)

    def smooth(points: Floats) -> Floats:
        x, y = wave * points.T
        right = np.sin(x + phase[0]) * np.cos(y + phase[1])
        down = np.cos(x + phase[2]) * np.sin(y + phase[3])
        return points + MAX_BEND_PX / np.sqrt(2) * np.stack([right, down], axis=1)

    large_name = "60 px, 2 degrees, 3 %"
    return {
        "shift": AffineMap(shift),
        "affine": AffineMap(affine),
        SMOOTH: smooth,
        large_name: AffineMap(large),
    }


def inverse(where: PointMap) -> PointMap:
    """Inverse of a smooth map, by fixed-point iteration."""

    def back(points: Floats) -> Floats:
        found = points.copy()
        for _ in range(30):
            found = found - (where(found) - points)
        return found

    return back


def _chosen(names: tuple[str, ...]) -> list[str]:
    chosen = os.environ.get("TMCNET_PAIRS")
    return [name for name in names if chosen is None or name in chosen.split(",")]


def _volkov() -> Iterator[Pair]:
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        print("TMCNET_DATA is not set; volkov/ is skipped")
        return
    for name in _chosen(VOLKOV):
        optical, sar = (read_float(Path(root) / "volkov" / f"{name}_{kind}.tif") for kind in ("opt", "sar"))
        yield f"volkov {name}", optical, sar


def _demo() -> Iterator[Pair]:
    for name in _chosen(DEMO):
        with tempfile.TemporaryDirectory() as folder:
            simulate_scene(DemoConfig(size=SIZE), name, Path(folder))
            with (
                rasterio.open(Path(folder) / "sar.tif") as sar,
                rasterio.open(Path(folder) / "optical.tif") as optical,
            ):
                moving = np.full((2, SIZE, SIZE), np.nan, np.float32)
                grids = {"src_transform": sar.transform, "src_crs": sar.crs, "dst_transform": optical.transform}
                reproject(sar.read(), moving, **grids, dst_crs=optical.crs, resampling=Resampling.bilinear,
                          src_nodata=np.nan, dst_nodata=np.nan)  # fmt: skip
            image = read_float(Path(folder) / "optical.tif")
        yield f"demo {name}", image, 10 * np.log10(np.maximum(moving, 1e-5))
