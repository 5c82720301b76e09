"""Fitting of the pixel-wise baselines with scikit-learn, on the labels and the validation part of the networks."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.metrics import Counts, Floats, confusion, headline
from tmcnet.model.pixelwise import ABSENT, PixelBoosting, PixelLogistic, Pixelwise
from tmcnet.model.texture import PixelFeatures
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.callbacks import Curves
from tmcnet.train.validate import require_labelled, validate

MAX_SOLVER_ITERATIONS = 1000
"""Far more than the logistic regression needs on standardised features."""

MAX_LEAVES = 15
"""Maximum number of leaves of a boosted tree."""

L2_PENALTY = 1.0
"""Weight of the L2 penalty of both baselines, scikit-learn's default for logistic regression."""

LOOKS = 10
"""Looks at the validation part over all boosting rounds."""

FEWEST_IN_LEAF = 20
"""Pixels in a leaf at least, as scikit-learn has it; fewer where there are few pixels of a class."""

BINS = 255
"""Steps into which each feature is cut before boosting, the most that scikit-learn takes."""

State = dict[str, Tensor]


@dataclass
class Fitted:
    """A fitted baseline.

    Attributes:
        last_step: Boosting rounds or solver iterations done; 0 where the labels name one class only.
        best_step: Those that are kept.
        best: Scores on the validation part.
        weights: Tensors of the network.
        notes: What went otherwise than hoped for, such as a solver that did not converge.
    """

    last_step: int = 0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    weights: State = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    stopped_early = False


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
        network: An empty `PixelLogistic` or `PixelBoosting`; holds the fitted tensors afterwards.
        train: The labelled tiles.
        val: The validation tiles. They choose the number of boosting rounds and are scored.
        counts: Labelled pixels of each class in the training tiles.
        balance: K weights of the classes; ones for none.
        config: Pixels, rounds and penalties.
        threads: Threads of scikit-learn.
        seed: Seed of what is drawn.

    Returns:
        The curves, and what was fitted.

    Raises:
        InputError: If no pixel of the validation tiles is labelled.
    """
    curves, fitted = Curves(1, config.pixelwise.iterations), Fitted()
    with threadpool_limits(threads):
        pixels = draw_pixels(network.features, train, counts, balance.double().numpy(), config, seed)
        if len(np.unique(pixels.truth)) == 1:
            fitted.weights = {**network.state_dict(), _offset(network): _logits(len(counts), pixels.truth[:1], [0.0])}
        elif isinstance(network, PixelLogistic):
            _fit_logistic(pixels, len(counts), fitted)
        elif isinstance(network, PixelBoosting):
            _fit_boosting(network, pixels, val, config, seed, fitted, curves)
    network.load_state_dict(fitted.weights)
    if not fitted.best:  # boosting has looked already
        fitted.best = validate(network, val, len(counts), config.batch_size)
        loss = _loss(network.scores(torch.from_numpy(pixels.values.T.copy())), pixels)
        curves.add(fitted.best_step, loss=loss, val_miou=fitted.best["miou"], val_oa=fitted.best["oa"])
    for note in fitted.notes:
        print(note, file=sys.stderr, flush=True)
    return curves, fitted


def _offset(network: Pixelwise) -> str:
    """Name of the tensor that is added to the logits of every pixel."""
    return "bias" if isinstance(network, PixelLogistic) else "base"


def _logits(classes: int, present: NDArray[np.int64], values: Sequence[float] | NDArray[np.float64]) -> Tensor:
    """K values, `ABSENT` for the classes that no label names."""
    logits = torch.full((classes,), ABSENT)
    logits[torch.from_numpy(present)] = torch.as_tensor(values, dtype=torch.float32)
    return logits


def _loss(logits: Tensor, pixels: Pixels) -> float:
    """Mean cross-entropy of weighted pixels, of logits K x P."""
    losses = F.cross_entropy(logits.T, torch.from_numpy(pixels.truth), reduction="none").double()
    return float((losses * torch.from_numpy(pixels.weights)).mean())


def _fit_logistic(pixels: Pixels, classes: int, fitted: Fitted) -> None:
    scaler = StandardScaler().fit(pixels.values.astype(np.float64))
    model = LogisticRegression(C=1 / L2_PENALTY, max_iter=MAX_SOLVER_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(scaler.transform(pixels.values.astype(np.float64)), pixels.truth, sample_weight=pixels.weights)
    fitted.notes = [str(w.message).splitlines()[0] for w in caught]
    fitted.last_step = fitted.best_step = int(model.n_iter_.max())
    slopes, offsets = model.coef_, model.intercept_
    if len(slopes) == 1:  # of two classes only the second has a logit; that of the first is 0
        slopes, offsets = (np.concatenate([np.zeros_like(values), values]) for values in (slopes, offsets))
    weight = torch.zeros(classes, slopes.shape[1])
    weight[torch.from_numpy(model.classes_)] = torch.from_numpy(slopes).float()
    mean, scale = (torch.from_numpy(values).float() for values in (scaler.mean_, scaler.scale_))
    bias = _logits(classes, model.classes_, offsets)
    fitted.weights = {"weight": weight, "bias": bias, "mean": mean, "scale": scale}


def _fit_boosting(
    network: PixelBoosting,
    pixels: Pixels,
    val: TileDataset,
    config: FinetuneSettings,
    seed: int,
    fitted: Fitted,
    curves: Curves,
) -> None:
    """Boost for all rounds, and keep as many as do best on the validation part.

    No pixels of the training tiles are set aside to stop at: their neighbours are learnt from, so they would always
    ask for more rounds.
    """
    settings = config.pixelwise
    model = HistGradientBoostingClassifier(
        learning_rate=settings.learning_rate,
        max_iter=settings.iterations,
        max_leaf_nodes=MAX_LEAVES,
        l2_regularization=L2_PENALTY,
        early_stopping=False,
        # of few points, as many in a leaf as scikit-learn asks for would leave trees without a single split
        min_samples_leaf=min(FEWEST_IN_LEAF, max(1, len(pixels.truth) // (2 * len(np.unique(pixels.truth))))),
        random_state=derive_seed(seed, "boosting") % 2**32,
    )
    edges = _edges(pixels.values)
    model.fit(_binned(pixels.values, edges), pixels.truth, sample_weight=pixels.weights)
    rounds = np.unique(np.linspace(0, settings.iterations, LOOKS + 1).round().astype(int)[1:])
    stages = [copy.deepcopy(network) for _ in rounds]
    for stage, first, last in zip(stages, [0, *rounds], rounds, strict=False):
        stage.load_state_dict(_trees(model, edges, len(network.base), first, last))
    matrices = _staged_confusion(stages, val)
    require_labelled(matrices[0], val)
    scores = [headline(matrix) for matrix in matrices]
    totals = _staged_logits(stages, torch.from_numpy(pixels.values.T.copy()))
    for step, total, score in zip(rounds, totals, scores, strict=True):
        measured = {"loss": _loss(total, pixels), "val_miou": score["miou"], "val_oa": score["oa"]}
        curves.add(int(step), **measured, learning_rate=settings.learning_rate)
    best = int(np.nan_to_num([score["miou"] for score in scores]).argmax())
    fitted.last_step, fitted.best_step, fitted.best = int(rounds[-1]), int(rounds[best]), scores[best]
    fitted.weights = _trees(model, edges, len(network.base), 0, fitted.best_step)


def _staged_logits(stages: Sequence[PixelBoosting], values: Tensor) -> Iterator[Tensor]:
    """Logits K x P after each stage, each of which holds the trees of some more rounds."""
    total = torch.zeros(())
    for stage in stages:
        total = total + stage.scores(values)
        yield total


def _staged_confusion(stages: Sequence[PixelBoosting], val: TileDataset) -> Counts:
    """S x K x K confusion matrices of the validation tiles after each of S stages."""
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
    """Upper edges of the steps of each feature but the last: quantiles of the drawn pixels.

    Drawn evenly over the classes, they resolve rare ones well. scikit-learn would cut the features itself, but its
    quantiles of weighted pixels take longer than the boosting.
    """
    shares = np.linspace(0, 1, BINS + 1)[1:-1]
    return [np.unique(column) for column in np.quantile(values, shares, axis=0).astype(np.float32).T]


def _binned(values: NDArray[np.float32], edges: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Number of the step that each value lies in, P x F."""
    columns = [np.searchsorted(edge, column) for edge, column in zip(edges, values.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.uint8)


def _trees(
    model: HistGradientBoostingClassifier, edges: Sequence[NDArray[np.float32]], classes: int, first: int, last: int
) -> State:
    """Tensors of `PixelBoosting` for some rounds of boosting; the first one brings the offsets of the classes.

    Trees lie in attributes that scikit-learn does not document; a test compares the two predictions.
    """
    present = model.classes_[-model.n_trees_per_iteration_ :]  # of two classes, trees grow for the second only
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


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels.

    Attributes:
        values: P x F float32 features.
        truth: P class ids.
        weights: P float64, 1 on average.
    """

    values: NDArray[np.float32]
    truth: NDArray[np.int64]
    weights: Floats


def quotas(counts: Counts, most: int) -> Counts:
    """How many pixels of each class are drawn: all evenly, and where a class has fewer, the others share the rest.

    Args:
        counts: Labelled pixels of each class.
        most: Pixels in all at most.

    Returns:
        K int64, none above `counts`, that add up to `most` or to all pixels there are.
    """
    drawn = np.zeros_like(counts)
    rest, order = most, np.argsort(counts, kind="stable")
    for place, class_id in enumerate(order):  # the rarest first, so that what it leaves is known
        drawn[class_id] = min(counts[class_id], rest // (len(order) - place))
        rest -= drawn[class_id]
    return drawn


def draw_pixels(
    features: PixelFeatures, tiles: TileDataset, counts: Counts, balance: Floats, config: FinetuneSettings, seed: int
) -> Pixels:
    """Draw pixels and compute their features, tile by tile: no more is held than one tile and the drawn pixels.

    A drawn pixel of a class stands for `counts / quotas` pixels, and each of these weighs `balance`, as in the
    training of the networks. Its weight is the product of the two: the even drawing takes no class its frequency, it
    only lowers the noise of the rare ones.

    Where the config shows networks samples with one sensor missing (`modality_dropout`), so it does here, pixel by
    pixel.

    Args:
        features: What is computed.
        tiles: The labelled tiles.
        counts: Labelled pixels of each class in them.
        balance: Weight of each class; ones for none.
        config: Pixels at most, and the chance that a sensor is missing.
        seed: Seed of the drawing.
    """
    drawn = quotas(counts, config.pixelwise.pixels)
    random = generator(seed, "pixels")
    ranks = [np.sort(random.choice(*pair, replace=False, shuffle=False)) for pair in zip(counts, drawn, strict=True)]
    seen = np.zeros(len(counts), dtype=np.int64)
    values, truths = [], []
    for index, name in enumerate(tiles.names):
        tile = tiles[index]
        label = tile.truth.numpy().ravel()
        places = _places(label, ranks, seen)
        if len(places):
            values.append(_values(features, tile, places, config.modality_dropout, generator(seed, "hide", name)))
            truths.append(label[places])
    truth = np.concatenate(truths)
    weights = (balance * counts / np.maximum(drawn, 1))[truth]
    return Pixels(np.concatenate(values), truth, weights / weights.mean())


def _places(label: NDArray[np.int64], ranks: list[NDArray[np.int64]], seen: Counts) -> NDArray[np.int64]:
    """The drawn pixels of a tile; `seen`, the pixels of each class in earlier tiles, is brought up to date."""
    found = []
    for class_id, chosen in enumerate(ranks):
        here = np.flatnonzero(label == class_id)
        first, last = np.searchsorted(chosen, [seen[class_id], seen[class_id] + len(here)])
        found.append(here[chosen[first:last] - seen[class_id]])
        seen[class_id] += len(here)
    return np.sort(np.concatenate(found))


def _values(
    features: PixelFeatures, tile: Tile, places: NDArray[np.int64], dropout: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Features P x F of pixels, of which a share lacks one modality; `hidden` counts them from 1."""
    images = [image[None] for image in tile.images.values()]
    hidden = np.where(random.random(len(places)) < dropout, random.integers(1, len(images) + 1, len(places)), 0)
    values = np.empty((len(places), features.count(sum(image.shape[1] for image in images))), dtype=np.float32)
    for number in np.unique(hidden):
        mine = hidden == number
        seen = [torch.zeros_like(image) if n == number else image for n, image in enumerate(images, start=1)]
        values[mine] = features(*seen)[0].flatten(1)[:, torch.from_numpy(places[mine])].T.numpy()
    return values
