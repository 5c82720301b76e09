"""Co-registration of real optical-SAR pairs with checkpoints, after a known disturbance, beside two others."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from skimage.registration import phase_cross_correlation

from benchmarks.independent import mutual_information
from tmcnet.raster.coregister import estimate
from tmcnet.raster.deformation import AffineMap
from tmcnet.raster.io import read_float
from tmcnet.raster.windowed import PointMap
from tmcnet.seeding import generator

PAIRS = ("cfog_1", "cfog_2", "mmim_so1", "mmim_so2", "mmim_so3")
SEEDS, PEER_SEEDS = 10, 3
SHIFT, ROTATION = 15.0, 0.5
COARSE, REACH = 4, 20
Floats = NDArray[np.float64]


def run() -> None:
    """Print the RMSE at the checkpoints in SAR pixels beside that of the checkpoints' own affine fit."""
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        print("TMCNET_DATA is not set; the pairs are in its folder coregistration/")
        return
    print(f"Shifts up to {SHIFT:g} px, rotations up to {ROTATION:g} degrees; medians over {SEEDS} seeds,")
    print(f"of the other methods over {PEER_SEEDS}.\n")
    head = (
        "pair",
        "checkpoint fit",
        "before",
        "ours",
        "ours / fit",
        "worst",
        "phase correlation",
        "mutual information",
    )
    print(f"| {' | '.join(head)} | ours, undisturbed | CPU s: ours, phase, MI | statuses |")
    print("| --- |" + " ---: |" * 9 + " --- |")
    for name in PAIRS:
        results = [measure(Path(root) / "coregistration" / name, seed) for seed in range(SEEDS + 1)]
        errors = np.array([r[0] for r in results])
        seconds = np.nanmedian([r[1] for r in results], axis=0)
        fit, before, ours, phase, mutual = np.nanmedian(errors[1:], axis=0)
        figures = (fit, before, ours, ours / fit, errors[1:, 2].max(), phase, mutual, errors[0, 2])
        statuses = ", ".join(sorted({r[2] for r in results[1:]})) + f"; undisturbed {results[0][2]}"
        times = ", ".join(f"{s:.1f}" for s in seconds)
        print(f"| {name} | {' | '.join(f'{v:.2f}' for v in figures)} | {times} | {statuses} |", flush=True)


def measure(folder: Path, seed: int) -> tuple[list[float], list[float], str]:
    """Checkpoint RMSE of the fit, of what is given and of three methods; CPU seconds of these; status of ours.

    Seed 0 gives the pair as the checkpoints' affine fit has it, undisturbed. After `PEER_SEEDS` the other two methods
    are left out: NaN.
    """
    optical, sar = (read_float(next(folder.glob(f"{kind}.*"))) for kind in ("optical", "sar"))
    with (folder / "checkpoints.csv").open() as file:
        points = np.array([[float(v) for v in row.values()] for row in csv.DictReader(file)])
    on_optical, on_sar = points[:, :2], points[:, 2:]
    fitted = np.linalg.lstsq(np.column_stack([on_optical, np.ones(len(points))]), on_sar, rcond=None)[0].T
    given = fitted
    if seed:
        given = compose(fitted, invert(disturbance(optical.shape[-2:], folder.name, seed)))
    on_grid = resample(sar, given, optical.shape[-2:])
    errors = [error(AffineMap(m)(on_optical), on_sar) for m in (fitted, given)]
    seconds, statuses = [], []
    for method in (_ours, _phase_correlation, _mutual_information)[: 3 if seed <= PEER_SEEDS else 1]:
        began = time.process_time()
        where, status = method(optical, on_grid)
        seconds.append(time.process_time() - began)
        errors.append(error(AffineMap(given)(where(on_optical)), on_sar))
        statuses.append(status)
    left_out = [np.nan] * (3 - len(statuses))
    return errors + left_out, seconds + left_out, statuses[0]


def error(found: Floats, truth: Floats) -> float:
    """Root mean square distance in pixels."""
    return float(np.sqrt(((found - truth) ** 2).sum(axis=1).mean()))


def _ours(optical: Floats, sar: Floats) -> tuple[PointMap, str]:
    found = estimate(optical, sar)
    return found.where, found.status


def _phase_correlation(optical: Floats, sar: Floats) -> tuple[PointMap, str]:
    one, two = (_grey(image) for image in (optical, sar))
    down, right = phase_cross_correlation(one, two, upsample_factor=20)[0]
    return shift_by(-right, -down), ""


def _mutual_information(optical: Floats, sar: Floats) -> tuple[PointMap, str]:
    """The shift that maximises mutual information: a full search at low resolution, then a descent."""
    one, two = (_grey(image) for image in (optical, sar))
    small = [ndimage.zoom(image, 1 / COARSE, order=1) for image in (one, two)]
    steps = range(-REACH // COARSE, REACH // COARSE + 1)
    tried = [(mutual_information(small[0], ndimage.shift(small[1], (-y, -x), order=0, cval=np.nan)), x, y)
             for x in steps for y in steps]  # fmt: skip
    _, x, y = max(tried)
    start = np.array([x, y], dtype=float) * COARSE

    def unlike(shift: Floats) -> float:
        return -mutual_information(one, ndimage.shift(two, -shift[::-1], order=1, cval=np.nan))

    options = {
        "xatol": 0.05,
        "fatol": 1e-5,
        "maxfev": 60,
        "initial_simplex": start + np.array([[0, 0], [2, 0], [0, 2]]),
    }
    return shift_by(*optimize.minimize(unlike, start, method="Nelder-Mead", options=options).x), ""


def _grey(image: Floats) -> Floats:
    grey = image.mean(axis=0)
    return np.where(np.isfinite(grey), grey, np.nanmean(grey)).astype(float)


def shift_by(x: float, y: float) -> AffineMap:
    """The map that moves by so many pixels."""
    return AffineMap(np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def disturbance(shape: tuple[int, ...], name: str, seed: int) -> Floats:
    """A shift and a rotation about the centre of the image, 2 x 3."""
    random = generator(seed, "disturbance", name)
    angle = np.deg2rad(random.uniform(-ROTATION, ROTATION))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([shape[1], shape[0]]) / 2
    return np.column_stack([turn, centre - turn @ centre + random.uniform(-SHIFT, SHIFT, 2) / np.sqrt(2)])


def resample(image: Floats, matrix: Floats, shape: tuple[int, ...]) -> Floats:
    """C x H x W image on a grid whose pixel p takes the value at `matrix` p."""
    linear, offset = matrix[::-1, 1::-1], matrix[::-1, 2]
    bands = [ndimage.affine_transform(b, linear, offset, order=1, cval=np.nan, output_shape=shape) for b in image]
    return np.stack(bands)


def compose(outer: Floats, inner: Floats) -> Floats:
    """The map that does `inner` first."""
    return (square(outer) @ square(inner))[:2]


def invert(matrix: Floats) -> Floats:
    """The way back."""
    return np.linalg.inv(square(matrix))[:2]


def square(matrix: Floats) -> Floats:
    """2 x 3 to 3 x 3."""
    return np.vstack([matrix, [0, 0, 1]])
