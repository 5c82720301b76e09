"""Choose how a displacement is modelled by how well each model tells it where it was not fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from tmcnet.raster.io.windowed import PointMap
from tmcnet.raster.register import affine_fit, bending
from tmcnet.raster.register.affine_fit import IDENTITY, Array, Model
from tmcnet.raster.register.deformation import NODES, AffineMap, LatticeMap, on_lattice

ORDER: tuple[Model, ...] = ("none", "shift", "affine", "quadratic", "thin_plate")
"""From stiff to supple."""
BENDING: tuple[Model, ...] = ("quadratic", "thin_plate")
SUPPLE = 0.001
"""Weight of bending, as in `bending.SMOOTHING`, in the surface that tells which points to be wary of."""
ALIKE = 0.75
"""Points within this share of a block, one and a half windows, err alike: windows and what is pooled overlap."""
FAR = 1.5
"""Beyond so many steps of a coarse lattice from the nearest control point a spline is anchored."""
ANCHOR_SMOOTHING, ANCHOR_WEIGHT = 0.1, 0.05
"""How stiff that is which holds it there, as `bending.calm` has it, and its weight beside that of a control point."""
FOLDS = 5
"""Parts into which blocks of the scene are dealt; each is left out once."""
FEWEST_BLOCKS, MOST_BLOCKS = 3, 8
"""Blocks along the longer side of a scene; small scenes have small blocks, and large ones large blocks."""
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
        squares: N, squared residual in pixels at each point when its block was left out of the fit; infinite
            where too few points were left to fit to.
        error: Their root mean square, each point weighing as much as it is trusted.
    """

    model: Model
    smoothing: float
    squares: Array
    error: float


@dataclass(frozen=True)
class Choice:
    """The model taken.

    Attributes:
        model: Which one.
        where: The map it gives.
        matrix: 2 x 3, where the map is affine; else None.
        error: Root mean square residual in pixels at points in blocks left out of the fit, all points alike.
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
        weight: N, how much each point is to be trusted beside the others.
        shape: Height and width of the scene.
        block: Side in pixels of the blocks that are left out, if the scene has neither too few nor too many of these.
        buffer: Points nearer than this to one left out, in pixels, are not fitted to either: windows that overlap
            err in the same way.
        tolerance: Residual in pixels beyond which a point has no weight.
    """

    source: Array
    target: Array
    weight: Array
    shape: tuple[int, int]
    block: float
    buffer: float
    tolerance: float

    def of(self, chosen: npt.NDArray[np.bool_]) -> Evidence:
        """Some of the points."""
        return replace(self, source=self.source[chosen], target=self.target[chosen], weight=self.weight[chosen])


def choose(evidence: Evidence, allowed: Sequence[Model]) -> Choice:
    """Compare the models that are allowed, and the identity, and fit the best to all points.

    Models are compared where no window overlaps one that was fitted to, and a stiff one is kept unless a suppler one
    is clearly better.
    """
    evidence = _wary(evidence)
    identity, *others = candidates(evidence, allowed)
    best, place = identity, blocks(evidence)
    for candidate in others:
        if candidate.model == best.model:
            better = candidate.error < best.error
        else:
            better = _clearly_better(candidate, best, evidence.weight, place)
        best = candidate if better else best
    splines = [candidate for candidate in others if candidate.model == "thin_plate"]
    smoothing = _stiffest(splines) if best.model == "thin_plate" and evidence.buffer else best.smoothing
    squares = _close(evidence, best.model, smoothing) if evidence.buffer else best.squares
    where = fit(evidence, best.model, smoothing)
    matrix = where.matrix if isinstance(where, AffineMap) else None
    left, of_none = (float(np.sqrt(part.mean())) for part in (squares, identity.squares))
    return Choice(best.model, where, matrix, left, of_none)


def _wary(evidence: Evidence) -> Evidence:
    """The same points, those far from a smooth surface through all of them trusted less."""
    if len(evidence.source) < LEAST["thin_plate"]:
        return evidence
    places, moves = _scaled(evidence)
    return replace(evidence, weight=bending.wary(places, moves, evidence.weight, SUPPLE))


def _close(evidence: Evidence, model: Model, smoothing: float) -> Array:
    """Squared residuals at points left out, with neighbours for a spline, else a block at a time."""
    if model == "thin_plate":
        return bending.apart(*_scaled(evidence), evidence.weight, smoothing, _alike(evidence) / 2.0)
    close = replace(evidence, buffer=0.0)
    return held_out(close, deal(close), model)


def _stiffest(splines: Sequence[Candidate]) -> float:
    """Smoothing of the stiffest spline that tells points left out nearly as well as the best one."""
    enough = (1.0 + MARGIN) * min(spline.error for spline in splines)
    return next(spline.smoothing for spline in splines if spline.error <= enough)


def _alike(evidence: Evidence) -> float:
    """The distance within which points err alike, as `_scaled` has it."""
    return ALIKE * evidence.block / (max(evidence.shape) / 2.0)


def _clearly_better(one: Candidate, other: Candidate, weight: Array, place: npt.NDArray[np.int64]) -> bool:
    """Whether a model tells points left out better than a stiffer one by a margin; one that bends, beyond chance too.

    Chance is the standard error of the mean gain over the blocks: neighbouring points err alike, so it is blocks that
    count, not points. (The rule of one standard error, Breiman et al., Classification and Regression Trees, 1984.)
    """
    margin = MARGIN_OF_NONE if other.model == "none" else MARGIN
    if not one.error < (1.0 - margin) * other.error:
        return False
    if one.model not in BENDING:
        return True
    gain = np.bincount(place, weight * (other.squares - one.squares))
    share = np.bincount(place, weight) / weight.sum()
    mean = gain.sum()
    number = np.count_nonzero(share)
    spread = ((gain - share * mean) ** 2).sum() * number / max(number - 1, 1)
    return bool(mean > np.sqrt(spread))


def candidates(evidence: Evidence, allowed: Sequence[Model]) -> list[Candidate]:
    """Each model with its error at points left out, from stiff to supple, the identity first."""
    folds = deal(evidence)
    found = []
    for model in ORDER:
        if model != "none" and (model not in allowed or len(evidence.source) < LEAST[model]):
            continue
        for smoothing in bending.SMOOTHING[::-1] if model == "thin_plate" else (0.0,):
            squares = held_out(evidence, folds, model, smoothing)
            found.append(Candidate(model, smoothing, squares, _error(evidence, squares)))
    return found


def _error(evidence: Evidence, squares: Array) -> float:
    """Root mean square, each point weighing as much as it is trusted."""
    return float(np.sqrt(np.average(squares, weights=evidence.weight)))


def deal(evidence: Evidence) -> npt.NDArray[np.int64]:
    """Number of the fold of each point: whole blocks are left out, and no two neighbours together."""
    column, row = _column_and_row(evidence)
    return np.asarray((column + 2 * row) % FOLDS)


def blocks(evidence: Evidence) -> npt.NDArray[np.int64]:
    """Number of the block that each point lies in."""
    column, row = _column_and_row(evidence)
    return np.asarray(row * (column.max() + 1) + column)


def _column_and_row(evidence: Evidence) -> npt.NDArray[np.int64]:
    longest = max(evidence.shape)
    side = np.clip(evidence.block, longest / MOST_BLOCKS, longest / FEWEST_BLOCKS)
    return np.asarray(np.maximum(evidence.source // side, 0).astype(np.int64).T)


def held_out(evidence: Evidence, folds: npt.NDArray[np.int64], model: Model, smoothing: float = 0.0) -> Array:
    """Squared residual in pixels at each point from a fit that has not seen its surroundings; N.

    Stiff models have not seen the block that a point lies in nor, where windows overlap, what lies nearer to that
    than a window. Where a scene bends within such a hole no spline tells it, however well it would follow the bend;
    so splines have not seen the points around each that err alike, enough to show whether they follow errors.
    """
    if model == "thin_plate" and evidence.buffer:
        return _held_out_of_spline(evidence, smoothing)
    squares = np.full(len(evidence.source), np.inf)
    for left_out in np.unique(folds):
        test = folds == left_out
        train = _apart(evidence, test)
        if train.sum() < LEAST[model]:
            if model in BENDING or test.all():
                return np.full(len(squares), np.inf)
            train = ~test
        where = _fit(evidence.of(train), model, smoothing)
        squares[test] = ((where(evidence.source[test]) - evidence.target[test]) ** 2).sum(axis=1)
    return squares


def _held_out_of_spline(evidence: Evidence, smoothing: float) -> Array:
    """Squared residuals at points from a spline that has not seen those that err alike; infinite if few are left."""
    (places, moves), near = _scaled(evidence), _alike(evidence)
    around = cKDTree(places).query_ball_point(places, near, return_length=True)
    if len(places) - around.max() < LEAST["thin_plate"]:
        return np.full(len(places), np.inf)
    return bending.apart(places, moves, evidence.weight, smoothing, near)


def _apart(evidence: Evidence, test: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The points that are neither left out nor near one that is."""
    distance, _ = cKDTree(evidence.source[test]).query(evidence.source)
    return np.asarray(~test & (distance >= evidence.buffer))


def fit(evidence: Evidence, model: Model, smoothing: float = 0.0) -> PointMap:
    """The map of a model fitted to agreeing points; those that bend are given on a lattice."""
    where = _fit(_anchored(evidence) if model == "thin_plate" else evidence, model, smoothing)
    return where if isinstance(where, AffineMap) else LatticeMap(on_lattice(where, evidence.shape))


def _anchored(evidence: Evidence) -> Evidence:
    """The points, and far from all of them places that hold a spline to what bends less, since it runs away there."""
    height, width = evidence.shape
    step = max(evidence.block / 2.0, max(height, width) / (NODES - 1))
    xs, ys = (np.arange(0.0, side + step, step) for side in (width, height))
    nodes = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2)
    distance, _ = cKDTree(evidence.source).query(nodes)
    nodes = nodes[distance > FAR * step]
    places, moves = _scaled(evidence)
    calm = _in_pixels(bending.calm(places, moves, evidence.weight, ANCHOR_SMOOTHING), evidence)(nodes)
    weight = np.full(len(nodes), ANCHOR_WEIGHT * float(np.median(evidence.weight)))
    source, target = np.vstack([evidence.source, nodes]), np.vstack([evidence.target, calm])
    return replace(evidence, source=source, target=target, weight=np.concatenate([evidence.weight, weight]))


def _fit(evidence: Evidence, model: Model, smoothing: float) -> PointMap:
    source, target = evidence.source, evidence.target
    if model == "none":
        return AffineMap(IDENTITY)
    if model in ("shift", "affine"):
        everyone = np.ones(len(source), dtype=bool)
        return AffineMap(affine_fit.refine(source, target, everyone, evidence.weight, evidence.tolerance, model))
    places, moves = _scaled(evidence)
    if model == "quadratic":
        surface = bending.quadratic(places, moves, evidence.weight)
    else:
        surface = bending.spline(places, moves, evidence.weight, smoothing)
    return _in_pixels(surface, evidence)


def _in_pixels(surface: PointMap, evidence: Evidence) -> PointMap:
    """The map that a surface of displacements over places as `_scaled` has them makes."""
    half = max(evidence.shape) / 2.0
    return lambda points: np.asarray(points + surface((points - half) / half))


def _scaled(evidence: Evidence) -> tuple[Array, Array]:
    """Places in halves of the scene's longer side from its corner and that far again, and displacements in pixels."""
    half = max(evidence.shape) / 2.0
    return (evidence.source - half) / half, evidence.target - evidence.source
