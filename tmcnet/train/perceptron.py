"""Fit perceptrons to single pixels: `pixel_mlp`, and the full-resolution branch of the networks.

A batch of a network has a few crops, whose pixels are alike; one of single pixels comes from all labelled tiles. A
perceptron learns more from it in seconds than as part of a network in a minute. So the branch is fitted first and
kept, and the network begins at the accuracy of a pixel-wise classifier (benchmarks/README.md, where networks start).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import FinetuneSettings
from tmcnet.config.base import only_modality
from tmcnet.dataset.loading import TileDataset
from tmcnet.evaluate.metrics import Counts
from tmcnet.model.mssnet import MSSNet
from tmcnet.model.networks import PlainNetwork
from tmcnet.model.perceptron import Perceptron
from tmcnet.model.pixelwise import ABSENT
from tmcnet.seeding import derive_seed
from tmcnet.train.loop import OptimiserPlan, build_optimiser
from tmcnet.train.pixels import Pixels, draw_pixels
from tmcnet.train.samples import Batch, take

LEARNING_RATE, WARMUP_STEPS = 1e-2, 100
"""Maximum learning rate, and the steps in which it rises to it; then it falls along a cosine."""
PIXELS_PER_STEP = 2048
"""Pixels of a step, drawn with replacement."""
WEIGHT_DECAY, SMOOTHING = 0.3, 0.1
"""Weight decay, and the share of a label that is spread over all classes: few tiles are not learnt by heart."""
MIN_DEVIATION = 1e-6
"""Features that vary less are constant and get no weight."""


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
        crops = zip(batch.indices, batch.hidden, batch.placements, strict=True)
        side = batch.label.shape[-1]
        logits = [take(self._of_tile(index, hidden), placement, side) for index, hidden, placement in crops]
        return torch.stack(logits).to(batch.label.device)

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
    deviation, mean = torch.std_mean(values, dim=0, correction=0)
    inverse = torch.where(deviation > MIN_DEVIATION, 1 / deviation, 0.0)
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
