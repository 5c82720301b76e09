"""Speed of drawing pairs of views, and of finding patches on the same ground in both."""

from __future__ import annotations

import numpy as np

from benchmarks.timing import best_of
from tmcnet.config import PretrainConfig
from tmcnet.dataset.views import draw_patches, draw_views

PAIRS = 200
CONFIG = PretrainConfig(crop_size=224, patch_size=48, patches=4)
PUBLISHED_MS = 14.0
"""Time of the published search, which scans lists of 50,000 pixels for each patch."""


def run() -> None:
    """Print milliseconds for a pair of views of a tile of 256 pixels, and for its four patches of 48."""
    rng = np.random.default_rng(0)
    pairs = [draw_views(rng, 256, 256, CONFIG, "corrected") for _ in range(PAIRS)]
    drawing = best_of(lambda: [draw_views(rng, 256, 256, CONFIG, "corrected") for _ in pairs], 10) / PAIRS
    search = best_of(lambda: [draw_patches(rng, *pair, 48, 4) for pair in pairs], 10) / PAIRS
    print("| step | ms | times faster than published |\n| --- | ---: | ---: |")
    print(f"| draw two views | {1e3 * drawing:.3f} | |")
    print(f"| find four patches | {1e3 * search:.3f} | {PUBLISHED_MS / (1e3 * search):.0f} |", flush=True)
