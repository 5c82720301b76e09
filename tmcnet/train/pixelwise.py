"""Fit the classifiers of single pixels, on the same labels and validation part as the networks."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import TileDataset
from tmcnet.evaluate.metrics import Counts, confusion, headline
from tmcnet.evaluate.trained import require_labelled, validate
from tmcnet.model.encoder_features import COMPONENTS, EncoderFeatures
from tmcnet.model.pixelwise import ABSENT, PixelBoosting, PixelLogistic, PixelMLP, Pixelwise
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.loop import Curves
from tmcnet.train.perceptron import MIN_DEVIATION, Pixels, draw_pixels, fit_perceptron

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingClassifier

MAX_SOLVER_ITERATIONS = 1000
"""Far more than the logistic regression needs on standardised features."""

MAX_LEAVES = 15
"""Maximum number of leaves of a boosted tree."""

L2_PENALTY = 1.0
"""Weight of the L2 penalty of logistic regression and boosting beside the sum of the losses."""

PIXELS_PER_TILE = 500
"""The pixels of a tile are alike: in logistic regression they weigh as much as this many independent ones."""

COMPONENT_PENALTY = 100
"""Ratio of the L2 penalty of components to that of context features: they are many, and fit few labelled tiles by
chance."""

VALIDATIONS = 10
"""Number of validations over all boosting rounds."""

MIN_LEAF_PIXELS = 20
"""Minimum number of pixels in a leaf, scikit-learn's default; fewer if a class has few pixels."""

MAX_BINS = 255
"""Bins per feature, the maximum of scikit-learn."""

COMPONENT_TILES, CELLS_PER_TILE = 100, 200
"""Maximum number of tiles, and of cells of each, to which principal components are fitted."""

State = dict[str, Tensor]


@dataclass
class Fitted:
    """A fitted network or baseline.

    Attributes:
        last_step: Steps, boosting rounds or solver iterations done; 0 if the labels have one class only.
        best_step: The step that is kept, or rounds or iterations.
        best: Scores on the validation part.
        weights: Tensors of the network.
        notes: Warnings, such as a solver that did not converge.
    """

    last_step: int = 0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    weights: State = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def fit_pixelwise(
    network: Pixelwise,
    train: TileDataset,
    val: TileDataset,
    counts: Counts,
    balance: Tensor,
    config: FinetuneSettings,
    threads: int,
    seed: int,
) -> tuple[Curves, Fitted]:
    """Fit a baseline on pixels of labelled tiles.

    Args:
        network: An empty classifier; has the fitted tensors afterwards.
        train: The labelled tiles.
        val: The validation tiles. With `keep: best` they determine the number of boosting rounds.
        counts: Labelled pixels of each class in the training tiles.
        balance: K weights of the classes; ones for none.
        config: Pixels, rounds and penalties.
        threads: Threads of scikit-learn.
        seed: Seed of the draws.

    Returns:
        The curves and the result.

    Raises:
        InputError: If no pixel of the validation tiles is labelled.
    """
    curves: Curves = {}
    fitted = Fitted()
    with threadpool_limits(threads):
        pixels = draw_pixels(network.features, train, counts, balance.double().numpy(), config, seed)
        if isinstance(network, PixelMLP):
            steps = fit_perceptron(network.perceptron, pixels, config.pixelwise.steps, seed)
            fitted.last_step = fitted.best_step = steps
            fitted.weights = network.state_dict()
        elif not isinstance(network, PixelLogistic | PixelBoosting):
            fitted.last_step = fitted.best_step = 1
            fitted.weights = network.fit(*map(torch.from_numpy, (pixels.values, pixels.truth, pixels.weights)))
        elif len(np.unique(pixels.truth)) == 1:
            offset = "bias" if isinstance(network, PixelLogistic) else "base"  # is added to the logits of every pixel
            fitted.weights = {**network.state_dict(), offset: _logits(len(counts), pixels.truth[:1], [0.0])}
        elif isinstance(network, PixelLogistic):
            _fit_logistic(pixels, len(counts), len(set(train.names)), fitted)
        else:
            _fit_boosting(network, pixels, val, config, seed, fitted, curves)
    fitted.weights |= _features_state(network)
    network.load_state_dict(fitted.weights)
    if not fitted.best:  # boosting has validated already
        fitted.best = validate(network, val, len(counts), config.batch_size)
        loss = _loss(network.scores(torch.from_numpy(pixels.values.T.copy())), pixels)
        curves[fitted.best_step] = {"loss": loss, "val_miou": fitted.best["miou"], "val_oa": fitted.best["oa"]}
    for note in fitted.notes:
        print(note, file=sys.stderr, flush=True)
    return curves, fitted


def _features_state(network: Pixelwise) -> State:
    """Return the tensors of the features, which are fixed before the classifier is fitted."""
    return {f"features.{name}": tensor for name, tensor in network.features.state_dict().items()}


def _logits(classes: int, present: NDArray[np.int64], values: Sequence[float] | NDArray[np.float64]) -> Tensor:
    """Return K values, `ABSENT` for classes without labels."""
    logits = torch.full((classes,), ABSENT)
    logits[torch.from_numpy(present)] = torch.as_tensor(values, dtype=torch.float32)
    return logits


def _loss(logits: Tensor, pixels: Pixels) -> float:
    """Return the weighted mean cross-entropy of logits K x P."""
    losses = F.cross_entropy(logits.T, torch.from_numpy(pixels.truth), reduction="none").double()
    return float((losses * torch.from_numpy(pixels.weights)).mean())


def _fit_logistic(pixels: Pixels, classes: int, tiles: int, fitted: Fitted) -> None:
    """Fit logistic regression on the scaled features of pixels of a number of tiles."""
    # here, because trainings of networks do not need scikit-learn and import this module too
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, scale = pixels.values.mean(axis=0, dtype=np.float64), pixels.scale
    scale[np.isinf(scale)] = 1
    scale[len(scale) - pixels.components :] *= math.sqrt(COMPONENT_PENALTY)
    model = LogisticRegression(C=1 / L2_PENALTY, max_iter=MAX_SOLVER_ITERATIONS)
    weights = pixels.weights * min(PIXELS_PER_TILE * tiles / len(pixels.truth), 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit((pixels.values - mean) / scale, pixels.truth, sample_weight=weights)
    fitted.notes = [str(w.message).splitlines()[0] for w in caught]
    fitted.last_step = fitted.best_step = int(model.n_iter_.max())
    slopes, offsets = model.coef_, model.intercept_
    if len(slopes) == 1:  # with two classes only the second has a logit; that of the first is 0
        slopes, offsets = (np.concatenate([np.zeros_like(values), values]) for values in (slopes, offsets))
    weight = torch.zeros(classes, slopes.shape[1])
    weight[torch.from_numpy(model.classes_)] = torch.from_numpy(slopes).float()
    bias = _logits(classes, model.classes_, offsets)
    scaling = {"mean": torch.from_numpy(mean).float(), "scale": torch.from_numpy(scale).float()}
    fitted.weights |= {"weight": weight, "bias": bias, **scaling}


def _fit_boosting(
    network: PixelBoosting,
    pixels: Pixels,
    val: TileDataset,
    config: FinetuneSettings,
    seed: int,
    fitted: Fitted,
    curves: Curves,
) -> None:
    """Boost for all rounds, and keep all of them or, with `keep: best`, the number best on the validation part.

    Held-out pixels of the training tiles would not do: their neighbours are trained on, so more rounds would always
    look better.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # here for the same reason as above

    settings = config.pixelwise
    model = HistGradientBoostingClassifier(
        learning_rate=settings.learning_rate,
        max_iter=settings.iterations,
        max_leaf_nodes=MAX_LEAVES,
        l2_regularization=L2_PENALTY,
        early_stopping=False,
        # with few points, the default minimum would give trees without a single split
        min_samples_leaf=min(MIN_LEAF_PIXELS, max(1, len(pixels.truth) // (2 * len(np.unique(pixels.truth))))),
        random_state=derive_seed(seed, "boosting") % 2**32,
    )
    edges = _edges(pixels.values)
    model.fit(_binned(pixels.values, edges), pixels.truth, sample_weight=pixels.weights)
    validations = min(VALIDATIONS, settings.iterations)
    rounds = np.linspace(0, settings.iterations, validations + 1).round().astype(int)[1:]
    stages = [copy.deepcopy(network, {id(network.features): network.features}) for _ in rounds]  # one encoder for all
    for stage, first, last in zip(stages, [0, *rounds], rounds, strict=False):
        stage.load_state_dict(_trees(model, edges, len(network.base), first, last) | _features_state(network))
    matrices = _staged_confusion(stages, val)
    require_labelled(matrices[0], val)
    scores = [headline(matrix) for matrix in matrices]
    totals = _staged_logits(stages, torch.from_numpy(pixels.values.T.copy()))
    for step, total, score in zip(rounds, totals, scores, strict=True):
        measured = {"loss": _loss(total, pixels), "val_miou": score["miou"], "val_oa": score["oa"]}
        curves[int(step)] = {**measured, "learning_rate": settings.learning_rate}
    last = len(rounds) - 1
    best = last if config.keep != "best" else int(np.nan_to_num([score["miou"] for score in scores]).argmax())
    fitted.last_step, fitted.best_step, fitted.best = int(rounds[-1]), int(rounds[best]), scores[best]
    fitted.weights = _trees(model, edges, len(network.base), 0, fitted.best_step)


def _staged_logits(stages: Sequence[PixelBoosting], values: Tensor) -> Iterator[Tensor]:
    """Yield the logits K x P after each stage; a stage has the trees of some rounds."""
    total = torch.zeros(())
    for stage in stages:
        total = total + stage.scores(values)
        yield total


def _staged_confusion(stages: Sequence[PixelBoosting], val: TileDataset) -> Counts:
    """Return the S x K x K confusion matrices of the validation tiles after each of S stages."""
    classes = len(stages[0].base)
    pooled = np.zeros((len(stages), classes, classes), dtype=np.int64)
    for index in range(len(val)):
        tile = val[index]
        values = stages[0].features(*(image[None] for image in tile.images.values()))[0].flatten(1)
        truth = tile.truth.numpy().ravel()
        for place, logits in enumerate(_staged_logits(stages, values)):
            pooled[place] += confusion(truth, logits.argmax(dim=0).numpy(), classes)
    return pooled


def _edges(values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the upper edges of the bins of each feature but the last: quantiles of the drawn pixels.

    The pixels are drawn evenly over the classes, so rare ones are resolved well. Binning in scikit-learn with
    weighted pixels takes longer than the boosting.
    """
    shares = np.linspace(0, 1, MAX_BINS + 1)[1:-1]
    return [np.unique(column) for column in np.quantile(values, shares, axis=0).astype(np.float32).T]


def _binned(values: NDArray[np.float32], edges: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return the bin of each value, P x F."""
    columns = [np.searchsorted(edge, column) for edge, column in zip(edges, values.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def _trees(
    model: HistGradientBoostingClassifier, edges: Sequence[NDArray[np.float32]], classes: int, first: int, last: int
) -> State:
    """Return the tensors of `PixelBoosting` for some rounds; the first round brings the offsets of the classes.

    scikit-learn has no public access to its trees, so `_predictors` and `_baseline_prediction` are used; a test
    compares the predictions of `PixelBoosting` with those of scikit-learn and fails if these attributes change.
    """
    present = model.classes_[-model.n_trees_per_iteration_ :]  # with two classes, only the second has trees
    trees = [tree.nodes for one_round in model._predictors[first:last] for tree in one_round]
    nodes, sizes = np.concatenate(trees), [len(tree) for tree in trees]
    starts = np.cumsum([0, *sizes[:-1]])
    leaf = nodes["is_leaf"].astype(bool)
    base = torch.zeros(classes)
    if first == 0:
        offsets = np.zeros(len(model.classes_))
        offsets[-len(present) :] = model._baseline_prediction.ravel()
        base = _logits(classes, model.classes_, offsets)
    integers = {
        "feature": np.where(leaf, -1, nodes["feature_idx"]),
        "left": np.where(leaf, 0, nodes["left"] + np.repeat(starts, sizes)),
        "right": np.where(leaf, 0, nodes["right"] + np.repeat(starts, sizes)),
        "root": starts,
        "target": np.tile(present, last - first),
    }
    state = {name: torch.from_numpy(values.astype(np.int32)) for name, values in integers.items()}
    threshold = np.zeros(len(nodes), dtype=np.float32)
    for place in np.flatnonzero(~leaf):
        threshold[place] = edges[nodes["feature_idx"][place]][int(nodes["num_threshold"][place])]
    value = torch.from_numpy(nodes["value"]).float()
    return {**state, "threshold": torch.from_numpy(threshold), "value": value, "base": base}


@torch.no_grad()
def fit_components(features: EncoderFeatures, tiles: TileDataset, seed: int) -> None:
    """Fit the principal components of standardised encoder maps, in place; no label is used.

    The first gets a variance of 1, and the others keep their proportion to it.

    Args:
        features: The features, with their encoders loaded.
        tiles: Unlabelled training tiles, of which at most `COMPONENT_TILES` are read.
        seed: Seed of the draws of tiles and cells.
    """
    random = generator(seed, "components")
    chosen = np.sort(random.choice(len(tiles), min(len(tiles), COMPONENT_TILES), replace=False))
    cells = []
    for index in map(int, chosen):
        channels = features.channels(*(image[None] for image in tiles[index].images.values()))[0].flatten(1)
        places = random.choice(channels.shape[1], min(channels.shape[1], CELLS_PER_TILE), replace=False)
        cells.append(channels[:, torch.from_numpy(np.sort(places))].T.double().numpy())
    values = np.concatenate(cells)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    inverse = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > MIN_DEVIATION)
    standardised = (values - mean) * inverse
    variances, axes = np.linalg.eigh(standardised.T @ standardised / len(values))
    axes = axes[:, ::-1][:, :COMPONENTS].T  # the largest first
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1))
    projection = np.zeros((COMPONENTS, len(mean)))
    projection[: len(axes)] = axes * inverse / np.sqrt(max(variances[-1], 1))
    features.set_components(torch.from_numpy(mean).float(), torch.from_numpy(projection).float())
