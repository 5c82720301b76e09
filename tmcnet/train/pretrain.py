"""Self-supervised pre-training of the encoders on unlabelled tile pairs."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tmcnet import __version__
from tmcnet.config import ComputeConfig, MethodConfig, ModelConfig, PretrainConfig, SensorsConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.dataset.views import ViewMaker
from tmcnet.errors import InputError, Problem
from tmcnet.hashing import file_digest
from tmcnet.model.device import choose_device
from tmcnet.model.foreign_weights import load_initial_weights
from tmcnet.model.tmcnet import TMCNet
from tmcnet.model.weights import save_weights
from tmcnet.seeding import derive_seed
from tmcnet.splits.files import list_names, verified_list
from tmcnet.store import TileStore
from tmcnet.train.contrastive import PretrainingMethod, PretrainModule, StepBuilder, build_method
from tmcnet.train.distributed import launch, rank, share_of_batch
from tmcnet.train.loop import LoopPlan, OptimiserPlan, Training, cost, write_curves
from tmcnet.train.probe import Probe


@dataclass(frozen=True)
class Pretraining:
    """Inputs, settings and outputs of one pre-training.

    Attributes:
        splits: Folder of the lists. `pretrain.parts` names those used, without labels; only the probe reads others.
        normalisation: `normalisation.json`.
        name: Name of the method.
        method: Its settings.
        out: Folder of the results.
        state: Folder of the checkpoint; removed at the end.
    """

    tiles_root: Path
    splits: Path
    normalisation: Path
    name: str
    method: MethodConfig
    config: PretrainConfig
    model: ModelConfig
    sensors: SensorsConfig
    compute: ComputeConfig
    out: Path
    state: Path


def optimiser_plan(config: PretrainConfig, method: MethodConfig) -> OptimiserPlan:
    """Return AdamW with warm-up; in `reference` Adam without, as published (there the rate falls by epoch)."""
    reference = method.variant == "reference"
    return OptimiserPlan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=0 if reference else config.warmup_steps,
        weight_decay=config.weight_decay,
        kind="adam" if reference else "adamw",
        clip_norm=math.inf if config.clip_norm is None else config.clip_norm,
    )


def _batch_size(n_tiles: int, lists: Sequence[Path], wanted: int) -> int:
    """Return the wanted batch size, or fewer if there are fewer tiles; a multiple of the number of processes."""
    shares = wanted // len(share_of_batch("pretrain.batch_size", wanted))
    least = max(2, shares)
    if n_tiles < least:
        what = f"name {n_tiles} tile(s) for pre-training; the contrastive loss needs at least {least}"
        raise InputError(
            Problem(", ".join(map(str, lists)), what, "Add scenes, or make tiles smaller (`tiles.size`).")
        )
    return min(wanted, n_tiles // shares * shares)


def _network(sensors: SensorsConfig, model: ModelConfig, method: PretrainingMethod, config: PretrainConfig) -> TMCNet:
    """Build the network with initial weights that depend only on the seed and the given file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        network = method.network(sensors.band_counts, model)
    if config.initial_weights is not None:
        load_initial_weights(network, Path(config.initial_weights))
    return network


def pretrain(work: Pretraining) -> None:
    """Pre-train and write `weights.safetensors`, `curves.csv` and `summary.json`.

    Raises:
        InputError: If tiles are missing, there are fewer than two, `initial_weights` do not fit, or the processes
            cannot share a batch evenly.
        TrainingError: If a loss is not finite.
    """
    launch(train, [work], work.compute, work.compute.pretrain_threads, work.state)
    shutil.rmtree(work.state, ignore_errors=True)


def train(work: Pretraining) -> None:
    """Train in this process; the first of several ones also probes and writes."""
    began, config, compute, settings = time.monotonic(), work.config, work.compute, work.method
    statistics = Normalisation.read(work.normalisation)
    names = [name for part in config.parts for name in verified_list(work.splits, part)]
    lists = [work.splits / list_names(part)[0] for part in config.parts]
    batch_size = _batch_size(len(names), lists, config.batch_size)
    cache = compute.cache_gib / compute.devices
    tiles = TileDataset(TileStore(work.tiles_root), names, statistics, with_labels=False, cache_gib=cache)
    method = build_method(settings)
    network = _network(work.sensors, work.model, method, config)
    by_sensor = settings.corrections.photometric_by_sensor
    hidden = settings.hidden if settings.reconstruction > 0 else None
    views = ViewMaker(config, work.sensors, settings.variant, statistics.clip, by_sensor, hidden)
    share = share_of_batch("pretrain.batch_size", batch_size)
    build = StepBuilder(tiles, views, batch_size, config.seed, share)
    probe = None if config.probe.every is None else _probe(network, tiles, work)
    module = PretrainModule(network, method, config, optimiser_plan(config, settings), build, probe)
    given = config.initial_weights
    described = {
        "method": work.name,
        "pretrain": config.model_dump(mode="json", exclude={"methods", "weights", "checkpoint_every"}),
        "settings": settings.model_dump(mode="json"),
        "initial_weights_sha256": None if given is None else file_digest(given),
        "model": work.model.model_dump(mode="json"),
        "sensors": work.sensors.model_dump(mode="json"),
        "version": __version__,
    }
    plan = LoopPlan(
        label=f"pretrain {work.name}",
        batch_size=batch_size,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        state=work.state,
        threads=compute.pretrain_threads,
        compute=compute,
        seed=config.seed,
        settings=json.dumps([described, statistics.to_dict(), names]),
        accumulate=config.accumulate,
    )
    training = Training(module, plan)
    training.run()
    if rank() > 0:
        return
    record = {
        "metrics": training.curves[config.steps],
        "steps": config.steps,
        "batch_size": batch_size,
        "batch_size_wanted": config.batch_size,
        "n_tiles": len(names),
        "parameters": sum(p.numel() for p in network.parameters()),
        "precision": training.precision,
        **cost(choose_device(compute).type, began),
    }
    work.out.mkdir(parents=True, exist_ok=True)
    header = {"config": described, "normalisation": statistics.to_dict(), "metrics": record["metrics"]}
    save_weights(work.out / "weights.safetensors", network.state_dict(), {"kind": "encoder", **header})
    write_curves(work.out / "curves.csv", training.curves)
    summary = {"kind": "encoder", **described, **record}
    (work.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def _probe(network: TMCNet, tiles: TileDataset, work: Pretraining) -> Probe:
    """Return the probe on a label fraction and the validation part."""
    probe, store = work.config.probe, tiles.store
    labelled, validation = (
        TileDataset(store, verified_list(work.splits, name), tiles.normalisation, True, cache_gib=0)
        for name in (probe.subset, "val")
    )
    return Probe(network, labelled, validation, len(store.classes), probe, work.config.seed)
