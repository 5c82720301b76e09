"""TMCNet (Ye et al., IEEE TGRS 2025): fused tuples of embeddings of all modalities; or one's views alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import NTXent, TupleNTXent
from tmcnet.model.tmcnet import EmbeddingNetwork, Pair, TMCNet
from tmcnet.train.methods.base import PretrainingMethod


class Tuples(PretrainingMethod):
    """Tuples of all modalities; with `modality` of one, NT-Xent of its two views in its own encoder."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        form = config.corrections
        self.tuples = TupleNTXent(
            config.temperature,
            form.perturbation_weight,
            config.variant,
            config.perturbs,
            perturbed_negatives=form.perturbed_negatives,
            wrong_partners=form.wrong_partners,
            perturbed_views=form.perturbed_views,
            perturbed_gradient=form.perturbed_gradient,
            positive_in_denominator=form.positive_in_denominator,
        )
        self.views = NTXent(config.temperature, form.positive_in_denominator)

    def network(self, bands: Mapping[str, int], model: ModelConfig) -> EmbeddingNetwork:
        """An encoder for each modality that is looked at."""
        return TMCNet(bands, model, self.config)

    def loss(self, embeddings: Mapping[str, Pair], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """The loss of one level; `rng` draws the shifts where not all are used."""
        if self.config.modality != "both":
            value: Tensor = self.views(*embeddings[self.config.modality], groups=groups)
            return value
        optical, sar, *others = embeddings.values()
        shifts, n = None, len(optical[0])
        if self.config.shifts is not None:
            shifts = rng.choice(np.arange(1, n), min(self.config.shifts, n - 1), replace=False).tolist()
        value = self.tuples(*optical, *sar, groups=groups, shifts=shifts, others=others)
        return value


METHOD = Tuples
