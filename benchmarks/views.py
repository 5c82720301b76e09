"""How fast pairs of views with corresponding patches are made."""

from __future__ import annotations

import itertools

import torch

from benchmarks.timing import best_of
from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.views import ViewMaker

BATCH = 16
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["red", "green", "blue"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db"),
)


def run() -> None:
    """Print tiles a second and core, two views and two sensors each."""
    print("| tile | view | variant | tiles/s |\n| ---: | ---: | --- | ---: |")
    for (tile, view, patch), variant in itertools.product(
        [(256, 224, 48), (128, 96, 24)], ["reference", "corrected"]
    ):
        tiles = [
            Tile(f"t{i}", torch.rand(3, tile, tile) * 2 - 1, torch.rand(1, tile, tile) * 2 - 1, None)
            for i in range(BATCH)
        ]
        maker = ViewMaker(PretrainConfig(crop_size=view, patch_size=patch), SENSORS, variant, 1.5)
        steps = itertools.count()
        seconds = best_of(lambda maker=maker, tiles=tiles, steps=steps: maker(tiles, next(steps)), 8)
        print(f"| {tile} | {view} | {variant} | {BATCH / seconds:.0f} |", flush=True)
