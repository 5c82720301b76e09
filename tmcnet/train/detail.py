"""The start of the full-resolution branch: a classifier of single pixels, fitted before the network is trained.

A batch has a few crops, whose pixels are alike; one of single pixels comes from all labelled tiles. A perceptron
learns more from it in five seconds than as part of a network in a minute, so the network begins at the accuracy of a
pixel-wise classifier, and its encoders learn what that lacks (benchmarks/README.md, where networks start).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import FinetuneSettings
from tmcnet.config.base import only_modality
from tmcnet.dataset.loading import TileDataset
from tmcnet.evaluate.metrics import Counts
from tmcnet.model.mssnet import MSSNet
from tmcnet.model.networks import PlainNetwork
from tmcnet.seeding import derive_seed
from tmcnet.train.loop import OptimiserPlan, build_optimiser
from tmcnet.train.pixelwise import draw_pixels

LEARNING_RATE, WARMUP_STEPS = 1e-2, 100
"""Maximum learning rate, and the steps in which it rises to it; then it falls along a cosine."""
PIXELS_PER_STEP = 2048
"""Pixels of a step, drawn with replacement."""


def fit_detail(
    network: MSSNet | PlainNetwork,
    name: str,
    tiles: TileDataset,
    counts: Counts,
    balance: Tensor,
    config: FinetuneSettings,
    seed: int,
) -> None:
    """Fit the full-resolution branch of a network to labelled pixels, in place; nothing without a branch or steps.

    Args:
        network: The network; the logits of its decoder count as 0.
        name: Its name; that of a network of one modality hides none.
        tiles: The labelled tiles.
        counts: Labelled pixels of each class in them.
        balance: K weights of the classes; ones for none.
        config: Steps, number of pixels, weight decay and modality dropout.
        seed: Seed of all draws.
    """
    layers = network.detail.layers
    if layers is None or config.pixel_steps == 0:
        return
    if only_modality(name) is not None:
        config = config.model_copy(update={"modality_dropout": 0.0})
    drawn = draw_pixels(
        network.detail.features, tiles, counts, balance.double().numpy(), config, seed, network.detail_inputs
    )
    values, truth, weights = map(torch.from_numpy, (drawn.values, drawn.truth, drawn.weights))
    values, weights = values.to(balance.dtype), weights.to(balance.dtype)
    plan = OptimiserPlan(config.pixel_steps, LEARNING_RATE, WARMUP_STEPS, weight_decay=config.weight_decay)
    optimiser, schedule = build_optimiser(layers, plan)
    random = torch.Generator().manual_seed(derive_seed(seed, "detail"))
    layers.train()
    for _ in range(config.pixel_steps):
        batch = torch.randint(len(truth), (PIXELS_PER_STEP,), generator=random)
        logits = layers(values[batch].T[None, :, None])[0, :, 0].T
        losses = F.cross_entropy(logits, truth[batch], reduction="none")
        optimiser.zero_grad()
        torch.mean(losses * weights[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
