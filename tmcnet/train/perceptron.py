"""Draw labelled pixels with their features, and fit perceptrons to them: `pixel_mlp`, and the branch of the networks.

A batch of a network has a few crops, whose pixels are alike; one of single pixels comes from all labelled tiles. A
perceptron learns more from it in seconds than as part of a network in a minute. So the full-resolution branch of the
networks is fitted first and kept, and they begin at the accuracy of a pixel-wise classifier (benchmarks/README.md,
where networks start).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tmcnet.config import FinetuneSettings
from tmcnet.config.base import only_modality
from tmcnet.dataset.loading import Tile, TileDataset
from tmcnet.evaluate.metrics import Counts, Floats
from tmcnet.model.context import ContextFeatures, Perceptron
from tmcnet.model.encoder_features import COMPONENTS, EncoderFeatures
from tmcnet.model.mssnet import MSSNet
from tmcnet.model.networks import PlainNetwork
from tmcnet.model.pixelwise import ABSENT
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.loop import OptimiserPlan, build_optimiser
from tmcnet.train.samples import Batch, Crop, take

MIN_TILES_FOR_LARGE_WINDOWS, MAX_SMALL_WINDOW = 12, 15
"""With fewer labelled tiles, large context windows fit them by chance: `keep: labels` uses those up to 15 pixels."""
LEARNING_RATE, WARMUP_STEPS = 1e-2, 100
"""Maximum learning rate, and the steps in which it rises to it; then it falls along a cosine."""
PIXELS_PER_STEP = 2048
"""Pixels of a step, drawn with replacement."""
WEIGHT_DECAY, SMOOTHING = 0.3, 0.1
"""Weight decay, and the share of a label that is spread over all classes: few tiles are not learnt by heart."""
MIN_DEVIATION = 1e-6
"""Features that vary less are constant and get no weight."""


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels.

    Attributes:
        values: P x F float32 features.
        truth: P class ids.
        weights: P float64, 1 on average.
        components: How many of the last features are components of encoder maps.
    """

    values: NDArray[np.float32]
    truth: NDArray[np.int64]
    weights: Floats
    components: int = 0

    @property
    def scale(self) -> Floats:
        """F divisors of the features: the standard deviation of each, infinity for constant ones.

        That of components is 1, so that small ones stay small.
        """
        found: Floats = self.values.std(axis=0, dtype=np.float64)
        found[found <= MIN_DEVIATION] = np.inf
        found[len(found) - self.components :] = 1
        return found


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
    components = COMPONENTS if isinstance(features, EncoderFeatures) else 0
    return Pixels(features_of_all, truth, weights / weights.mean(), components)


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


def fit_detail(
    network: MSSNet | PlainNetwork,
    name: str,
    tiles: TileDataset,
    counts: Counts,
    balance: Tensor,
    config: FinetuneSettings,
    seed: int,
) -> None:
    """Fit the full-resolution branch of a network to labelled pixels, in place; it is trained no further.

    Args:
        network: The network.
        name: Its name; that of a network of one modality hides none.
        tiles: The labelled tiles.
        counts: Labelled pixels of each class in them.
        balance: K weights of the classes; ones for none.
        config: Number of pixels, steps and modality dropout.
        seed: Seed of all draws.
    """
    detail = network.detail
    assert detail.perceptron is not None
    if only_modality(name) is not None:
        config = config.model_copy(update={"modality_dropout": 0.0})
    weights = balance.double().numpy()
    pixels = draw_pixels(detail.features, tiles, counts, weights, config, seed, network.detail_inputs)
    fit_perceptron(detail.perceptron, pixels, config.pixelwise.steps, seed)


class DetailLogits:
    """Logits of the fitted full-resolution branch for the crops of a batch.

    The branch sees whole tiles without photometric augmentation, as maps do. So the logits of a tile are computed
    once, and turned, mirrored and scaled with its crops.

    Args:
        network: The network, with a branch.
        tiles: The labelled tiles.
        cache_gib: Memory for logits kept, in GiB; others are computed again each time.
    """

    def __init__(self, network: MSSNet | PlainNetwork, tiles: TileDataset, cache_gib: float) -> None:
        self.network, self.tiles = network, tiles
        self._room = int(cache_gib * 2**30)
        self._kept: dict[tuple[int, str | None], Tensor] = {}

    def __call__(self, batch: Batch) -> Tensor:
        """Return the logits of the crops of a batch, N x K x S x S."""
        return torch.stack([self._of_crop(crop) for crop in batch.crops]).to(batch.label.device)

    def _of_crop(self, crop: Crop) -> Tensor:
        """Return the logits K x S x S of a crop."""
        logits = take(self._of_tile(crop.tile, crop.hidden), crop.placement, crop.label.shape[-1])
        if crop.pasted is not None:
            other, rows, columns = crop.pasted
            logits = logits.clone()
            logits[:, rows, columns] = self._of_crop(other)[:, rows, columns]
        return logits

    @torch.no_grad()
    def _of_tile(self, index: int, hidden: str | None) -> Tensor:
        """Return the logits K x H x W of a tile without a modality."""
        if (index, hidden) in self._kept:
            return self._kept[index, hidden]
        weight = next(self.network.detail.parameters())
        images = {name: image[None].to(weight) for name, image in self.tiles[index].images.items()}
        if hidden is not None:
            images[hidden] = torch.zeros_like(images[hidden])
        with torch.autocast(weight.device.type, enabled=False):
            logits: Tensor = self.network.detail(*self.network.detail_inputs(images))[0].cpu()
        if logits.nbytes <= self._room:
            self._kept[index, hidden] = logits
            self._room -= logits.nbytes
        return logits


def fit_perceptron(perceptron: Perceptron, pixels: Pixels, steps: int, seed: int) -> int:
    """Fit a perceptron, in place; it is trained no further. Classes without labels get the logit `ABSENT`.

    Args:
        perceptron: Its initial weights are those to start from.
        pixels: Features, classes and weights.
        steps: Optimiser steps.
        seed: Seed of the batches.

    Returns:
        The steps done; none if all pixels are of one class.
    """
    values, weights = torch.from_numpy(pixels.values), torch.from_numpy(pixels.weights).float()
    present, truth = torch.unique(torch.from_numpy(pixels.truth), return_inverse=True)
    steps = steps if len(present) > 1 else 0
    mean, inverse = values.mean(dim=0), torch.from_numpy(1 / pixels.scale).float()
    values = (values - mean) * inverse
    plan = OptimiserPlan(steps, LEARNING_RATE, WARMUP_STEPS, WEIGHT_DECAY)
    optimiser, schedule = build_optimiser(perceptron.requires_grad_(True), plan)
    random = torch.Generator().manual_seed(derive_seed(seed, "perceptron"))
    for _ in range(steps):
        batch = torch.randint(len(truth), (PIXELS_PER_STEP,), generator=random)
        logits = perceptron(values[batch])[:, present]
        losses = F.cross_entropy(logits, truth[batch], reduction="none", label_smoothing=SMOOTHING)
        optimiser.zero_grad()
        (losses * weights[batch]).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    first, *_, last = (layer for layer in perceptron.layers if isinstance(layer, nn.Linear))
    absent = torch.ones(len(last.bias), dtype=torch.bool).index_fill(0, present, False)
    with torch.no_grad():
        first.weight.mul_(inverse)  # from now on it takes features as they are
        first.bias.sub_(first.weight @ mean)
        last.weight[absent], last.bias[absent] = 0.0, ABSENT
    perceptron.requires_grad_(False)
    return steps
