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
from tmcnet.train.gather import gather_rows
from tmcnet.train.health import health
from tmcnet.train.loop import StepModule
from tmcnet.train.methods import PretrainingMethod
from tmcnet.train.optimise import OptimiserPlan
from tmcnet.train.stream import indices_of_step


class StepBuilder:
    """Makes the views of a batch from the tiles of a list, or the share that one of several processes takes of them.

    All shares together are the batch of a single process: neither tiles nor views depend on their number.

    Args:
        tiles: The training tiles.
        views: Makes views of tiles.
        batch_size: Tiles in a batch of all processes, at most as many as there are; a multiple of `shares`.
        seed: Seed of the order.
        share: Which share, counted from 0.
        shares: Number of shares.
    """

    def __init__(
        self, tiles: TileDataset, views: ViewMaker, batch_size: int, seed: int, share: int = 0, shares: int = 1
    ) -> None:
        self.tiles, self.views, self.batch_size, self.seed = tiles, views, batch_size, seed
        own = batch_size // shares
        self.slots = range(share * own, (share + 1) * own)

    def __call__(self, number: int) -> ViewBatch:
        """The share of a batch, counted from 0."""
        indices = indices_of_step(len(self.tiles), self.batch_size, self.seed, number)
        return self.views([self.tiles[indices[slot]] for slot in self.slots], number, self.slots)


class PretrainModule(StepModule[ViewBatch]):
    """A method's network with its loss: lambda * whole views + (1 - lambda) * patches.

    Where several processes train together, each embeds its share of a batch and compares all of its rows, so that
    places meet those of the whole batch.

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
        own: Embeddings = self.network(batch.views, batch.corners, self.patch_size)
        whole, patches = (None if rows is None else gather_rows(rows) for rows in (own.whole, own.patches))
        self.latest = Embeddings(whole, patches)
        weight = self.method.config.lambda_global
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.corners[0].device)
        if whole is not None:
            terms["loss_global"] = self.method.loss(whole, None, self._draws("global"))
            total = total + weight * terms["loss_global"]
        if patches is not None:
            groups = None
            if self.method.config.corrections.mask_same_tile:
                count = batch.corners[0].shape[1]
                rows = len(next(iter(patches.values()))[0])
                groups = torch.arange(rows, device=total.device) // count
            terms["loss_local"] = self.method.loss(patches, groups, self._draws("local"))
            total = total + (1 - weight) * terms["loss_local"]
        return {"loss": total, **terms}

    def _draws(self, level: str) -> np.random.Generator:
        return generator(self.seed, "loss", level, self.batch_number)

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - the curves ask only when it is due
        """Health of the newest embeddings: of whole views, or of patches where whole views are not embedded."""
        if self.latest is None:
            return {}
        embeddings = self.latest.whole if self.latest.whole is not None else self.latest.patches
        return {} if embeddings is None else health(embeddings)
