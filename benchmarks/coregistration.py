"""Co-registration of real optical-SAR pairs with checkpoints, after a known disturbance."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tmcnet.raster.coregister import estimate
from tmcnet.raster.io import read_float
from tmcnet.seeding import generator

PAIRS = ("cfog_1", "cfog_2", "mmim_so1", "mmim_so2", "mmim_so3")
SEEDS = 3
SHIFT, ROTATION = 15.0, 0.5
Floats = NDArray[np.float64]


def run() -> None:
    """Print the RMSE at the checkpoints in SAR pixels beside that of the checkpoints' own affine fit."""
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        print("TMCNET_DATA is not set; the pairs are in its folder coregistration/")
        return
    print(f"Shifts up to {SHIFT:g} px, rotations up to {ROTATION:g} degrees, {SEEDS} seeds.\n")
    print(
        "| pair | checkpoint fit | before, median | after, median | worst | statuses |\n| --- |"
        + " ---: |" * 4
        + " --- |"
    )
    for name in PAIRS:
        folder = Path(root) / "coregistration" / name
        results = [measure(folder, seed) for seed in range(1, SEEDS + 1)]
        fit, before, after = (np.array(column) for column in zip(*[r[:3] for r in results], strict=True))
        statuses = ", ".join(sorted({r[3] for r in results}))
        figures = (fit[0], np.median(before), np.median(after), after.max())
        print(f"| {name} | {' | '.join(f'{v:.2f}' for v in figures)} | {statuses} |", flush=True)


def measure(folder: Path, seed: int) -> tuple[float, float, float, str]:
    """Checkpoint RMSE of the affine fit, of the disturbed georeference, and of the estimate; and its status."""
    optical, sar = (read_float(next(folder.glob(f"{kind}.*"))) for kind in ("optical", "sar"))
    with (folder / "checkpoints.csv").open() as file:
        points = np.array([[float(v) for v in row.values()] for row in csv.DictReader(file)])
    on_optical, on_sar = points[:, :2], points[:, 2:]
    fitted = np.linalg.lstsq(np.column_stack([on_optical, np.ones(len(points))]), on_sar, rcond=None)[0].T
    given = compose(fitted, invert(disturbance(optical.shape[-2:], folder.name, seed)))
    on_grid = resample(sar, given, optical.shape[-2:])
    found = estimate(optical, on_grid)

    def error(matrix: Floats) -> float:
        return float(np.sqrt(((apply(matrix, on_optical) - on_sar) ** 2).sum(1).mean()))

    return error(fitted), error(given), error(compose(given, np.array(found.matrix))), found.status


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


def apply(matrix: Floats, points: Floats) -> Floats:
    """Map N x 2 points (x, y)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def compose(outer: Floats, inner: Floats) -> Floats:
    """The map that does `inner` first."""
    return (square(outer) @ square(inner))[:2]


def invert(matrix: Floats) -> Floats:
    """The way back."""
    return np.linalg.inv(square(matrix))[:2]


def square(matrix: Floats) -> Floats:
    """2 x 3 to 3 x 3."""
    return np.vstack([matrix, [0, 0, 1]])
