"""SimCLR (Chen et al. 2020) on early-fused bands: the baseline that takes all modalities for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import NTXent
from tmcnet.model.tmcnet import EmbeddingNetwork, StackedNetwork
from tmcnet.train.methods.base import PretrainingMethod, health_of_views, pair


class SimCLR(PretrainingMethod):
    """NT-Xent of the two views of the stacked bands, in one encoder."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = NTXent(config.temperature)

    def network(
        self, optical_bands: int, sar_bands: int, model: ModelConfig, further: Mapping[str, int] | None = None
    ) -> EmbeddingNetwork:
        """One encoder of all bands."""
        return StackedNetwork(optical_bands, sar_bands, model, self.config, further)

    def loss(
        self,
        embeddings: tuple[Tensor, ...],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """The loss of one level."""
        value: Tensor = self.criterion(*pair(embeddings), groups=groups)
        return value

    def health(
        self,
        embeddings: tuple[Tensor, ...],
        further: Sequence[str] = (),  # noqa: ARG002 - all methods are called alike
    ) -> dict[str, float]:
        """Figures of the stacked views."""
        return health_of_views(pair(embeddings), None)


METHOD = SimCLR
