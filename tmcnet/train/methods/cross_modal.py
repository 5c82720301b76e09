"""Cross-modal InfoNCE: the two sensors of a place are each other's only positive."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import InfoNCE
from tmcnet.model.tmcnet import EmbeddingNetwork, TMCNet
from tmcnet.train.health import health
from tmcnet.train.methods.base import PretrainingMethod, quartet


class CrossModal(PretrainingMethod):
    """InfoNCE between the optical and the SAR image of a view, the mean over both views."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = InfoNCE(config.temperature)

    def network(self, optical_bands: int, sar_bands: int, model: ModelConfig) -> EmbeddingNetwork:
        """An encoder for each sensor."""
        return TMCNet(optical_bands, sar_bands, model, self.config)

    def loss(
        self,
        embeddings: tuple[Tensor, ...],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """The loss of one level."""
        optical1, optical2, sar1, sar2 = quartet(embeddings)
        value: Tensor = (
            self.criterion(optical1, sar1, groups=groups) + self.criterion(optical2, sar2, groups=groups)
        ) / 2
        return value

    def health(self, embeddings: tuple[Tensor, ...]) -> dict[str, float]:
        """Figures of both sensors."""
        return health(quartet(embeddings))


METHOD = CrossModal
