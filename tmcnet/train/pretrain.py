"""Self-supervised pre-training of both encoders on unlabelled tile pairs."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tmcnet import __version__
from tmcnet.config import ComputeConfig, MethodConfig, ModelConfig, PretrainConfig, SensorsConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.dataset.views import ViewBatch, ViewMaker
from tmcnet.errors import InputError, Problem
from tmcnet.loss import TupleNTXent
from tmcnet.model.tmcnet import Embeddings, TMCNet
from tmcnet.model.weights import save_weights
from tmcnet.seeding import derive_seed
from tmcnet.store import TileStore, read_list
from tmcnet.train.callbacks import Curves
from tmcnet.train.health import health
from tmcnet.train.loop import LoopPlan, StepModule, fit
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
    """TMCNet with its loss: lambda * whole views + (1 - lambda) * patches.

    In `corrected`, patches of one tile are not each other's negatives: they may show the same ground.

    Args:
        network: The network.
        method: `lambda_global` and the settings of the loss.
        patch_size: Side of a patch in pixels.
        optimiser: How weights are updated.
        build: Makes the batch of a step.
    """

    def __init__(
        self,
        network: TMCNet,
        method: MethodConfig,
        patch_size: int,
        optimiser: OptimiserPlan,
        build: StepBuilder,
    ) -> None:
        super().__init__(network, optimiser, build)
        self.method, self.patch_size = method, patch_size
        self.loss = TupleNTXent(
            method.temperature, method.perturbation_weight, method.variant, perturbation=method.perturbation
        )
        self.latest: Embeddings | None = None

    def losses(self, batch: ViewBatch) -> dict[str, Tensor]:
        """`loss`, `loss_global` and `loss_local` of a batch; a term without weight is not computed."""
        self.tile_names = batch.names
        embeddings: Embeddings = self.network(batch.optical, batch.sar, batch.corners, self.patch_size)
        self.latest = embeddings
        weight = self.method.lambda_global
        terms: dict[str, Tensor] = {}
        total = torch.zeros((), device=batch.optical[0].device)
        if embeddings.whole is not None:
            terms["loss_global"] = self.loss(*embeddings.whole)
            total = total + weight * terms["loss_global"]
        if embeddings.patches is not None:
            groups = None
            if self.method.variant == "corrected":
                tiles = torch.arange(len(batch.names), device=total.device)
                groups = tiles.repeat_interleave(batch.corners[0].shape[1])
            terms["loss_local"] = self.loss(*embeddings.patches, groups=groups)
            total = total + (1 - weight) * terms["loss_local"]
        return {"loss": total, **terms}

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - the curves ask only when it is due
        """Health of the newest embeddings: of whole views, or of patches where whole views are not embedded."""
        if self.latest is None:
            return {}
        quartet = self.latest.whole if self.latest.whole is not None else self.latest.patches
        return {} if quartet is None else health(quartet)


def optimiser_plan(config: PretrainConfig, method: MethodConfig) -> OptimiserPlan:
    """AdamW with warm-up; in `reference` Adam without, as published (there the rate falls by epoch, here by step)."""
    reference = method.variant == "reference"
    return OptimiserPlan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=0 if reference else config.warmup_steps,
        weight_decay=config.weight_decay,
        kind="adam" if reference else "adamw",
    )


def _batch_size(n_tiles: int, train_list: Path, config: PretrainConfig) -> int:
    """The wanted batch, or all tiles where there are fewer."""
    if n_tiles < 2:
        what = f"lists {n_tiles} training tile(s); the contrastive loss needs at least two"
        raise InputError(Problem(str(train_list), what, "Add scenes, or make tiles smaller (`tiles.size`)."))
    return min(config.batch_size, n_tiles)


def _network(sensors: SensorsConfig, model: ModelConfig, method: MethodConfig, seed: int) -> TMCNet:
    """A network with initial weights that depend on the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return TMCNet(len(sensors.optical.bands), len(sensors.sar.bands), model, method)


def _settings(
    method_name: str, method: MethodConfig, config: PretrainConfig, model: ModelConfig, sensors: SensorsConfig
) -> dict[str, Any]:
    """Everything the weights depend on but the tiles, ready for JSON."""
    return {
        "method": method_name,
        "pretrain": config.model_dump(mode="json", exclude={"methods", "weights"}),
        "settings": method.model_dump(mode="json"),
        "model": model.model_dump(mode="json"),
        "sensors": sensors.model_dump(mode="json"),
        "version": __version__,
    }


def _record(config: PretrainConfig, curves: Curves, batch_size: int, n_tiles: int, network: TMCNet) -> dict[str, Any]:
    """What the run came to."""
    return {
        "metrics": curves.rows[config.steps],
        "steps": config.steps,
        "batch_size": batch_size,
        "batch_size_wanted": config.batch_size,
        "n_tiles": n_tiles,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def pretrain(
    tiles_root: Path,
    train_list: Path,
    normalisation: Path,
    method_name: str,
    method: MethodConfig,
    config: PretrainConfig,
    model: ModelConfig,
    sensors: SensorsConfig,
    compute: ComputeConfig,
    out: Path,
    state: Path,
) -> None:
    """Pre-train and write `weights.safetensors`, `curves.csv` and `summary.json`.

    Args:
        tiles_root: Folder of the tiles.
        train_list: List of the training tiles, such as `train_RGB.txt`; no other tile is read.
        normalisation: `normalisation.json`.
        method_name: Name of the method.
        method: Its settings.
        config: Settings of pre-training.
        model: Sizes of the networks.
        sensors: Bands and kinds.
        compute: Threads, number format, memory for tiles.
        out: Folder of the results.
        state: Folder of the state that a killed run resumes from; removed at the end.

    Raises:
        InputError: If tiles are missing, or there are fewer than two.
        TrainingError: If a loss is not finite.
    """
    began = time.monotonic()
    statistics = Normalisation.read(normalisation)
    names = read_list(train_list)
    batch_size = _batch_size(len(names), train_list, config)
    tiles = TileDataset(TileStore(tiles_root), names, statistics, with_labels=False, cache_gib=compute.cache_gib)
    network = _network(sensors, model, method, config.seed)
    curves = Curves(config.log_every, config.steps)
    views = ViewMaker(config, sensors, method.variant, statistics.clip)
    build = StepBuilder(tiles, views, batch_size, config.seed)
    module = PretrainModule(network, method, config.patch_size, optimiser_plan(config, method), build)
    settings = _settings(method_name, method, config, model, sensors)
    loop = LoopPlan(
        label=f"pretrain {method_name}",
        steps=config.steps,
        batch_size=batch_size,
        checkpoint_every=config.checkpoint_every,
        state=state,
        threads=compute.pretrain_threads,
        compute=compute,
        seed=config.seed,
        settings=json.dumps([settings, statistics.to_dict(), names]),
    )
    fit(module, loop, curves)
    record = {
        **_record(config, curves, batch_size, len(names), network),
        "seconds": round(time.monotonic() - began, 1),
    }
    _write(out, network, curves, statistics, settings, record)
    shutil.rmtree(state, ignore_errors=True)


def _write(
    out: Path,
    network: TMCNet,
    curves: Curves,
    statistics: Normalisation,
    settings: dict[str, Any],
    record: dict[str, Any],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    header = {
        "kind": "encoder",
        "config": settings,
        "normalisation": statistics.to_dict(),
        "metrics": record["metrics"],
    }
    save_weights(out / "weights.safetensors", network.state_dict(), header)
    curves.write(out / "curves.csv")
    (out / "summary.json").write_text(json.dumps({"kind": "encoder", **settings, **record}, indent=1) + "\n")
