"""What a pre-training method consists of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair


class PretrainingMethod(ABC):
    """The network that is trained, and the loss of its embeddings.

    Everything else is the same for all methods: tiles, views, patches, the order of batches, optimiser and schedule.

    Args:
        config: The method's settings.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    @abstractmethod
    def network(self, bands: Mapping[str, int], model: ModelConfig) -> EmbeddingNetwork:
        """The network, with random weights, of so many bands of each modality."""

    @abstractmethod
    def loss(self, embeddings: Mapping[str, Pair], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """The loss of one level.

        Args:
            embeddings: Views 1 and 2 of each of the network's inputs by name, of whole views or of patches.
            groups: An id for each row; rows with the same id are never each other's negatives. None: all differ.
            rng: Source of whatever the loss draws.
        """
