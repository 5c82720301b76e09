"""One step of pre-training: the views of a batch of tiles, and the loss of their embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tmcnet.config import PretrainConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.views import ViewBatch, ViewMaker
from tmcnet.model.tmcnet import EmbeddingNetwork, Embeddings
from tmcnet.seeding import generator
from tmcnet.train.loop import StepModule
from tmcnet.train.methods import PretrainingMethod
from tmcnet.train.optimise import OptimiserPlan
from tmcnet.train.stream import indices_of_step


class StepBuilder:
    """Makes the views of a step from the tiles of a list.

    Args:
        tiles: The training tiles.
        views: Makes views of tiles.
        batch_size: Tiles in a step, at most as many as there are.
        seed: Seed of the order.
    """

    def __init__(self, tiles: TileDataset, views: ViewMaker, batch_size: int, seed: int) -> None:
        self.tiles, self.views, self.batch_size, self.seed = tiles, views, batch_size, seed

    def __call__(self, step: int) -> ViewBatch:
        """The batch of a step, counted from 0."""
        indices = indices_of_step(len(self.tiles), self.batch_size, self.seed, step)
        return self.views([self.tiles[index] for index in indices], step)


class PretrainModule(StepModule[ViewBatch]):
    """A method's network with its loss: lambda * whole views + (1 - lambda) * patches.

    Args:
        network: The network.
        method: The method.
        config: Size of a patch, and the seed of what the loss draws.
        optimiser: How weights are updated.
        build: Makes the batch of a step.
    """

    network: EmbeddingNetwork

    def __init__(
        self,
        network: EmbeddingNetwork,
        method: PretrainingMethod,
        config: PretrainConfig,
        optimiser: OptimiserPlan,
        build: StepBuilder,
    ) -> None:
        super().__init__(network, optimiser, build)
        self.method, self.patch_size, self.seed = method, config.patch_size, config.seed
        self.latest: Embeddings | None = None

    def losses(self, batch: ViewBatch) -> dict[str, Tensor]:
        """`loss`, `loss_global` and `loss_local` of a batch; a term without weight is not computed."""
        self.tile_names = batch.names
        images = batch.optical, batch.sar, batch.corners
        embeddings: Embeddings = self.network(*images, self.patch_size, batch.further)
        self.latest = embeddings
        weight = self.method.config.lambda_global
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.optical[0].device)
        if embeddings.whole is not None:
            terms["loss_global"] = self.method.loss(embeddings.whole, None, self._draws("global"))
            total = total + weight * terms["loss_global"]
        if embeddings.patches is not None:
            groups = None
            if self.method.config.corrections.mask_same_tile:
                tiles = torch.arange(len(batch.names), device=total.device)
                groups = tiles.repeat_interleave(batch.corners[0].shape[1])
            terms["loss_local"] = self.method.loss(embeddings.patches, groups, self._draws("local"))
            total = total + (1 - weight) * terms["loss_local"]
        return {"loss": total, **terms}

    def _draws(self, level: str) -> np.random.Generator:
        return generator(self.seed, "loss", level, self.global_step)

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - the curves ask only when it is due
        """Health of the newest embeddings: of whole views, or of patches where whole views are not embedded."""
        if self.latest is None:
            return {}
        embeddings = self.latest.whole if self.latest.whole is not None else self.latest.patches
        return {} if embeddings is None else self.method.health(embeddings, self.network.inputs[2:])
