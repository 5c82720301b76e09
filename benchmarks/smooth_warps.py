"""Smooth local warps of real pairs, evaluated at checkpoints marked by people."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.coregistration import SEEDS, affine_through, error, pair_folders, read_pair, resample
from benchmarks.known_warps import SMOOTH, inverse, warps
from tmcnet.raster.register import estimate, warp
from tmcnet.raster.register.alignment import AffineMap


def run() -> None:
    """Print the RMSE at the checkpoints in SAR pixels after a smooth warp, compared with an affine fit to them."""
    folders = pair_folders()
    if not folders:
        return
    print(f"Warps: {SMOOTH}, {SEEDS} seeds; root mean square errors at the checkpoints in SAR pixels.\n")
    print("| pair | checkpoint fit | before | ours | ours / fit | worst | statuses |")
    print("| --- |" + " ---: |" * 5 + " --- |")
    for folder in folders:
        print(_row(folder), flush=True)


def _row(folder: Path) -> str:
    results = [_measure(folder, seed) for seed in range(1, SEEDS + 1)]
    fit, before, after = np.array([errors for errors, _ in results]).T
    figures = (fit[0], np.median(before), np.median(after), np.median(after) / fit[0], after.max())
    statuses = [status for _, status in results]
    counts = ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses)))
    return f"| {folder.name} | {' | '.join(f'{figure:.2f}' for figure in figures)} | {counts} |"


def _measure(folder: Path, seed: int) -> tuple[tuple[float, float, float], str]:
    """Errors of the affine fit to the checkpoints, of the warped pair and of the registered pair; and the status."""
    optical, sar, on_optical, on_sar = read_pair(folder)
    fitted = affine_through(on_optical, on_sar)
    to_sar, shape = AffineMap(fitted), optical.shape[-2:]
    applied = warps(shape, f"{folder.name} {seed}")[SMOOTH]
    back = inverse(applied)
    found = estimate(optical, warp(resample(sar, fitted, shape).astype(np.float32), back))
    maps = (on_optical, back(on_optical), back(found.where(on_optical)))
    fit, before, after = (error(to_sar(places), on_sar) for places in maps)
    return (fit, before, after), found.status
