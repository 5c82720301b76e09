"""How fast pairs of views are drawn, and patches on the same ground are found in them."""

from __future__ import annotations

import numpy as np

from benchmarks.timing import best_of
from tmcnet.config import PretrainConfig
from tmcnet.dataset.correspondence import draw_patches
from tmcnet.dataset.views import draw_views

PAIRS = 200
CONFIG = PretrainConfig(crop_size=224, patch_size=48, patches=4)
PUBLISHED_MS = 14.0
"""What the published search takes: lists of 50,000 pixels, searched through for each patch."""


def run() -> None:
    """Print milliseconds of a pair of views of a tile of 256 pixels, and of its four patches of 48."""
    rng = np.random.default_rng(0)
    pairs = [draw_views(rng, 256, 256, CONFIG, "corrected") for _ in range(PAIRS)]
    drawing = best_of(lambda: [draw_views(rng, 256, 256, CONFIG, "corrected") for _ in pairs], 10) / PAIRS
    search = best_of(lambda: [draw_patches(rng, *pair, 48, 4) for pair in pairs], 10) / PAIRS
    print("| step | ms | times faster than published |\n| --- | ---: | ---: |")
    print(f"| draw two views | {1e3 * drawing:.3f} | |")
    print(f"| find four patches | {1e3 * search:.3f} | {PUBLISHED_MS / (1e3 * search):.0f} |", flush=True)
