"""Self-supervised pre-training of the encoders on unlabelled tile pairs."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tmcnet import __version__
from tmcnet.config import Budget, ComputeConfig, MethodConfig, ModelConfig, PretrainConfig, SensorsConfig
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.dataset.views import ViewMaker
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.predict import choose_device
from tmcnet.model.initial import load_initial_weights
from tmcnet.model.tmcnet import EmbeddingNetwork
from tmcnet.model.weights import save_weights
from tmcnet.raster.digests import file_digest
from tmcnet.seeding import derive_seed
from tmcnet.store import TileStore, read_list
from tmcnet.train.callbacks import Curves, GradientNorm
from tmcnet.train.contrastive import PretrainModule, StepBuilder
from tmcnet.train.loop import LoopPlan, fit
from tmcnet.train.methods import PretrainingMethod, build_method
from tmcnet.train.optimise import OptimiserPlan
from tmcnet.train.probe import Probe, ProbePlan
from tmcnet.train.processes import processes, rank, run_in_processes


def optimiser_plan(config: PretrainConfig, method: MethodConfig) -> OptimiserPlan:
    """AdamW with warm-up; in `reference` Adam without, as published (there the rate falls by epoch, here by step)."""
    reference = method.variant == "reference"
    return OptimiserPlan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=0 if reference else config.warmup_steps,
        weight_decay=config.weight_decay,
        kind="adam" if reference else "adamw",
        clip_norm=config.clip_norm,
    )


def _batch_size(n_tiles: int, train_list: Path, config: PretrainConfig) -> int:
    """The wanted batch, or all tiles where there are fewer: as many as all processes can share evenly."""
    shares = processes()
    if config.batch_size % shares:
        what = f"is {config.batch_size}, which {shares} processes cannot share evenly"
        raise InputError(Problem("`pretrain.batch_size`", what, f"Make it a multiple of {shares}."))
    least = max(2, shares)
    if n_tiles < least:
        what = f"lists {n_tiles} training tile(s); the contrastive loss needs at least {least}"
        raise InputError(Problem(str(train_list), what, "Add scenes, or make tiles smaller (`tiles.size`)."))
    return min(config.batch_size, n_tiles // shares * shares)


def _network(
    sensors: SensorsConfig, model: ModelConfig, method: PretrainingMethod, config: PretrainConfig
) -> EmbeddingNetwork:
    """A network with initial weights that depend on the seed and the file given; torch's generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        bands = len(sensors.optical.bands), len(sensors.sar.bands)
        network = method.network(*bands, model, sensors.further_bands)
    if config.initial_weights is not None:
        load_initial_weights(network, Path(config.initial_weights))
    return network


def _module(
    tiles: TileDataset,
    statistics: Normalisation,
    config: MethodConfig,
    shared: PretrainConfig,
    model: ModelConfig,
    sensors: SensorsConfig,
    batch_size: int,
) -> PretrainModule:
    """What is trained: the method's network and loss, on views of the tiles."""
    method = build_method(config)
    network = _network(sensors, model, method, shared)
    views = ViewMaker(shared, sensors, config.variant, statistics.clip, config.corrections.photometric_by_sensor)
    build = StepBuilder(tiles, views, batch_size, shared.seed, rank(), processes())
    return PretrainModule(network, method, shared, optimiser_plan(shared, config), build)


def _settings(
    method_name: str, method: MethodConfig, config: PretrainConfig, model: ModelConfig, sensors: SensorsConfig
) -> dict[str, Any]:
    """Everything the weights depend on but the tiles, ready for JSON."""
    given = config.initial_weights
    return {
        "method": method_name,
        "pretrain": config.model_dump(mode="json", exclude={"methods", "weights"}),
        "settings": method.model_dump(mode="json"),
        "initial_weights_sha256": None if given is None else file_digest(given),
        "model": model.model_dump(mode="json"),
        "sensors": sensors.model_dump(mode="json"),
        "version": __version__,
    }


def _record(
    config: PretrainConfig, curves: Curves, batch_size: int, n_tiles: int, network: nn.Module
) -> dict[str, Any]:
    """What the run came to."""
    return {
        "metrics": curves.rows[config.steps],
        "steps": config.steps,
        "batch_size": batch_size,
        "batch_size_wanted": config.batch_size,
        "n_tiles": n_tiles,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _probes(
    network: EmbeddingNetwork,
    tiles: TileDataset,
    splits: Path,
    config: PretrainConfig,
    model: ModelConfig,
    curves: Curves,
) -> list[Probe]:
    """The probe, where the config asks for one: on the lists of a label fraction and of the validation part."""
    probe = config.probe
    if probe.every is None:
        return []
    store, lists = tiles.store, (Budget("R", probe.fraction).subset(1), "val")
    parts = [
        TileDataset(store, read_list(splits / f"{name}_RGB.txt"), tiles.normalisation, True, cache_gib=0)
        for name in lists
    ]
    plan = ProbePlan(probe.every, probe.classifier, model.output_stride, probe.tiles, probe.pixels, config.seed)
    return [Probe(network, parts[0], parts[1], len(store.classes), plan, curves)]


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
        train_list: List of the training tiles, such as `train_RGB.txt`; no other tile is read but by the probe,
            which takes its lists from the same folder.
        normalisation: `normalisation.json`.
        method_name: Name of the method.
        method: Its settings.
        config: Settings of pre-training.
        model: Sizes of the networks.
        sensors: Bands and kinds.
        compute: Processes that share the work, their threads and memory for tiles, and the number format. A script
            that asks for several processes calls this below `if __name__ == "__main__"`.
        out: Folder of the results.
        state: Folder of the state that a killed run resumes from; removed at the end.

    Raises:
        InputError: If tiles are missing, there are fewer than two, `initial_weights` do not fit, or the processes
            cannot share a batch evenly.
        TrainingError: If a loss is not finite.
    """
    rest = method_name, method, config, model, sensors, compute, out, state
    train = partial(_train, tiles_root, train_list, normalisation, *rest)
    if compute.devices == 1:
        train()
    else:
        gpu = compute.accelerator != "cpu" and torch.cuda.is_available()
        run_in_processes(train, compute.devices, gpu)
    shutil.rmtree(state, ignore_errors=True)


def _train(
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
    """What each process does; the first one looks at the probe and writes."""
    began = time.monotonic()
    statistics = Normalisation.read(normalisation)
    names = read_list(train_list)
    batch_size = _batch_size(len(names), train_list, config)
    cache = compute.cache_gib / processes()
    tiles = TileDataset(TileStore(tiles_root), names, statistics, with_labels=False, cache_gib=cache)
    module = _module(tiles, statistics, method, config, model, sensors, batch_size)
    network, curves = module.network, Curves(config.log_every, config.steps)
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
        accumulate=config.accumulate,
        compile=config.compile,
    )
    if rank() > 0:
        fit(module, loop, curves)
        return
    probes = _probes(module.network, tiles, train_list.parent, config, model, curves)
    fit(module, loop, curves, [GradientNorm(curves), *probes])
    record = _record(config, curves, batch_size, len(names), network)
    record["device"] = choose_device(compute).type
    record["seconds"] = round(time.monotonic() - began, 1)
    _write(out, network, curves, statistics, settings, record)


def _write(
    out: Path,
    network: nn.Module,
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
