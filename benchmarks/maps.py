"""Maps of whole scenes: accuracy of windows, speed and memory.

Needs the results of the demo (`make report`): the trained network and a scene that it saw in part only.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.memory import peak_mib
from benchmarks.timing import best_of
from tmcnet.config import ComputeConfig, MapsConfig
from tmcnet.dataset.normalise import FloatArray
from tmcnet.evaluate.export import export_model
from tmcnet.evaluate.maps import SceneImages, fit_windows, map_tiles, predict_strips
from tmcnet.evaluate.trained import Probabilities, Trained, probabilities
from tmcnet.memory import keep_freed_memory
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float, read_grid
from tmcnet.raster.io.writer import write_raster

RUNS = (
    "mssnet-corrected__tmcnet__R100__s1",
    "mssnet-corrected__random__R100__s1",
    "sar_only-baseline__random__R100__s1",
)
WAYS = [
    ("eager", torch.float32, 1024, 1),
    ("eager", torch.float32, 512, 1),
    ("eager", torch.float32, 256, 16),
    ("eager", torch.bfloat16, 1024, 1),
    ("eager", torch.bfloat16, 512, 1),
    ("torch.compile", torch.float32, 1024, 1),
    ("torch.compile", torch.float32, 512, 1),
    ("ONNX Runtime", torch.float32, 1024, 1),
    ("ONNX Runtime", torch.float32, 512, 1),
]
"""Runtime, number format, side of the windows and batch size; the first is the default."""
REPEATS = 4
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
    _speed(weights[RUNS[0]], scene)
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


def _speed(weights: Path, scene: SceneImages) -> None:
    """Speed per pixel of ways to compute windows, as ratios to the default, and of maps of a large scene."""
    trained = Trained.read(weights)
    fit = fit_windows(MapsConfig(), trained.network)
    raw = {name: np.tile(read_float(path), (1, 2, 2))[None, :, :1024, :1024] for name, path in scene.images.items()}
    expected = probabilities(trained.network, _scaled(trained, raw))
    with tempfile.TemporaryDirectory() as folder:
        calls = {" ".join(map(str, way)): _way(trained, weights, Path(folder), raw, *way) for way in WAYS}
        speeds = _speeds(list(calls.values()), [side**2 * batch for _, _, side, batch in WAYS])
        print("\n| way | megapixels of windows per CPU s | ratio | of the map | difference, 99.9th percentile |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for (name, call), speed, (_, _, side, batch) in zip(calls.items(), speeds, WAYS, strict=True):
            kept = max(0.0, 1 - fit.overlap / side) ** 2 / (1 - fit.overlap / WAYS[0][2]) ** 2
            ratio = speed / speeds[0]
            away = np.abs(call() - expected.numpy()).max(axis=1) if side == 1024 and batch == 1 else np.array(np.nan)
            print(f"| {name} | {speed:.3f} | {ratio:.2f} | {ratio * kept:.2f} | {np.quantile(away, 0.999):.1e} |")
        large = _enlarge(scene, Path(folder), 2 * fit.size - fit.overlap)
        maps = {
            "map as by default": lambda: [None for _ in predict_strips(trained, large, MapsConfig())],
            "plain loop, same windows and overlap": lambda: [None for _ in _plain_loop(trained, large, *fit)],
            "plain loop, no overlap": lambda: [None for _ in _plain_loop(trained, large, fit.size, 0)],
        }
        speeds = _speeds(list(maps.values()), [large.grid.width * large.grid.height] * len(maps))
    print("\n| map | megapixels per CPU s | ratio |\n| --- | ---: | ---: |")
    for name, speed in zip(maps, speeds, strict=True):
        print(f"| {name} | {speed:.3f} | {speed / speeds[0]:.2f} |", flush=True)


def _speeds(calls: Sequence[Callable[[], object]], pixels: Sequence[int]) -> list[float]:
    """Megapixels per second of CPU time, the best of several rounds in which the calls take turns."""
    keep_freed_memory()
    rounds = [[best_of(call, 1, warm=number > 0) for call in calls] for number in range(REPEATS)]
    return [size / 1e6 / min(times) for size, times in zip(pixels, zip(*rounds, strict=True), strict=True)]


def _way(
    trained: Trained,
    weights: Path,
    folder: Path,
    raw: Mapping[str, FloatArray],
    runtime: str,
    kind: torch.dtype,
    side: int,
    batch: int,
) -> Callable[[], FloatArray]:
    """One way to predict a batch of windows."""
    part = {name: np.repeat(image[..., :side, :side], batch, axis=0) for name, image in raw.items()}
    if runtime == "ONNX Runtime":
        if not (folder / "model.onnx").exists():
            export_model(weights, folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        return lambda: session.run(["probabilities"], part)[0]
    inputs = _scaled(trained, part)
    network = torch.compile(trained.network) if runtime == "torch.compile" else trained.network

    def predict() -> FloatArray:
        with torch.no_grad(), torch.autocast("cpu", kind, enabled=kind != torch.float32):
            found: FloatArray = network(inputs).float().softmax(dim=1).numpy()
        return found

    return predict


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


def _scaled(trained: Trained, raw: Mapping[str, FloatArray]) -> dict[str, torch.Tensor]:
    """Normalised images of values as in aligned scenes; all N x C x H x W."""
    scaling = trained.normalisation
    return {k: torch.from_numpy(np.stack([scaling.apply(image, k) for image in v])) for k, v in raw.items()}


def _map_large(weights: str, optical: str, sar: str, folder: str) -> None:
    """Map one scene in this process, so that its peak memory is that of the map."""
    scene = SceneImages("large", {"optical": Path(optical), "sar": Path(sar)})
    grid, began = scene.grid, time.perf_counter()
    config = MapsConfig()
    out = Path(folder)
    classes = Trained.read(Path(weights)).classes
    map_tiles(Path(weights), [scene], classes, config, ComputeConfig(), "run", out, out / "run.csv")
    speed = grid.width * grid.height / 1e6 / (time.perf_counter() - began)
    print(f"{speed:.3f} | {peak_mib() / 2**10:.2f} |")


if __name__ == "__main__":
    _map_large(*sys.argv[1:])
