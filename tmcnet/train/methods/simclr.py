"""SimCLR (Chen et al. 2020) on early-fused bands: the baseline that takes all modalities for one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import NTXent
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair, StackedNetwork
from tmcnet.train.methods.base import PretrainingMethod


class SimCLR(PretrainingMethod):
    """NT-Xent of the two views of the stacked bands, in one encoder."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = NTXent(config.temperature)

    def network(self, bands: Mapping[str, int], model: ModelConfig) -> EmbeddingNetwork:
        """One encoder of all bands."""
        return StackedNetwork(bands, model, self.config)

    def loss(
        self,
        embeddings: Mapping[str, Pair],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """The loss of one level."""
        value: Tensor = self.criterion(*embeddings["stacked"], groups=groups)
        return value


METHOD = SimCLR
