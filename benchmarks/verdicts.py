"""Statuses of co-registration for real pairs in place, displaced pairs and unrelated images.

The thresholds of `coarse_to_fine` for images in place were chosen on other crops and seeds than these, and for the
most part on other tiles: that the peak must be in place at two resolutions was also compared on some of these.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coregistration import affine_through, compose, disturbance, invert, pair_folders, read_pair, resample
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.register import estimate

SEEDS = (11, 12, 13, 14)
MAX_SHIFT_PX = 12.0
CROPS, SIDES_PX = 6, (320, 400)
FIRST_TILE, TILE_STEP = 4, 8
DISPLACED_TILE_STEP, TILE_SHIFTS_PX = 3, (5.0, 12.0)
Floats = NDArray[np.floating]
Case = tuple[str, str, Floats, Floats]
"""Kind, name, optical and SAR image."""


def run() -> None:
    """Print the number of cases of each kind by status, and the cases with a wrong one."""
    if "TMCNET_DATA" not in os.environ:
        print("TMCNET_DATA is not set; the pairs are in its folders coregistration/ and ombria/")
        return
    counts: dict[str, Counter[str]] = {}
    for kind, name, optical, sar in (*_with_checkpoints(), *_tiles()):
        found = estimate(optical, sar)
        counts.setdefault(kind, Counter())[found.status] += 1
        if (kind.endswith("in place"), found.status) in ((True, "rejected"), (False, "already_aligned")):
            print(f"{name}: {found.reason}", flush=True)
    print("\n| cases | aligned | already aligned | rejected |\n| --- | ---: | ---: | ---: |")
    for kind, found in counts.items():
        print(f"| {kind} | {found['aligned']} | {found['already_aligned']} | {found['rejected']} |")


def _with_checkpoints() -> Iterator[Case]:
    """Pairs placed by the affine fit to their checkpoints, crops of them, displaced and unrelated ones."""
    random = np.random.default_rng(77)
    placed: dict[str, tuple[Floats, Floats]] = {}
    for folder in pair_folders():
        optical, sar, on_optical, on_sar = read_pair(folder)
        fit, shape = affine_through(on_optical, on_sar), optical.shape[-2:]
        placed[folder.name] = optical, resample(sar, fit, shape)
        yield "pairs in place", folder.name, *placed[folder.name]
        for seed in SEEDS:
            moved = compose(fit, invert(disturbance(shape, folder.name, seed, MAX_SHIFT_PX)))
            yield "pairs displaced", f"{folder.name}, seed {seed}", optical, resample(sar, moved, shape)
        for number in range(CROPS):
            side = SIDES_PX[number % 2]
            row, column = (int(random.integers(0, length - side)) for length in shape)
            part = np.s_[:, row : row + side, column : column + side]
            yield "crops in place", f"{folder.name} {part}", *(image[part] for image in placed[folder.name])
    for one, other in permutations(placed, 2):
        optical, sar = placed[one][0], placed[other][1]
        part = (slice(None), *(slice(min(sides)) for sides in zip(optical.shape[1:], sar.shape[1:], strict=True)))
        yield "unrelated pairs", f"{one} and {other}", optical[part], sar[part]


def _tiles() -> Iterator[Case]:
    """Tiles of OMBRIA, many of them clouds or water without anything to match."""
    folder = Path(os.environ["TMCNET_DATA"]) / "ombria"
    names = sorted(path.stem[-4:] for path in folder.glob("OmbriaS1/train/AFTER/*.png"))[FIRST_TILE::TILE_STEP]
    pairs = [
        [read_float(folder / f"Ombria{s}/train/AFTER/{s}_after_{name}.png") for s in ("S2", "S1")] for name in names
    ]
    for name, (optical, sar) in zip(names, pairs, strict=True):
        yield "tiles in place", name, optical, sar
    random = np.random.default_rng(78)
    for name, (optical, sar) in list(zip(names, pairs, strict=True))[::DISPLACED_TILE_STEP]:
        angle, distance_px = random.uniform(0.0, 2.0 * np.pi), random.uniform(*TILE_SHIFTS_PX)
        shift = distance_px * np.array([[np.cos(angle)], [np.sin(angle)]])
        moved = resample(sar, np.hstack([np.eye(2), shift]), optical.shape[-2:])
        yield "tiles displaced", f"{name} by {distance_px:.1f} px", optical, moved
    for number, name in enumerate(names):
        yield "unrelated tiles", name, pairs[number][0], pairs[(number + 5) % len(names)][1]
