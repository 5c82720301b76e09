"""What a pre-training method consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair
from tmcnet.train.health import health


class PretrainingMethod:
    """The network that is trained, the loss of its embeddings, and whether they are healthy.

    Everything else is the same for all methods: tiles, views, patches, the order of batches, optimiser and schedule.

    Args:
        config: The method's settings.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def network(
        self, optical_bands: int, sar_bands: int, model: ModelConfig, further: Mapping[str, int] | None = None
    ) -> EmbeddingNetwork:
        """The network, with random weights, of so many bands of each modality."""
        raise NotImplementedError

    def loss(self, embeddings: tuple[Tensor, ...], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """The loss of one level.

        Args:
            embeddings: What `network` made of whole views or of patches.
            groups: An id for each row; rows with the same id are never each other's negatives. None: all differ.
            rng: Source of whatever the loss draws.
        """
        raise NotImplementedError

    def health(self, embeddings: tuple[Tensor, ...], further: Sequence[str] = ()) -> dict[str, float]:
        """Figures of one batch's embeddings; none unless overridden.

        Args:
            embeddings: What `network` made of whole views or of patches.
            further: Names of the further modalities among the inputs of the network.
        """
        raise NotImplementedError


def pairs(embeddings: tuple[Tensor, ...]) -> list[Pair]:
    """Views 1 and 2 of each input of a network."""
    return list(zip(embeddings[::2], embeddings[1::2], strict=True))


def pair(embeddings: tuple[Tensor, ...]) -> Pair:
    """The embeddings of a network with one input."""
    first, second = embeddings
    return first, second


def health_of_views(views: Pair, modality: str | None) -> dict[str, float]:
    """Figures of one input's two views.

    Args:
        views: N x C each.
        modality: The one modality that is all the input; None for an input that mixes all.

    Returns:
        What `tmcnet.train.health.health` says of the input alone.
    """
    figures = {name: value for name, value in health((*views, *views)).items() if "sar" not in name}
    if modality is not None:
        return {name.replace("optical", modality): value for name, value in figures.items()}
    alone = {name: value for name, value in figures.items() if "optical" not in name}
    return {**alone, "retrieval": figures["retrieval_optical"]}
