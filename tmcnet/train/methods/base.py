"""What a pre-training method consists of."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair, Quartet
from tmcnet.train.health import health


class PretrainingMethod:
    """The network that is trained, the loss of its embeddings, and whether they are healthy.

    Everything else is the same for all methods: tiles, views, patches, the order of batches, optimiser and schedule.

    Args:
        config: The method's settings.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def network(self, optical_bands: int, sar_bands: int, model: ModelConfig) -> EmbeddingNetwork:
        """The network, with random weights."""
        raise NotImplementedError

    def loss(self, embeddings: tuple[Tensor, ...], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """The loss of one level.

        Args:
            embeddings: What `network` made of whole views or of patches.
            groups: An id for each row; rows with the same id are never each other's negatives. None: all differ.
            rng: Source of whatever the loss draws.
        """
        raise NotImplementedError

    def health(self, embeddings: tuple[Tensor, ...]) -> dict[str, float]:
        """Figures of one batch's embeddings; none unless overridden."""
        raise NotImplementedError


def quartet(embeddings: tuple[Tensor, ...]) -> Quartet:
    """The embeddings of a network with both sensors as inputs."""
    optical1, optical2, sar1, sar2 = embeddings
    return optical1, optical2, sar1, sar2


def pair(embeddings: tuple[Tensor, ...]) -> Pair:
    """The embeddings of a network with one input."""
    first, second = embeddings
    return first, second


def health_of_views(views: Pair, sensor: str | None) -> dict[str, float]:
    """Figures of one input's two views.

    Args:
        views: N x C each.
        sensor: `optical` or `sar`, which is all the input is; None for an input that mixes both.

    Returns:
        What `tmcnet.train.health.health` says of the input alone.
    """
    others = {"optical", "sar"} - {sensor}
    figures = health((*views, *views))
    found = {name: value for name, value in figures.items() if not any(other in name for other in others)}
    return found if sensor else {**found, "retrieval": figures["retrieval_optical"]}
