"""Pre-training methods: their networks and losses, and one step on the views of a batch of tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from itertools import combinations, permutations
from pkgutil import resolve_name

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tmcnet.config import MethodConfig, ModelConfig, PretrainConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.views import ViewBatch, ViewMaker
from tmcnet.loss import InfoNCE, NTXent, TupleNTXent, reconstruction_error
from tmcnet.model.tmcnet import Embeddings, Pair, TMCNet
from tmcnet.registry import METHODS
from tmcnet.seeding import generator
from tmcnet.train.distributed import gather, gather_rows
from tmcnet.train.loop import OptimiserPlan, StepModule, indices_of_step
from tmcnet.train.probe import Probe


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
        """Return the loss of one level from views 1 and 2 of each of the network's inputs, whole or patches.

        Rows with the same id in `groups` are not negatives of each other; None: all differ. `rng` draws for the loss.
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


def build_method(config: MethodConfig) -> PretrainingMethod:
    """Return the method that a config names."""
    method: PretrainingMethod = resolve_name(METHODS[config.method])(config)
    return method


class StepBuilder:
    """Make the views of a batch, or the share of one of several processes: its places in the batch.

    All shares together are the batch of a single process: tiles and views do not depend on their number.
    """

    def __init__(self, tiles: TileDataset, views: ViewMaker, batch_size: int, seed: int, share: range) -> None:
        self.tiles, self.views, self.batch_size, self.seed, self.slots = tiles, views, batch_size, seed, share

    def __call__(self, number: int) -> ViewBatch:
        """Return the share of a batch, counted from 0."""
        indices = indices_of_step(len(self.tiles), self.batch_size, self.seed, number)
        return self.views([self.tiles[indices[slot]] for slot in self.slots], number, self.slots)


class PretrainModule(StepModule[ViewBatch]):
    """A method's network with its loss: lambda * whole views + (1 - lambda) * patches + weight * reconstruction.

    If several processes train together, each embeds its share of a batch and compares the rows of the whole batch.
    """

    network: TMCNet

    def __init__(
        self,
        network: TMCNet,
        method: PretrainingMethod,
        config: PretrainConfig,
        optimiser: OptimiserPlan,
        build: StepBuilder,
        probe: Probe | None = None,
    ) -> None:
        super().__init__(network, optimiser, build)
        self.probe = probe
        if config.probe.every is not None:
            self.evaluated = {*range(0, config.steps, config.probe.every), config.steps}
        self.method, self.patch_size, self.seed = method, config.patch_size, config.seed
        self.latest: Embeddings | None = None

    def forward(self, batch: ViewBatch) -> dict[str, Tensor]:
        """Return `loss` of a batch and its terms `loss_global`, `loss_local` and `loss_reconstruction`.

        A term without weight is not computed.
        """
        own: Embeddings = self.network(batch.views, batch.corners, self.patch_size)
        whole = None if own.whole is None else gather_rows(own.whole)
        patches = [gather_rows(rows) for rows in own.patches]
        self.latest = Embeddings(whole, patches)
        weight = self.method.config.lambda_global
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.corners[0].device)
        if whole is not None:
            terms["loss_global"] = self.method.loss(whole, None, self._draws("global"))
            total = total + weight * terms["loss_global"]
        if patches:
            groups = None
            if self.method.config.corrections.mask_same_tile:
                count = batch.corners[0].shape[1]
                rows = len(next(iter(patches[0].values()))[0])
                groups = torch.arange(rows, device=total.device) // count
            by_scale = [self.method.loss(rows, groups, self._draws("local")) for rows in patches]
            terms["loss_local"] = torch.stack(by_scale).mean()
            total = total + (1 - weight) * terms["loss_local"]
        if own.predicted is not None:
            errors = [
                reconstruction_error(values, target)
                for name, pair in own.predicted.items()
                for values, target in zip(pair, batch.targets[name], strict=True)
            ]
            terms["loss_reconstruction"] = gather(torch.stack(errors, dim=1)).mean()
            total = total + self.method.config.reconstruction * terms["loss_reconstruction"]
        return {"loss": total, **terms}

    def _draws(self, level: str) -> np.random.Generator:
        return generator(self.seed, "loss", level, self.batch_number)

    def measure(self) -> dict[str, float]:
        """Return the health of the latest embeddings, of whole views or else of patches."""
        if self.latest is None:
            return {}
        return health(self.latest.patches[0] if self.latest.whole is None else self.latest.whole)

    def evaluate(self, step: int) -> dict[str, float]:  # noqa: ARG002 - the same at each step
        """Return the scores of the probe."""
        return {} if self.probe is None else self.probe.score()


def alignment(x: Tensor, y: Tensor) -> float:
    """Mean squared distance of positives on the unit sphere, 0..4; lower is better (Wang and Isola 2020)."""
    return float((x - y).square().sum(1).mean())


def uniformity(x: Tensor) -> float:
    """Logarithm of the mean of exp(-2 d^2) over pairs on the unit sphere, -8..0; lower is better (Wang, Isola)."""
    return float(torch.pdist(x).square().mul(-2).exp().mean().log())


def positive_similarity(x: Tensor, y: Tensor) -> float:
    """Mean cosine of the two views of a place, -1..1; near 1 where the changes between views are ignored."""
    return float((x * y).sum(1).mean())


def hardest_negative_similarity(x: Tensor, y: Tensor) -> float:
    """Mean over the places of the cosine to the most similar other place in the other view, -1..1.

    Learning widens the gap between it and `positive_similarity`; where both are near 1, the embedding has collapsed.
    Neighbouring patches of one tile count as other places, so it need not be low for patches.
    """
    cosines = (x @ y.T).fill_diagonal_(-torch.inf)
    return float(cosines.amax(1).mean())


def effective_rank(x: Tensor) -> float:
    """Exponential of the entropy of the singular values (Roy and Vetterli 2007), 1..min(N, C).

    A collapsed embedding, the same for every place, is near 1. Values are centred beforehand.
    """
    singular = torch.linalg.svdvals(x - x.mean(0))
    shares = singular / singular.sum().clamp_min(1e-12)
    return float(torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum()))


def retrieval(queries: Tensor, places: Tensor) -> float:
    """Share of the queries whose nearest among the places is their own, 0..1; 1/N by chance."""
    nearest = (queries @ places.T).argmax(1)
    return float((nearest == torch.arange(len(queries), device=queries.device)).float().mean())


def health(embeddings: Mapping[str, Pair]) -> dict[str, float]:
    """Return health figures of one batch, from views 1 and 2 of each input, N x C each.

    Of the fused views `alignment`, `uniformity`, `effective_rank`, `positive_similarity` and
    `hardest_negative_similarity`; of each input alone, a modality or `stacked` bands, `effective_rank_optical` (view
    1) and the accuracy of finding the same place in the other view (`retrieval_optical`); and that of finding it in
    another input of view 1 (`retrieval_optical_to_sar`), which stays at 1/N unless the loss pulls the modalities
    together.
    """
    firsts, seconds = (
        {name: F.normalize(pair[view].detach().float(), dim=1) for name, pair in embeddings.items()}
        for view in (0, 1)
    )
    first, second = (F.normalize(reduce(torch.add, view.values()), dim=1) for view in (firsts, seconds))
    return {
        "alignment": alignment(first, second),
        "uniformity": uniformity(first),
        "effective_rank": effective_rank(first),
        **{f"effective_rank_{name}": effective_rank(x) for name, x in firsts.items()},
        "positive_similarity": positive_similarity(first, second),
        "hardest_negative_similarity": hardest_negative_similarity(first, second),
        **{f"retrieval_{name}": retrieval(firsts[name], seconds[name]) for name in embeddings},
        **{f"retrieval_{a}_to_{b}": retrieval(firsts[a], firsts[b]) for a, b in permutations(embeddings, 2)},
    }
