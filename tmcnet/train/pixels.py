"""Labelled pixels drawn from tiles, with their features: what classifiers of single pixels are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.metrics import Counts, Floats
from tmcnet.model.context import ContextFeatures
from tmcnet.model.encoder_features import EncoderFeatures
from tmcnet.seeding import generator

MIN_TILES_FOR_LARGE_WINDOWS, MAX_SMALL_WINDOW = 12, 15
"""With fewer labelled tiles, large context windows fit them by chance: `keep: labels` uses those up to 15 pixels."""


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


def pixels_per_class(counts: Counts, max_pixels: int) -> Counts:
    """Return the number of pixels to draw of each class: equal, or fewer if a class has fewer; others share the rest.

    Args:
        counts: Labelled pixels of each class.
        max_pixels: Maximum number of pixels.

    Returns:
        K int64, none above `counts`, that add up to `max_pixels` or to all pixels there are.
    """
    drawn = np.zeros_like(counts)
    rest, order = max_pixels, np.argsort(counts, kind="stable")
    for place, class_id in enumerate(order):  # the rarest first, so that what it leaves is known
        drawn[class_id] = min(counts[class_id], rest // (len(order) - place))
        rest -= drawn[class_id]
    return drawn


def draw_pixels(
    features: ContextFeatures | EncoderFeatures,
    tiles: TileDataset,
    counts: Counts,
    balance: Floats,
    config: FinetuneSettings,
    seed: int,
    inputs: Callable[[Mapping[str, Tensor]], Sequence[Tensor]] = lambda images: list(images.values()),
) -> Pixels:
    """Draw pixels and compute their features tile by tile; memory holds one tile and the drawn pixels.

    A drawn pixel of a class represents `counts / drawn` pixels of weight `balance`, as in the training of the
    networks; its weight is the product. Drawing evenly only lowers the noise of rare classes.

    With `modality_dropout`, single pixels lack one modality, as samples do for networks.

    Args:
        features: The features to compute.
        tiles: The labelled tiles.
        counts: Labelled pixels of each class in them.
        balance: Weight of each class; ones for none.
        config: Maximum number of pixels, and the modality dropout.
        seed: Seed of the draw.
        inputs: Makes the images of the features from those of all modalities.
    """
    drawn = pixels_per_class(counts, config.pixelwise.pixels)
    random = generator(seed, "pixels")
    ranks = [np.sort(random.choice(*pair, replace=False, shuffle=False)) for pair in zip(counts, drawn, strict=True)]
    seen = np.zeros(len(counts), dtype=np.int64)
    values, truths = [], []
    for index, name in enumerate(tiles.names):
        tile = tiles[index]
        label = tile.truth.numpy().ravel()
        places = _places(label, ranks, seen)
        if len(places):
            hidden = _hidden(len(tile.images), len(places), config.modality_dropout, generator(seed, "hide", name))
            values.append(_values(lambda images: features(*inputs(images)), tile, places, hidden))
            truths.append(label[places])
    truth = np.concatenate(truths)
    weights = (balance * counts / np.maximum(drawn, 1))[truth]
    features_of_all = np.concatenate(values)
    if config.keep == "labels" and len(set(tiles.names)) < MIN_TILES_FOR_LARGE_WINDOWS:
        images = inputs({name: image[None] for name, image in tile.images.items()})
        near = features.within(MAX_SMALL_WINDOW, sum(image.shape[1] for image in images))
        features_of_all *= near.numpy()  # no tree and no weight depends on constant features
    return Pixels(features_of_all, truth, weights / weights.mean())


def _places(label: NDArray[np.int64], ranks: list[NDArray[np.int64]], seen: Counts) -> NDArray[np.int64]:
    """Return the drawn pixels of a tile; updates `seen`, the pixels of each class in earlier tiles."""
    found = []
    for class_id, chosen in enumerate(ranks):
        here = np.flatnonzero(label == class_id)
        first, last = np.searchsorted(chosen, [seen[class_id], seen[class_id] + len(here)])
        found.append(here[chosen[first:last] - seen[class_id]])
        seen[class_id] += len(here)
    return np.sort(np.concatenate(found))


def _hidden(modalities: int, pixels: int, dropout: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the number of the modality, from 1, that each pixel lacks; 0: none."""
    return np.where(random.random(pixels) < dropout, random.integers(1, modalities + 1, pixels), 0)


@torch.no_grad()
def _values(
    features: Callable[[Mapping[str, Tensor]], Tensor],
    tile: Tile,
    places: NDArray[np.int64],
    hidden: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the features P x F of pixels, each without its hidden modality."""
    parts = []
    for number in np.unique(hidden):
        images = enumerate(tile.images.items(), start=1)
        seen = {name: torch.zeros_like(image[None]) if n == number else image[None] for n, (name, image) in images}
        parts.append(features(seen)[0].flatten(1)[:, torch.from_numpy(places[hidden == number])].T.numpy())
    values = np.empty((len(places), parts[0].shape[1]), dtype=np.float32)
    values[np.argsort(hidden, kind="stable")] = np.concatenate(parts)
    return values
