"""Mutual information of real pairs before and after correction: a measure that the matcher does not use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tmcnet.raster.io.reader import read_float
from tmcnet.raster.register import estimate, warp
from tmcnet.raster.register.alignment import displacements

SCENES = ("034", "101", "280")
BINS, SIGMA = 48, 1.5
Floats = NDArray[np.floating]


def run() -> None:
    """Print mutual information of optical and SAR of three hand-aligned scenes as delivered and as corrected."""
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        print("TMCNET_DATA is not set; the scenes are in its folder volkov/")
        return
    print("| scene | status | largest correction, px | before | after |\n| --- | --- | ---: | ---: | ---: |")
    for scene in SCENES:
        optical, sar = (read_float(Path(root) / "volkov" / f"{scene}_{kind}.tif") for kind in ("opt", "sar"))
        found = estimate(optical, sar)
        moved = np.hypot(*displacements(found.where, optical.shape[-2:]).T).max()
        grey = optical.mean(axis=0)
        figures = [mutual_information(grey, image[0]) for image in (sar, warp(sar, found.where))]
        print(f"| {scene} | {found.status} | {moved:.1f} | {figures[0]:.4f} | {figures[1]:.4f} |", flush=True)


def mutual_information(a: Floats, b: Floats) -> float:
    """Mutual information in nats of two smoothed images, by ranks in 48 bins, where both have data."""
    valid = np.isfinite(a) & np.isfinite(b)
    ranks = []
    for image in (a, b):
        smooth = gaussian_filter(np.where(np.isfinite(image), image, np.nanmean(image)), SIGMA)[valid]
        ranks.append(np.argsort(np.argsort(smooth)) * BINS // len(smooth))
    joint = np.histogram2d(*ranks, bins=BINS)[0] / valid.sum()
    return entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint)


def entropy(p: Floats) -> float:
    """Entropy in nats."""
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())
