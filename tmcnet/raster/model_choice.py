"""Choose how a displacement is modelled by how well each model tells it where it was not fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from tmcnet.raster import affine_fit
from tmcnet.raster.affine_fit import IDENTITY, Array, Model
from tmcnet.raster.deformation import AffineMap, LatticeMap, on_lattice
from tmcnet.raster.windowed import PointMap

ORDER: tuple[Model, ...] = ("none", "shift", "affine", "quadratic", "thin_plate")
"""From stiff to supple."""
BENDING: tuple[Model, ...] = ("quadratic", "thin_plate")
SMOOTHING = (0.0003, 0.003, 0.03, 0.3, 3.0)
"""Weights of bending in thin-plate splines that are tried; coordinates are in halves of the scene's longer side."""
FOLDS = 5
"""Parts into which blocks of the scene are dealt; each is left out once."""
MOST_BLOCKS = 8
"""Blocks along the longer side of a scene; large scenes have large blocks."""
MARGIN = 0.03
"""A suppler model must tell unseen points better by this share than a stiffer one."""
MARGIN_OF_NONE = 0.1
"""Any correction must do so by this share: matching errs the same way in neighbouring windows."""
LEAST = {"none": 0, "shift": 4, "affine": 8, "quadratic": 16, "thin_plate": 24}
"""Fewest agreeing points for a model to be tried."""


@dataclass(frozen=True)
class Candidate:
    """A model with its errors.

    Attributes:
        model: Which one.
        smoothing: Of the thin-plate spline; 0 for others.
        error: Root mean square residual in pixels at points in blocks left out of the fit.
    """

    model: Model
    smoothing: float
    error: float


@dataclass(frozen=True)
class Choice:
    """The model taken.

    Attributes:
        model: Which one.
        where: The map it gives.
        matrix: 2 x 3, where the map is affine; else None.
        error: As in `Candidate`.
        error_of_none: The same of the identity.
    """

    model: Model
    where: PointMap
    matrix: Array | None
    error: float
    error_of_none: float


@dataclass(frozen=True)
class Evidence:
    """Control points that agree, and the scene they lie in.

    Attributes:
        source: N x 2 places (x, y) on the common grid, in pixels.
        target: N x 2, where their content was found.
        shape: Height and width of the scene.
        block: Least side in pixels of the blocks that are left out.
        buffer: Points nearer than this to one left out, in pixels, are not fitted to either: windows that overlap
            err in the same way.
        tolerance: Residual in pixels beyond which a point has no weight.
    """

    source: Array
    target: Array
    shape: tuple[int, int]
    block: float
    buffer: float
    tolerance: float

    def of(self, chosen: npt.NDArray[np.bool_]) -> Evidence:
        """Some of the points."""
        return replace(self, source=self.source[chosen], target=self.target[chosen])


def choose(evidence: Evidence, allowed: Sequence[Model]) -> Choice:
    """Compare the models that are allowed, and the identity, and fit the best to all points.

    Models are compared where no window overlaps one that was fitted to, and a stiff one is kept unless a suppler one
    is clearly better. How far a thin-plate spline may then bend is told by points left out a block at a time.
    """
    identity, *others = candidates(evidence, allowed)
    best = identity
    for candidate in others:
        margin = MARGIN_OF_NONE if best.model == "none" else 0.0 if candidate.model == best.model else MARGIN
        if candidate.error < (1.0 - margin) * best.error:
            best = candidate
    close = replace(evidence, buffer=0.0)
    tried = [c for c in candidates(close, [best.model]) if c.model == best.model]
    taken = min(tried, key=lambda candidate: candidate.error)
    where = fit(evidence, taken.model, taken.smoothing)
    matrix = where.matrix if isinstance(where, AffineMap) else None
    return Choice(taken.model, where, matrix, taken.error, identity.error)


def candidates(evidence: Evidence, allowed: Sequence[Model]) -> list[Candidate]:
    """Each model with its error at points left out, from stiff to supple, the identity first."""
    folds = deal(evidence)
    found = []
    for model in ORDER:
        if model != "none" and (model not in allowed or len(evidence.source) < LEAST[model]):
            continue
        for smoothing in SMOOTHING[::-1] if model == "thin_plate" else (0.0,):
            found.append(Candidate(model, smoothing, held_out_error(evidence, folds, model, smoothing)))
    return found


def deal(evidence: Evidence) -> npt.NDArray[np.int64]:
    """Number of the fold of each point: whole blocks are left out, and no two neighbours together."""
    side = max(evidence.block, max(evidence.shape) / MOST_BLOCKS)
    column, row = (evidence.source // side).astype(np.int64).T
    return np.asarray((column + 2 * row) % FOLDS)


def held_out_error(evidence: Evidence, folds: npt.NDArray[np.int64], model: Model, smoothing: float = 0.0) -> float:
    """Root mean square residual in pixels at points in blocks of the scene that the fit has not seen."""
    squares = []
    for left_out in np.unique(folds):
        test = folds == left_out
        train = _apart(evidence, test)
        if train.sum() < LEAST[model]:
            if model in BENDING or test.all():
                return float("inf")
            train = ~test
        where = _fit(evidence.of(train), model, smoothing)
        squares.append(((where(evidence.source[test]) - evidence.target[test]) ** 2).sum(axis=1))
    return float(np.sqrt(np.concatenate(squares).mean()))


def _apart(evidence: Evidence, test: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The points that are neither left out nor near one that is."""
    distance, _ = cKDTree(evidence.source[test]).query(evidence.source)
    return np.asarray(~test & (distance >= evidence.buffer))


def fit(evidence: Evidence, model: Model, smoothing: float = 0.0) -> PointMap:
    """The map of a model fitted to agreeing points; those that bend are given on a lattice."""
    where = _fit(evidence, model, smoothing)
    return where if isinstance(where, AffineMap) else LatticeMap(on_lattice(where, evidence.shape))


def _fit(evidence: Evidence, model: Model, smoothing: float) -> PointMap:
    source, target = evidence.source, evidence.target
    if model == "none":
        return AffineMap(IDENTITY)
    if model in ("shift", "affine"):
        return AffineMap(affine_fit.refine(source, target, np.ones(len(source), bool), evidence.tolerance, model))
    half = max(evidence.shape) / 2.0
    bend = _thin_plate if model == "thin_plate" else _quadratic
    moves = bend((source - half) / half, target - source, smoothing)
    return lambda points: np.asarray(points + moves((points - half) / half))


def _thin_plate(places: Array, moves: Array, smoothing: float) -> PointMap:
    """Smoothing thin-plate spline; bending weighs the same however many points there are."""
    spline: PointMap = RBFInterpolator(places, moves, smoothing=smoothing * len(places) / 100.0)
    return spline


def _quadratic(places: Array, moves: Array, _: float) -> PointMap:
    """Least squares polynomial of second order."""
    solution = np.linalg.lstsq(_terms(places), moves, rcond=None)[0]
    return lambda points: np.asarray(_terms(points) @ solution)


def _terms(points: Array) -> Array:
    x, y = points.T
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)
