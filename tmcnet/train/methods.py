"""The pre-training methods: what is trained, and the loss of its embeddings. All else is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig
from tmcnet.loss import InfoNCE, NTXent, TupleNTXent
from tmcnet.model.tmcnet import Pair, TMCNet


class PretrainingMethod(ABC):
    """The network that is trained, and the loss of its embeddings.

    Everything else is the same for all methods: tiles, views, patches, the order of batches, optimiser and schedule.

    Args:
        config: The method's settings.
    """

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def network(self, bands: Mapping[str, int], model: ModelConfig) -> TMCNet:
        """Build the network with random weights for the bands of each modality."""
        return TMCNet(bands, model, self.config)

    @abstractmethod
    def loss(self, embeddings: Mapping[str, Pair], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """Return the loss of one level.

        Args:
            embeddings: Views 1 and 2 of each of the network's inputs by name, of whole views or of patches.
            groups: An id for each row; rows with the same id are not negatives of each other. None: all differ.
            rng: Source of the draws of the loss.
        """


class Tuples(PretrainingMethod):
    """TMCNet (Ye et al. 2025): fused tuples of all modalities; with `modality` of one, NT-Xent of its two views."""

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

    def loss(self, embeddings: Mapping[str, Pair], groups: Tensor | None, rng: np.random.Generator) -> Tensor:
        """Return the loss of one level; `rng` draws the shifts if not all are used."""
        if self.config.modality != "both":
            value: Tensor = self.views(*embeddings[self.config.modality], groups=groups)
            return value
        optical, sar, *others = embeddings.values()
        shifts, n = None, len(optical[0])
        if self.config.shifts is not None:
            shifts = rng.choice(np.arange(1, n), min(self.config.shifts, n - 1), replace=False).tolist()
        value = self.tuples(*optical, *sar, groups=groups, shifts=shifts, others=others)
        return value


class SimCLR(PretrainingMethod):
    """SimCLR (Chen et al. 2020) on stacked bands: NT-Xent of two views in one encoder."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = NTXent(config.temperature)

    def loss(
        self,
        embeddings: Mapping[str, Pair],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """Return the loss of one level."""
        value: Tensor = self.criterion(*embeddings["stacked"], groups=groups)
        return value


class CrossModal(PretrainingMethod):
    """InfoNCE between two modalities of a view, the mean over both views and all pairs of modalities."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.criterion = InfoNCE(config.temperature)

    def loss(
        self,
        embeddings: Mapping[str, Pair],
        groups: Tensor | None,
        rng: np.random.Generator,  # noqa: ARG002 - all methods are called alike
    ) -> Tensor:
        """Return the loss of one level."""
        couples = combinations(embeddings.values(), 2)
        terms = [self.criterion(*view, groups=groups) for couple in couples for view in zip(*couple, strict=True)]
        value: Tensor = reduce(torch.add, terms) / len(terms)
        return value


METHODS: dict[str, type[PretrainingMethod]] = {"tuples": Tuples, "simclr": SimCLR, "cross_modal": CrossModal}
"""The methods by their name in the config (`tmcnet.config.pretraining.Method`)."""


def build_method(config: MethodConfig) -> PretrainingMethod:
    """Return the method that a config names."""
    return METHODS[config.method](config)
