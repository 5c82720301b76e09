"""Cross-modal InfoNCE: the images of a place by two modalities are each other's only positive."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import InfoNCE
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair, TMCNet
from tmcnet.train.methods.base import PretrainingMethod


class CrossModal(PretrainingMethod):
    """InfoNCE between two modalities of a view, the mean over both views and all pairs of modalities."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = InfoNCE(config.temperature)

    def network(self, bands: Mapping[str, int], model: ModelConfig) -> EmbeddingNetwork:
        """An encoder for each modality."""
        return TMCNet(bands, model, self.config)

    def loss(
        self,
        embeddings: Mapping[str, Pair],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """The loss of one level."""
        couples = combinations(embeddings.values(), 2)
        terms = [self.criterion(*view, groups=groups) for couple in couples for view in zip(*couple, strict=True)]
        value: Tensor = reduce(torch.add, terms) / len(terms)
        return value


METHOD = CrossModal
