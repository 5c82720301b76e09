"""Co-registration of real optical-SAR pairs with checkpoints, after a known disturbance, compared with four methods.

The others are phase correlation (scikit-image), mutual information, and both methods of AROSICS if the environment
variable AROSICS_PYTHON names a Python that has it; see `benchmarks/arosics_peer.py` for its installation.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage, optimize
from skimage.registration import phase_cross_correlation

from benchmarks.independent import mutual_information
from tmcnet.raster.io.geometry import Grid
from tmcnet.raster.io.reader import read_float
from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.io.writer import write_raster
from tmcnet.raster.register import estimate
from tmcnet.raster.register.alignment import AffineMap
from tmcnet.seeding import generator

PAIRS = ("cfog_1", "cfog_2", "mmim_so1", "mmim_so2", "mmim_so3")
SEEDS, PEER_SEEDS = 10, 3
MAX_SHIFT_PX, MAX_ROTATION_DEGREES = 15.0, 0.5
COARSE, SEARCH_RADIUS_PX = 4, 20
MAX_AROSICS_SHIFT_PX = 25
"""Search radius of AROSICS."""
PEERS = ("phase correlation", "mutual information", "AROSICS global", "AROSICS local")
Floats = NDArray[np.float64]
Answer = tuple[PointMap | None, float]
"""The estimated map, if any, and the CPU seconds it took."""


@dataclass(frozen=True)
class Result:
    """One pair after one disturbance; errors are root mean squares at the checkpoints in SAR pixels.

    Attributes:
        fit: Error of the affine fit to the checkpoints.
        leave_one_out: The same, each checkpoint left out of the fit in turn.
        before: Error of the disturbed georeference.
        after: Error of each method; NaN where it gave no result.
        speed: Megapixels per second and core of each method.
        status: Status of ours.
    """

    fit: float
    leave_one_out: float
    before: float
    after: dict[str, float]
    speed: dict[str, float]
    status: str


def run() -> None:
    """Print the RMSE at the checkpoints in SAR pixels, compared with that of an affine fit to the checkpoints."""
    folders = pair_folders()
    if not folders:
        return
    if "AROSICS_PYTHON" not in os.environ:
        print("AROSICS is skipped: AROSICS_PYTHON is not set, see benchmarks/arosics_peer.py")
    print(f"Shifts up to {MAX_SHIFT_PX:g} px, rotations up to {MAX_ROTATION_DEGREES:g} degrees; medians over {SEEDS}")
    print(f"seeds, of the other methods over {PEER_SEEDS}; n: number of runs with a result.\n")
    ours = ("ours", "ours / fit", "worst", "ours, undisturbed")
    head = ("pair", "checkpoint fit", "leave one out", "before", *ours, *PEERS)
    print(f"| {' | '.join(head)} | megapixels / s per core: ours, {', '.join(PEERS)} | statuses |")
    print("| --- |" + " ---: |" * len(head) + " --- |")
    for folder in folders:
        results = [measure(folder, seed) for seed in range(SEEDS + 1)]
        print(row(folder.name, results), flush=True)


def row(name: str, results: list[Result]) -> str:
    """One line of the table; the first result is the undisturbed one."""
    first, *disturbed = results
    after = np.array([r.after["ours"] for r in disturbed])
    ours, before = np.median(after), np.median([r.before for r in disturbed])
    figures = (first.fit, first.leave_one_out, before, ours, ours / first.fit, after.max(), first.after["ours"])
    peers = [_summarise([r.after[peer] for r in disturbed if peer in r.after]) for peer in PEERS]
    speeds = [np.median([r.speed[method] for r in results if method in r.speed] or [np.nan])
              for method in ("ours", *PEERS)]  # fmt: skip
    statuses = ", ".join(sorted({r.status for r in disturbed})) + f"; undisturbed {first.status}"
    cells = [name, *(f"{value:.2f}" for value in figures), *peers, ", ".join(f"{s:.2g}" for s in speeds), statuses]
    return f"| {' | '.join(cells)} |"


def _summarise(errors: list[float]) -> str:
    """Median error of a method, and the number of runs with a result unless all have one."""
    if not errors:
        return "not run"
    found = [e for e in errors if np.isfinite(e)]
    share = "" if len(found) == len(errors) else f" (n {len(found)} of {len(errors)})"
    return f"{np.median(found):.2f}{share}" if found else f"declined {len(errors)} of {len(errors)}"


def measure(folder: Path, seed: int) -> Result:
    """Disturb a pair and register it by each method.

    Seed 0 is the undisturbed pair, registered by the affine fit to the checkpoints. The other methods run for seeds 1
    to `PEER_SEEDS`.
    """
    optical, sar, on_optical, on_sar = read_pair(folder)
    given = fitted = affine_through(on_optical, on_sar)
    if seed:
        given = compose(fitted, invert(disturbance(optical.shape[-2:], folder.name, seed)))
    on_grid = resample(sar, given, optical.shape[-2:])
    began = time.process_time()
    found = estimate(optical, on_grid)
    answers: dict[str, Answer] = {"ours": (found.where, time.process_time() - began)}
    if 0 < seed <= PEER_SEEDS:
        answers |= _peers(optical, on_grid)
    size = optical.shape[-2] * optical.shape[-1] / 1e6
    after = {
        name: np.nan if where is None else error(AffineMap(given)(where(on_optical)), on_sar)
        for name, (where, _) in answers.items()
    }
    speed = {name: size / max(seconds, 1e-3) for name, (_, seconds) in answers.items()}
    own, before = (error(AffineMap(matrix)(on_optical), on_sar) for matrix in (fitted, given))
    return Result(own, leave_one_out_error(on_optical, on_sar), before, after, speed, found.status)


def pair_folders() -> list[Path]:
    """Folders of the pairs with checkpoints; none, and a message, without the data."""
    root = os.environ.get("TMCNET_DATA")
    if root is None:
        print("TMCNET_DATA is not set; the pairs are in its folder coregistration/")
        return []
    return [Path(root) / "coregistration" / name for name in PAIRS]


def read_pair(folder: Path) -> tuple[Floats, Floats, Floats, Floats]:
    """Optical and SAR image of a pair, and its checkpoints in pixels of each, N x 2."""
    optical, sar = (read_float(next(folder.glob(f"{kind}.*"))) for kind in ("optical", "sar"))
    with (folder / "checkpoints.csv").open() as file:
        points = np.array([[float(v) for v in line.values()] for line in csv.DictReader(file)])
    return optical, sar, points[:, :2], points[:, 2:]


def affine_through(source: Floats, target: Floats) -> Floats:
    """Least squares 2 x 3 matrix from N x 2 points to others."""
    design = np.column_stack([source, np.ones(len(source))])
    return np.linalg.lstsq(design, target, rcond=None)[0].T


def leave_one_out_error(source: Floats, target: Floats) -> float:
    """Root mean square residual of each point in an affine fit to the others."""
    others = ~np.eye(len(source), dtype=bool)
    predicted = [AffineMap(affine_through(source[o], target[o]))(source[~o])[0] for o in others]
    return error(np.array(predicted), target)


def error(found: Floats, truth: Floats) -> float:
    """Root mean square distance in pixels."""
    return float(np.sqrt(((found - truth) ** 2).sum(axis=1).mean()))


def _peers(optical: Floats, sar: Floats) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for name, method in zip(PEERS, (_phase_correlation, _mutual_information), strict=False):
        began = time.process_time()
        where = method(optical, sar)
        answers[name] = where, time.process_time() - began
    return answers | _arosics(optical, sar)


def _phase_correlation(optical: Floats, sar: Floats) -> PointMap:
    one, two = (_grey(image) for image in (optical, sar))
    down, right = phase_cross_correlation(one, two, upsample_factor=20)[0]
    return shift_by(-right, -down)


def _mutual_information(optical: Floats, sar: Floats) -> PointMap:
    """The shift that maximises mutual information: full search at low resolution, then Nelder-Mead."""
    one, two = (_grey(image) for image in (optical, sar))
    small = [ndimage.zoom(image, 1 / COARSE, order=1) for image in (one, two)]
    steps = range(-SEARCH_RADIUS_PX // COARSE, SEARCH_RADIUS_PX // COARSE + 1)
    tried = [(mutual_information(small[0], ndimage.shift(small[1], (-y, -x), order=0, cval=np.nan)), x, y)
             for x in steps for y in steps]  # fmt: skip
    _, x, y = max(tried)
    start = np.array([x, y], dtype=float) * COARSE

    def objective(shift: Floats) -> float:
        return -mutual_information(one, ndimage.shift(two, -shift[::-1], order=1, cval=np.nan))

    options = {
        "xatol": 0.05,
        "fatol": 1e-5,
        "maxfev": 60,
        "initial_simplex": start + np.array([[0, 0], [2, 0], [0, 2]]),
    }
    return shift_by(*optimize.minimize(objective, start, method="Nelder-Mead", options=options).x)


def _arosics(optical: Floats, sar: Floats) -> dict[str, Answer]:
    """Both methods of AROSICS; for the local one, an affine fit to its tie points."""
    python = os.environ.get("AROSICS_PYTHON")
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{name}.tif") for name in ("optical", "sar")]
        for path, image in zip(paths, (optical, sar), strict=True):
            grid = Grid("EPSG:32632", Affine(10, 0, 5e5, 0, -10, 5e6), *image.shape[:0:-1])
            grey = np.nan_to_num(image.mean(axis=0), nan=-9999.0).astype(np.float32)
            write_raster(Path(path), grey[None], grid, nodata=-9999)
        command = [
            python,
            "-W",
            "ignore",
            Path(__file__).with_name("arosics_peer.py"),
            *paths,
            str(MAX_AROSICS_SHIFT_PX),
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    results = json.loads(output.splitlines()[-1])
    ties = np.array(results["local"] or []).reshape(-1, 4)
    whole = None if results["global"] is None else shift_by(*results["global"])
    local = AffineMap(affine_through(ties[:, :2], ties[:, :2] + ties[:, 2:])) if len(ties) > 3 else None
    return dict(zip(PEERS[2:], zip((whole, local), results["seconds"], strict=True), strict=True))


def _grey(image: Floats) -> Floats:
    grey = image.mean(axis=0)
    return np.where(np.isfinite(grey), grey, np.nanmean(grey)).astype(float)


def shift_by(x: float, y: float) -> AffineMap:
    """A shift in pixels."""
    return AffineMap(np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))


def disturbance(shape: tuple[int, ...], name: str, seed: int, max_shift_px: float = MAX_SHIFT_PX) -> Floats:
    """A shift and a rotation about the centre of the image, 2 x 3."""
    random = generator(seed, "disturbance", name)
    angle = np.deg2rad(random.uniform(-MAX_ROTATION_DEGREES, MAX_ROTATION_DEGREES))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([shape[1], shape[0]]) / 2
    return np.column_stack(
        [turn, centre - turn @ centre + random.uniform(-max_shift_px, max_shift_px, 2) / np.sqrt(2)]
    )


def resample(image: Floats, matrix: Floats, shape: tuple[int, ...]) -> Floats:
    """C x H x W image on a grid whose pixel p takes the value at `matrix` p."""
    linear, offset = matrix[::-1, 1::-1], matrix[::-1, 2]
    bands = [ndimage.affine_transform(b, linear, offset, order=1, cval=np.nan, output_shape=shape) for b in image]
    return np.stack(bands)


def compose(outer: Floats, inner: Floats) -> Floats:
    """Apply `inner`, then `outer`."""
    return (square(outer) @ square(inner))[:2]


def invert(matrix: Floats) -> Floats:
    """Inverse of a 2 x 3 matrix."""
    return np.linalg.inv(square(matrix))[:2]


def square(matrix: Floats) -> Floats:
    """Extend 2 x 3 to 3 x 3."""
    return np.vstack([matrix, [0, 0, 1]])
