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
from benchmarks.timing import best_of
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.evaluate.maps import SceneImages, fit_windows, map_scenes, predict_scene
from tmcnet.evaluate.trained import Probabilities, Trained, probabilities
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.io.writer import write_raster

RUNS = (
    "mssnet-corrected__tmcnet__R100__s1",
    "mssnet-corrected__random__R100__s1",
    "sar_only-baseline__random__R100__s1",
)
WAYS = [
    (torch.float32, 1024, 1),
    (torch.float32, 512, 1),
    (torch.float32, 256, 1),
    (torch.float32, 256, 16),
    (torch.bfloat16, 1024, 1),
    (torch.bfloat16, 512, 1),
]
"""Number format, side of the windows and batch size."""
LARGE = 12_000
"""Side of the large scene in pixels."""


def run() -> None:
    """Print the difference to one-piece inference, the speed compared with plain loops, and the memory."""
    root = Path("results")
    weights = {name: root / "finetune" / name / "weights.safetensors" for name in RUNS}
    scenes = sorted(path.parent for path in (root / "scenes").glob("*/optical.tif"))
    if not all(path.exists() for path in weights.values()) or not scenes:
        print("The results of the demo are missing; run `make report` first.")
        return
    scene = SceneImages(scenes[0].name, {kind: scenes[0] / f"{kind}.tif" for kind in ("optical", "sar")})
    networks = {name: Trained.read(path) for name, path in weights.items()}
    _edges(networks, scene)
    _speed(networks[RUNS[0]], scene)
    _memory(weights[RUNS[0]], scene)


def _edges(networks: dict[str, Trained], scene: SceneImages) -> None:
    """Difference between a window and the whole scene by the distance of pixels from the edge of the window."""
    print("| pixels from the edge | " + " | ".join(networks) + " |\n| ---: |" + " ---: |" * len(networks))
    top, side = 128, 512
    row, column = np.indices((side, side))
    distance = np.minimum(np.minimum(row, side - 1 - row), np.minimum(column, side - 1 - column))
    differences = []
    for trained in networks.values():
        whole = probabilities(trained.network, _images(trained, scene))
        window = probabilities(trained.network, _images(trained, scene, (top, top, side, side)))
        inside = whole[..., top : top + side, top : top + side]
        differences.append((window - inside).abs().amax(dim=(0, 1)).numpy())
    for nearest in range(0, 176, 16):
        ring = (distance >= nearest) & (distance < nearest + 16)
        found = " | ".join(f"{np.quantile(d[ring], 0.999):.1e}" for d in differences)
        print(f"| {nearest} to {nearest + 15} | {found} |", flush=True)


def _speed(trained: Trained, scene: SceneImages) -> None:
    """CPU time per pixel of windows of several sizes, number formats and batches, and of maps of a large scene."""
    fit = fit_windows(MapsConfig(), trained.network)
    print("\n| way | megapixels of windows per CPU s | of the map |\n| --- | ---: | ---: |")
    images = {name: image.tile(1, 1, 2, 2) for name, image in _images(trained, scene).items()}
    for kind, side, batch in WAYS:
        inputs = {name: image[..., :side, :side].repeat(batch, 1, 1, 1) for name, image in images.items()}

        def predict(inputs: dict[str, torch.Tensor] = inputs, kind: torch.dtype = kind) -> None:
            with torch.autocast("cpu", kind, enabled=kind != torch.float32):
                probabilities(trained.network, inputs)

        speed = batch * side**2 / 1e6 / best_of(predict, 2)
        kept = max(0.0, 1 - fit.overlap / side) ** 2
        name = f"{str(kind).removeprefix('torch.')}, windows of {side}, batch of {batch}"
        print(f"| {name} | {speed:.3f} | {speed * kept:.3f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        large = _enlarge(scene, Path(folder), 2 * fit.size - fit.overlap)
        megapixels = large.grid.width * large.grid.height / 1e6
        maps = {
            "map as by default": lambda: [None for _ in predict_scene(trained, large, MapsConfig())],
            "plain loop, same windows": lambda: [None for _ in _plain_loop(trained, large, *fit)],
            "plain loop, no overlap": lambda: [None for _ in _plain_loop(trained, large, fit.size, 0)],
        }
        for name, way in maps.items():
            print(f"| {name} | | {megapixels / best_of(way, 1):.3f} |", flush=True)


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
    config = MapsConfig()
    out = Path(folder)
    classes = Trained.read(Path(weights)).classes
    map_scenes(Path(weights), [scene], classes, config, ComputeConfig(), "run", out, out / "run.csv")
    speed = grid.width * grid.height / 1e6 / (time.perf_counter() - began)
    print(f"{speed:.3f} | {peak_mib() / 2**10:.2f} |")


if __name__ == "__main__":
    _map_large(*sys.argv[1:])
