"""Maps of whole scenes: accuracy of windows, speed and memory.

Needs the results of the demo (`make report`): the trained network and a scene that it saw in part only.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.memory import peak_mib
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.maps import SceneImages, map_scenes, predict_scene
from tmcnet.evaluate.trained import Probabilities, Trained, probabilities
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.io.writer import write_raster

RUN = "mssnet-corrected__random__R100__s1"
LARGE = 12_000
"""Side of the large scene in pixels."""

BATCH = 8


def run() -> None:
    """Print the difference to one-piece inference, the speed compared with plain loops, and the memory."""
    root = Path("results")
    weights, folder = root / "finetune" / RUN / "weights.safetensors", root / "scenes"
    scenes = sorted(path.parent for path in folder.glob("*/optical.tif"))
    if not weights.exists() or not scenes:
        print("The results of the demo are missing; run `make report` first.")
        return
    scene = SceneImages(scenes[0].name, {kind: scenes[0] / f"{kind}.tif" for kind in ("optical", "sar")})
    trained = Trained.read(weights)
    _seams(trained, scene)
    _speed(trained, scene)
    _memory(weights, scene)


def _seams(trained: Trained, scene: SceneImages) -> None:
    single = probabilities(trained.network, _images(trained, scene))[0].numpy()
    print("| window | overlap | largest difference | 99.9th percentile | pixels of another class |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for window, overlap in ((256, 0), (256, 64), (256, 128), (512, 128), (512, 256), (608, 304), (736, 368)):
        config = MapsConfig(window=window, overlap=overlap, batch_size=BATCH)
        found = np.concatenate([s.probabilities for s in predict_scene(trained, scene, config)], axis=1)
        difference = np.abs(found - single).max(axis=0)
        other = float((found.argmax(0) != single.argmax(0)).mean())
        print(
            f"| {window} | {overlap} | {difference.max():.1e} | {np.quantile(difference, 0.999):.1e} | {other:.1e} |",
            flush=True,
        )


def _speed(trained: Trained, scene: SceneImages) -> None:
    grid = scene.grid
    megapixels = grid.width * grid.height / 1e6
    config = MapsConfig(window=256, overlap=64, batch_size=BATCH)

    def ours() -> None:
        for _ in predict_scene(trained, scene, config):
            pass

    def loop(overlap: int) -> None:
        for _ in _plain_loop(trained, scene, config.window, overlap):
            pass

    ways = {"windows in batches, blended": ours, "plain loop, same overlap": lambda: loop(64)}
    ways["plain loop, no overlap"] = lambda: loop(0)
    print("\n| way | megapixels/s |\n| --- | ---: |")
    for name, way in ways.items():
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - began)
        print(f"| {name} | {megapixels / min(seconds):.3f} |", flush=True)


def _plain_loop(trained: Trained, scene: SceneImages, window: int, overlap: int) -> Iterator[Probabilities]:
    """The simplest way: read a window, predict it, continue."""
    grid = scene.grid
    step = window - overlap
    for top, left in product(range(0, grid.height - overlap, step), range(0, grid.width - overlap, step)):
        box = (top, left, min(window, grid.height - top), min(window, grid.width - left))
        yield probabilities(trained.network, _images(trained, scene, box))[0].numpy()


def _memory(weights: Path, scene: SceneImages) -> None:
    print("\n| scene | megapixels/s | peak memory, GiB |\n| --- | ---: | ---: |")
    for side in (LARGE // 4, LARGE):
        with tempfile.TemporaryDirectory() as folder:
            large = _enlarge(scene, Path(folder), side)
            job = (sys.executable, "-m", "benchmarks.maps", weights, *large.images.values(), folder)
            said = subprocess.run([str(part) for part in job], capture_output=True, text=True, check=True).stdout
        print(f"| {side} x {side} | {said}", flush=True)


def _enlarge(scene: SceneImages, folder: Path, side: int) -> SceneImages:
    """The scene laid out again and again until it has `side` rows and columns."""
    paths = {}
    for kind, source in scene.images.items():
        image: NDArray[np.float32] = read_float(source)
        repeats = [1, *(-(-side // length) for length in image.shape[1:])]
        grid = read_grid(source)
        path = folder / source.name
        write_raster(path, np.tile(image, repeats)[:, :side, :side], Grid(grid.crs, grid.transform, side, side))
        paths[kind] = path
    return SceneImages("large", paths)


def _images(
    trained: Trained, scene: SceneImages, box: tuple[int, int, int, int] | None = None
) -> dict[str, torch.Tensor]:
    """Normalised 1 x C x H x W images of a scene, or of a window of it."""
    scaling = trained.normalisation
    return {k: torch.from_numpy(scaling.apply(read_float(p, box), k))[None] for k, p in scene.images.items()}


def _map_large(weights: str, optical: str, sar: str, folder: str) -> None:
    """Map one scene in this process, so that its peak memory is that of the map."""
    scene = SceneImages("large", {"optical": Path(optical), "sar": Path(sar)})
    grid, began = scene.grid, time.perf_counter()
    config = MapsConfig(window=512, overlap=128, batch_size=BATCH)
    out = Path(folder)
    classes = Trained.read(Path(weights)).classes
    map_scenes(Path(weights), [scene], classes, config, ComputeConfig(), "run", out, out / "run.csv")
    speed = grid.width * grid.height / 1e6 / (time.perf_counter() - began)
    print(f"{speed:.3f} | {peak_mib() / 2**10:.2f} |")


if __name__ == "__main__":
    _map_large(*sys.argv[1:])
