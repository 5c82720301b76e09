"""Supervised fine-tuning of a segmentation network on a label fraction."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tmcnet
from tmcnet.classes import ClassTable
from tmcnet.config import RANDOM_START, AlignConfig, ComputeConfig, FinetuneSettings, ModelConfig, Run, SensorsConfig
from tmcnet.config.base import only_modality
from tmcnet.config.training import LoadParts, SelfTrainingConfig, self_training_round
from tmcnet.dataset.clouds import CoveredTiles
from tmcnet.dataset.loading import TileDataset
from tmcnet.dataset.normalise import Normalisation
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.metrics import Counts, fit_temperature, without_nan
from tmcnet.evaluate.trained import Trained, predict_tiles, validate
from tmcnet.hashing import file_digest
from tmcnet.memory import release_freed_memory
from tmcnet.model.device import choose_device
from tmcnet.model.encoder_features import EncoderFeatures
from tmcnet.model.mssnet import MSSNet
from tmcnet.model.networks import Ensemble, PlainNetwork, build_network
from tmcnet.model.pixelwise import Pixelwise
from tmcnet.model.weights import PREFIXES, STACKED, Transfer, read_weights, split_stem, stack_stems, transfer
from tmcnet.seeding import derive_seed
from tmcnet.splits.files import list_names, points_file, points_per_class, require_unlabelled, verified_list
from tmcnet.store import TileStore
from tmcnet.train.distributed import gather, launch, rank, share_of_batch
from tmcnet.train.loop import (
    Curves,
    LoopPlan,
    OptimiserPlan,
    StepModule,
    Training,
    cost,
    moving_average,
    write_curves,
)
from tmcnet.train.losses import segmentation_loss
from tmcnet.train.perceptron import DetailLogits, fit_detail
from tmcnet.train.pixelwise import Fitted, fit_components, fit_pixelwise
from tmcnet.train.samples import Batch, BatchBuilder, class_counts, class_weights
from tmcnet.train.self_training import PseudoLabels, TaughtTiles, choose_unlabelled, label_tiles

CALIBRATION_PIXELS_PER_TILE = 2000
"""Approximate number of validation pixels of a tile to which the temperatures of an ensemble are fitted."""
ROWS_PER_VALIDATION = 5
"""Rows of the loss curve between two validations."""


class FinetuneModule(StepModule[Batch]):
    """The network with the loss of a batch, in which void pixels are ignored, and its validation.

    If several processes train together, each computes the loss of the whole batch.

    Args:
        network: The segmentation network.
        config: How it is trained; names the loss.
        build: Makes the batch of a step.
        weights: Weight of each class.
        val: The validation tiles.
        loaded: Names of the tensors loaded from pre-training.
        detail: Logits of the fitted full-resolution branch; None: the network has none.

    Attributes:
        kept: The best weights, or with `keep: labels` the last ones, with their step and scores.
    """

    class_weights: Tensor

    def __init__(
        self,
        network: nn.Module,
        config: FinetuneSettings,
        build: BatchBuilder,
        weights: Tensor,
        val: TileDataset,
        loaded: Iterable[str] = (),
        detail: DetailLogits | None = None,
    ) -> None:
        super().__init__(network, _optimiser(config, loaded), build)
        self.config, self.val, self.detail = config, val, detail
        kept = self.plan.encoders if config.encoder_rate == 0 else ()
        for name, parameter in network.named_parameters():
            if name in kept:  # no gradient, which gradient clipping would count
                parameter.requires_grad_(False)
        self.register_buffer("class_weights", weights, persistent=False)
        self.average = None if config.ema is None else moving_average(network, config.ema)
        self.evaluated = {*range(config.validate_every, config.steps, config.validate_every), config.steps}
        self.kept = Fitted(best={"miou": -math.inf})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        of_branch = () if self.detail is None else (self.detail(batch),)
        logits = self.network(batch.images, *of_branch).float()
        whole_batch = gather(logits), gather(batch.label)
        return {"loss": segmentation_loss(*whole_batch, self.class_weights.float(), self.config)}

    def evaluate(self, step: int) -> dict[str, float]:
        """Validate the network, or its moving average, and keep the weights if they are wanted."""
        network = self.network if self.average is None else self.average.module
        scores = validate(network, self.val, len(self.class_weights), self.config.batch_size)
        self.kept.last_step = step
        if scores["miou"] > self.kept.best["miou"] or self.config.keep != "best":
            weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
            self.kept = Fitted(step, step, scores, weights)
        return {"val_miou": scores["miou"], "val_oa": scores["oa"]}

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the tensors."""
        return vars(self.kept)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.kept = Fitted(**state)


@dataclass(frozen=True)
class Finetuning:
    """Inputs, settings and outputs of one fine-tuning.

    Attributes:
        tiles_root: Folder of the tiles.
        splits: Folder of the lists.
        normalisation: Band statistics of the training tiles.
        run: Network, variant, start, label budget and seed.
        weights: Initial weights; None for the random start.
        config: How it is trained.
        model: Sizes of the network.
        sensors: Bands and kinds.
        compute: Processes, threads, accelerator and number format.
        out: Folder of the results: `weights.safetensors`, `curves.csv` and `summary.json`.
        state: Folder of the checkpoints, removed at the end.
        align: Registration of the scenes, for the file of the network.
        members: Weights of the members of an ensemble, in its order; it is calibrated and needs no training.
        teacher: Weights of the network that labels tiles for self-training.
        teaching: How it labels them.
    """

    tiles_root: Path
    splits: Path
    normalisation: Path
    run: Run
    weights: Path | None
    config: FinetuneSettings
    model: ModelConfig
    sensors: SensorsConfig
    compute: ComputeConfig
    out: Path
    state: Path
    align: AlignConfig = field(default_factory=AlignConfig)
    members: tuple[Path, ...] = ()
    teacher: Path | None = None
    teaching: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)


def finetune(work: Finetuning) -> None:
    """Train a network on a label fraction; a killed run resumes from `work.state`.

    Raises:
        InputError: If a list is empty or missing, no pixel is labelled, the start does not fit the run, or the
            processes cannot share a batch evenly.
        TrainingError: If the start loads nothing, or a loss is not finite.
    """
    launch(train, [work], work.compute, work.compute.finetune_threads, work.state)
    shutil.rmtree(work.state, ignore_errors=True)


def train(work: Finetuning) -> None:
    """Train in this process; the first of several ones also validates and writes."""
    began = time.monotonic()
    run, compute = work.run, work.compute
    torch.set_num_threads(compute.finetune_threads)
    config = work.config.for_budget(run.budget)
    seed = derive_seed(config.seed, "finetune", run.seed)
    data = _read(work, config, seed)
    network = _build(run, work.sensors, len(data.classes), work.model, seed)
    start = _start(network, run, work.weights, config.load)
    notes, device = {}, "cpu"
    if isinstance(network, Pixelwise | Ensemble):
        curves, kept, precision = _fit_once(network, work.members, data, config, compute, seed)
        notes = {"warnings": kept.notes}
    else:
        share = share_of_batch("finetune.batch_size", config.batch_size)
        detail = None
        if isinstance(network, MSSNet | PlainNetwork) and network.detail.perceptron is not None:
            fit_detail(network, run.network, data.train, data.counts, data.balance, config, seed)
            detail = DetailLogits(network, data.train, _cache_gib(compute))
        builder = BatchBuilder(data.train, config, work.sensors, run.network, seed, share)
        module = FinetuneModule(network, config, builder, data.balance, data.val, start.loaded, detail)
        plan = LoopPlan(
            label=run.name,
            batch_size=config.batch_size,
            log_every=max(config.validate_every // ROWS_PER_VALIDATION, 1),
            checkpoint_every=config.validate_every,
            state=work.state,
            threads=compute.finetune_threads,
            compute=compute,
            seed=seed,
            settings=data.settings(config, work.weights),
        )
        training = Training(module, plan)
        training.run()
        curves, kept, precision, device = training.curves, module.kept, training.precision, training.device.type
    if rank() > 0:
        return
    network.load_state_dict(kept.weights)
    described = run, work.model, work.sensors, data.classes, data.scaling, kept.best, work.align
    trained = Trained(network, *described, **_origin(work))
    teaching = {"self_training": work.teaching.model_dump()} if work.teacher else {}
    trained.write(work.out / "weights.safetensors", {"finetune": config.model_dump(), **teaching})
    write_curves(work.out / "curves.csv", curves)
    about = {"run": run.record, **data.summary(), **_start_summary(network, start), "precision": precision}
    about |= {"steps": kept.last_step, "best_step": kept.best_step, "validation": without_nan(kept.best), **notes}
    (work.out / "summary.json").write_text(json.dumps({**about, **cost(device, began)}, indent=1) + "\n")


def _origin(work: Finetuning) -> dict[str, Any]:
    """Pixel size of the tiles, version of the software, and hashes of the files that describe the data."""
    labels = work.splits / list_names(work.run.subset)[0]
    files = {"index_sha256": work.tiles_root / "index.csv", "list_sha256": labels}
    hashes = {name: file_digest(path) for name, path in files.items() if path.is_file()}
    provenance = {"tmcnet": tmcnet.__version__, **hashes}
    return {"gsd": TileStore(work.tiles_root).pixel_metres, "provenance": provenance}


def _fit_once(
    network: Pixelwise | Ensemble,
    members: Sequence[Path],
    data: _Data,
    config: FinetuneSettings,
    compute: ComputeConfig,
    seed: int,
) -> tuple[Curves, Fitted, str]:
    """Fit a network without steps of training."""
    if isinstance(network, Ensemble):
        return _combine(network, members, data, config)
    if isinstance(network.features, EncoderFeatures):
        fit_components(network.features, data.unlabelled, seed)
    labels = data.train, data.val, data.counts, data.balance
    return *fit_pixelwise(network, *labels, config, compute.finetune_threads, seed), "32-true"


def _combine(
    network: Ensemble, members: Sequence[Path], data: _Data, config: FinetuneSettings
) -> tuple[Curves, Fitted, str]:
    """Load the members of an ensemble; with `keep: best` fit their temperatures on the validation part."""
    for number, (member, path) in enumerate(zip(network.members, members, strict=True)):
        member.load_state_dict(read_weights(path)[0])
        if config.keep != "best":
            continue
        tiles = (data.val[index] for index in range(len(data.val)))
        samples, truth = [], []
        for tile, probabilities in predict_tiles(member, tiles, config.batch_size):
            step = max(1, tile.truth.numel() // CALIBRATION_PIXELS_PER_TILE)
            samples.append(probabilities.reshape(len(probabilities), -1)[:, ::step].T)
            truth.append(tile.truth.numpy().ravel()[::step])
        network.temperature[number] = fit_temperature(np.concatenate(samples), np.concatenate(truth))
    scores = validate(network, data.val, len(data.classes), config.batch_size)
    curves = {1: {"val_miou": scores["miou"], "val_oa": scores["oa"]}}
    return curves, Fitted(1, 1, scores, dict(network.state_dict())), "32-true"


@dataclass(frozen=True)
class _Data:
    """Tiles of a run, and the number of labelled pixels of each class, those of covered copies and teachers included.

    `labelled` are the tiles with labels of their own, `labelled_pixels` their pixels of each class, `unlabelled` all
    tiles of the training part, read without their labels.
    """

    train: TileDataset
    labelled: TileDataset
    taught: PseudoLabels | None
    val: TileDataset
    unlabelled: TileDataset
    scaling: Normalisation
    classes: ClassTable
    labelled_pixels: Counts
    counts: Counts
    balance: Tensor

    def settings(self, config: FinetuneSettings, start: Path | None) -> str:
        """Return what the result depends on beside the network; a checkpoint of other data is not used."""
        weights = file_digest(start) if start else RANDOM_START
        points = {name: points.tolist() for name, points in (self.train.points or {}).items()}
        tiles = self.train.names, points, self.val.names, self.taught.digest if self.taught else ""
        return json.dumps([config.model_dump(), self.scaling.to_dict(), *tiles, weights])

    def summary(self) -> dict[str, Any]:
        """Return the part of the summary about the labels."""
        pixels = self.labelled_pixels
        return {
            "tiles": len(self.labelled),
            "labelled_pixels": dict(zip(self.classes.names, map(int, pixels), strict=True)),
            "class_weights": dict(zip(self.classes.names, map(float, self.balance), strict=True)),
            **({"self_training": self.taught.summary(self.classes, pixels)} if self.taught else {}),
        }


def _read(work: Finetuning, config: FinetuneSettings, seed: int) -> _Data:
    store, splits, scaling = TileStore(work.tiles_root), work.splits, Normalisation.read(work.normalisation)
    classes, cache_gib = store.classes, _cache_gib(work.compute)
    covers = config.covered_copies if only_modality(work.run.network) is None else []
    names = verified_list(splits, "train")
    unlabelled = TileDataset(store, names, scaling, with_labels=False, cache_gib=0)
    labelled = _tiles(store, splits, work.run.subset, scaling, 0 if covers or work.teacher else cache_gib)
    train, taught = labelled, None
    if work.teacher is not None:
        require_unlabelled(splits, [work.run.subset])
        chosen = choose_unlabelled(names, labelled.names, work.teaching, seed)
        tiles = TileDataset(store, chosen, scaling, with_labels=False, cache_gib=0)
        teacher = Trained.read(work.teacher, choose_device(work.compute)).network
        taught = label_tiles(teacher, tiles, len(classes), work.teaching, config.batch_size)
        release_freed_memory()
        train = TaughtTiles(labelled, tiles, taught.labels, 0 if covers else cache_gib)
    pixels = class_counts(labelled, len(classes))
    counts = (pixels + taught.kept if taught else pixels) * (1 + len(covers))
    if covers:
        train = CoveredTiles(train, covers, work.sensors.reflectance, cache_gib, seed)
    val = _tiles(store, splits, "val", scaling, cache_gib)
    balance = class_weights(counts) if config.class_weights else torch.ones(len(classes))
    return _Data(train, labelled, taught, val, unlabelled, scaling, classes, pixels, counts, balance)


def _cache_gib(compute: ComputeConfig) -> float:
    """Memory for each of the training tiles, the validation tiles and the logits of the full-resolution branch."""
    return compute.cache_gib / compute.devices / 3


def _tiles(store: TileStore, splits: Path, name: str, scaling: Normalisation, cache_gib: float) -> TileDataset:
    """Read the tiles of a list; a list of points restricts their labels to these."""
    names = verified_list(splits, name)
    if not names:
        remedy = "Take a larger label fraction, or more tiles."
        raise InputError(Problem(str(splits / f"{name}_RGB.txt"), "names no tile", remedy))
    points = None
    if points_per_class(name):
        from tmcnet.splits.points import read_tile_points  # needs pandas, which other trainings do not

        points = read_tile_points(points_file(splits, name), names, store.classes.names)
    return TileDataset(store, names, scaling, with_labels=True, cache_gib=cache_gib, points=points)


def _build(run: Run, sensors: SensorsConfig, classes: int, model: ModelConfig, seed: int) -> nn.Module:
    """Build the network with initial weights that depend only on the seed, so that starts are comparable."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return build_network(run.network, run.variant, sensors.band_counts, classes, model)


def _start(network: nn.Module, run: Run, weights: Path | None, parts: LoadParts) -> Transfer:
    if isinstance(network, Ensemble):  # its members have started already
        return Transfer(loaded=list(network.state_dict()))
    if not self_training_round(run.method) and (weights is None) != (run.method == RANDOM_START):
        what = f"starts from `{run.method}`, but the weights given are {weights}"
        raise InputError(Problem(f"run {run.name}", what, f"Only `{RANDOM_START}` starts without weights."))
    if weights is None:
        return Transfer()
    state, header = read_weights(weights)
    if isinstance(network, Pixelwise) and isinstance(network.features, EncoderFeatures):
        return Transfer([f"features.{name}" for name in network.features.load_encoders(state)])
    # batch counters fit networks of any size and would hide a start that loads nothing else
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    if run.network == "early_fusion":
        assert isinstance(network, PlainNetwork)
        return transfer(network, stack_stems(state, network.sources["optical"]), parts)
    if any(name.startswith(STACKED) for name in state):
        sensors = header["config"]["sensors"]
        state = split_stem(state, {name: len(sensor["bands"]) for name, sensor in sensors.items()})
    return transfer(network, state, parts)


def _start_summary(network: nn.Module, start: Transfer) -> dict[str, Any]:
    """Return the number of parameters, and which tensors were loaded, skipped or random."""
    fresh = [
        name
        for name in network.state_dict()
        if name not in set(start.loaded) and not name.endswith("num_batches_tracked")
    ]
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "loaded": len(start.loaded),
        "not_loaded": len(start.skipped),
        "started_at_random": len(fresh),
        "loaded_names": start.loaded,
        "not_loaded_names": start.skipped,
        "started_at_random_names": fresh,
    }


def _optimiser(config: FinetuneSettings, loaded: Iterable[str]) -> OptimiserPlan:
    return OptimiserPlan(
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        encoder_rate=config.encoder_rate,
        encoders=tuple(name for name in loaded if name.startswith(PREFIXES["backbone"])),
    )
