"""The labelled pixels that the pixel-wise baselines learn from: which are drawn, and what each weighs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tmcnet.config import FinetuneSettings
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.metrics import Counts, Floats
from tmcnet.model.texture import PixelFeatures
from tmcnet.seeding import generator


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
