"""Speed of making pairs of views with corresponding patches."""

from __future__ import annotations

import itertools
import time

import torch

from tmcnet.config import PretrainConfig, SensorConfig, SensorsConfig
from tmcnet.dataset.loading import Tile
from tmcnet.dataset.views import ViewMaker

TILES = 48
ROUNDS = 25
SENSORS = SensorsConfig(
    optical=SensorConfig(bands=["red", "green", "blue"], kind="reflectance"),
    sar=SensorConfig(bands=["vv"], kind="backscatter", scale="db"),
)


def run() -> None:
    """Print tiles per second and core (two views, two sensors), from the shortest CPU time of each tile."""
    print("| tile | view | variant | tiles/s |\n| ---: | ---: | --- | ---: |")
    for (tile, view, patch), variant in itertools.product(
        [(256, 224, 48), (128, 96, 24)], ["reference", "corrected"]
    ):
        tiles = [
            Tile(f"t{i}", {name: torch.rand(n, tile, tile) * 2 - 1 for name, n in SENSORS.band_counts.items()}, None)
            for i in range(TILES)
        ]
        maker = ViewMaker(PretrainConfig(crop_size=view, patch_size=patch), SENSORS, variant, 1.5)
        print(f"| {tile} | {view} | {variant} | {TILES / seconds(maker, tiles):.0f} |", flush=True)


def seconds(maker: ViewMaker, tiles: list[Tile]) -> float:
    """CPU time of the views of all tiles, each with its shortest round, to exclude other load."""
    shortest = [float("inf")] * len(tiles)
    for _, (place, tile) in itertools.product(range(ROUNDS), enumerate(tiles)):
        began = time.process_time()
        maker([tile], 0, [place])
        shortest[place] = min(shortest[place], time.process_time() - began)
    return sum(shortest)
