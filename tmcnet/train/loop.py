"""The training loop that pre-training and fine-tuning share, on Lightning."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.trained import choose_device
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.callbacks import STATE_FILE, Curves, FiniteLoss, Progress, StateSaver
from tmcnet.train.distributed import processes, rank, share_layers, wait_for_all
from tmcnet.train.optimise import OptimiserPlan, build_optimiser

Batch = TypeVar("Batch")

MIN_BFLOAT16_GAIN = 1.5
"""Least speed-up of a convolution at which `compute.precision: auto` chooses bfloat16; with AMX it is 3 to 4."""


@dataclass(frozen=True)
class LoopPlan:
    """How a training runs.

    Attributes:
        label: Name of the training, in progress lines.
        steps: Number of steps.
        batch_size: Tiles per batch, of all processes together.
        checkpoint_every: Steps between two checkpoints.
        state: Folder of the checkpoints; training resumes from one found there.
        threads: CPU threads of each process.
        compute: Accelerator and number format.
        seed: Seed of what the network itself draws (dropout).
        settings: Everything else the result depends on, as text; a checkpoint of other settings is not used.
        accumulate: Batches per step, whose gradients are averaged. It saves memory, but batch norm and contrastive
            losses see one batch at a time: the number of negatives does not grow.
        compile: Compile the network with `torch.compile`; pays off in long trainings.
    """

    label: str
    steps: int
    batch_size: int
    checkpoint_every: int
    state: Path
    threads: int
    compute: ComputeConfig
    seed: int
    settings: str = ""
    accumulate: int = 1
    compile: bool = False


class StepModule(pl.LightningModule, ABC, Generic[Batch]):  # type: ignore[misc]  # lightning is not type-checked here
    """A network and one step of its training; subclasses implement `losses` and may implement `measure`.

    Args:
        network: The network whose weights are trained.
        optimiser: How they are updated.
        build: Makes a batch by its number, counted from 0; a pure function of it. A step takes one batch, or as many
            as `LoopPlan.accumulate` says.

    Attributes:
        tile_names: Tiles of the current batch, for the message about a non-finite loss; set by `losses`.
        batch_number: Number of the current batch, counted from 0 as for `build`; the same in a resumed run.
        last_rate: Learning rate of the last step.
    """

    def __init__(self, network: nn.Module, optimiser: OptimiserPlan, build: Callable[[int], Batch]) -> None:
        super().__init__()
        self.network = network
        self.plan = optimiser
        self.build = build
        self.tile_names: list[str] = []
        self.batch_number = 0
        self.last_rate = 0.0
        self.dropout_seed = 0
        self.workers = 0
        self.accumulate = 1
        self.fused = True

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar `loss` to minimise, and more scalars for the curves."""

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """Return more values for the row of the curves that a step (counted from 1) ends."""
        return {}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Compute the losses of a batch; only `loss` keeps its graph."""
        # Dropout draws from torch's global generator; seeding it for every batch makes it repeatable.
        self.batch_number = self.global_step * self.accumulate + batch_idx % self.accumulate
        torch.manual_seed(derive_seed(self.dropout_seed, "dropout", self.batch_number))
        losses = self.losses(batch)
        self.last_rate = float(self.optimizers().param_groups[-1]["lr"])
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}

    def configure_optimizers(self) -> dict[str, Any]:
        """Return optimiser and schedule, which advances every step."""
        optimiser, schedule = build_optimiser(self.network, self.plan, self.fused)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches from the step at which training starts or resumes."""
        batches, first = (number * self.accumulate for number in (self.plan.steps, self.global_step))
        return step_loader(self.build, batches, first, self.workers)


def _quiet() -> None:
    """Silence Lightning's tips, which would hide the project's own log lines."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (
        r".*does not have many workers.*",
        r".*mid-epoch checkpoint.*",
        r".*You're resuming from a checkpoint that ended before the epoch.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", pattern)


@cache
def bfloat16_gain() -> float:
    """Measure how many times faster this CPU is in bfloat16, with a convolution and its gradients; under a second."""
    weight = torch.ones(64, 64, 3, 3).contiguous(memory_format=torch.channels_last)
    image = torch.ones(8, 64, 30, 30).contiguous(memory_format=torch.channels_last)
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(5):
        for kind, taken in seconds.items():
            x, w = (tensor.to(kind).requires_grad_() for tensor in (image, weight))
            began = time.thread_time()
            F.conv2d(x, w).sum().backward()  # type: ignore[no-untyped-call]
            taken.append(time.thread_time() - began)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def choose_precision(compute: ComputeConfig, state: Path) -> str:
    """Return the number format that a training uses, and note it in its state for a resumed run.

    Args:
        compute: Accelerator and number format, which may be `auto`.
        state: Folder of the checkpoints.
    """
    if compute.precision != "auto":
        return compute.precision
    if choose_device(compute).type != "cpu":
        return "32-true"
    note = state / "precision.txt"
    if not note.exists():
        state.mkdir(parents=True, exist_ok=True)
        note.write_text("bf16-mixed" if bfloat16_gain() >= MIN_BFLOAT16_GAIN else "32-true")
    return note.read_text()


def _prepare_state(module: StepModule[Batch], plan: LoopPlan) -> None:
    """Remove a checkpoint of other settings, sizes or software, or one that cannot be read."""
    shapes = {name: list(tensor.shape) for name, tensor in module.network.state_dict().items()}
    mark = json.dumps(
        [__version__, plan.settings, plan.seed, asdict(module.plan), plan.batch_size, plan.accumulate, shapes]
    )
    note, saved = plan.state / "settings.json", plan.state / STATE_FILE
    fits = note.exists() and note.read_text() == mark
    if saved.exists() and not (fits and _readable(saved)):
        print(f"{plan.label}: {saved} is damaged or has other settings; starting again", file=sys.stderr, flush=True)
        saved.unlink()
    plan.state.mkdir(parents=True, exist_ok=True)
    note.write_text(mark)


def _readable(saved: Path) -> bool:
    try:
        torch.load(saved, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        return False
    return True


def _compile(network: nn.Module) -> None:
    """Compile a network in place, so that its tensors keep their names.

    Raises:
        InputError: If there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        what = f"needs a C++ compiler, but `{compiler}` is not found"
        raise InputError(Problem("`torch.compile`", what, "Install one, name it in CXX, or do not compile."))
    network.compile()


def fit(module: StepModule[Batch], plan: LoopPlan, curves: Curves, callbacks: Sequence[pl.Callback] = ()) -> str:
    """Train for the planned number of steps, from the checkpoint of a killed run if there is one.

    If several processes train together (`run_in_processes`), each calls it with the same arguments and its share of
    the batches; only the first one writes, logs and runs the caller's callbacks.

    Args:
        module: Network and losses; the network holds the trained weights afterwards, on the CPU.
        plan: How it runs.
        curves: Filled with the values of the steps, in the first process; the caller writes them.
        callbacks: Lightning callbacks of the caller, whose `state_dict` is saved and restored. They run after the
            curves and may add values with `curves.add(step, ...)`.

    Returns:
        The number format that was used.

    Raises:
        InputError: If the network is to be compiled, and there is no compiler.
        TrainingError: If a loss is not finite.
    """
    _quiet()
    torch.set_num_threads(plan.threads)
    precision = _agreed_precision(plan)
    plan = replace(plan, compute=plan.compute.model_copy(update={"precision": precision}))
    progress = Progress(plan.label, plan.steps, plan.batch_size * plan.accumulate)
    reporting = [curves, progress, *callbacks] if rank() == 0 else []
    saver = StateSaver(plan.state, plan.checkpoint_every, plan.steps)
    trainer = _trainer(module, plan, [FiniteLoss(plan.state), *reporting, saver])
    gpu = trainer.strategy.root_device.type == "cuda"
    _prepare_network(module, plan, gpu)
    # Reading tiles competes with a GPU only when it happens in the training process.
    module.workers = plan.threads if gpu else 0
    if rank() == 0:
        _prepare_state(module, plan)
    wait_for_all()
    saved = plan.state / STATE_FILE
    trainer.fit(module, ckpt_path=saved if saved.exists() else None, weights_only=True)
    module.cpu()
    return precision


def _agreed_precision(plan: LoopPlan) -> str:
    """The choice of the first process, for all that train together."""
    if rank() == 0:
        choose_precision(plan.compute, plan.state)
    wait_for_all()
    return choose_precision(plan.compute, plan.state)


def _prepare_network(module: StepModule[Batch], plan: LoopPlan, gpu: bool) -> None:
    """Set memory layout, dropout seed, shared layers and compilation."""
    # convolutions on the CPU are faster in this layout, and tensor cores need it
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.dropout_seed, module.accumulate = plan.seed, plan.accumulate
    # A fused optimiser unscales gradients too late for GradientNorm, and Lightning cannot clip before one in mixed
    # precision.
    precision, clips = plan.compute.precision, module.plan.clip_norm is not None
    module.fused = precision != "16-mixed" and not (clips and precision == "bf16-mixed")
    if processes() > 1:
        share_layers(module.network, plan.batch_size // processes(), gpu)
    if plan.compile:
        _compile(module.network)


def _trainer(module: StepModule[Batch], plan: LoopPlan, callbacks: list[pl.Callback]) -> pl.Trainer:
    # Batch norms share their statistics, so no buffers need to be sent from the first process.
    strategy = DDPStrategy(forward_sync_buffers=False) if processes() > 1 else "auto"
    return pl.Trainer(
        accelerator=plan.compute.accelerator,
        strategy=strategy,
        devices=processes(),
        precision=plan.compute.precision,
        max_steps=plan.steps,
        max_epochs=-1,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=module.plan.clip_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=plan.state,
        callbacks=callbacks,
        # One process per job: without this, Lightning would use a Slurm allocation and wait for other tasks.
        plugins=[LightningEnvironment()],
    )


def indices_of_step(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the indices of the items in the batch of a step.

    Items are shuffled every epoch. No item occurs twice in a batch, and incomplete batches at the end of an epoch are
    dropped. If there are fewer items than a batch needs, whole shuffles are concatenated.

    Args:
        n: Number of items.
        batch_size: Items in a batch.
        seed: The run's own seed.
        step: Step, counted from 0.
    """
    if n >= batch_size:
        epoch, place = divmod(step, n // batch_size)
        order = generator(seed, "order", epoch).permutation(n)
        return [int(i) for i in order[place * batch_size : (place + 1) * batch_size]]
    shuffles = generator(seed, "order", step)
    items: list[int] = []
    while len(items) < batch_size:
        items += [int(i) for i in shuffles.permutation(n)]
    return items[:batch_size]


class StepStream(IterableDataset[Batch]):
    """The batches of the steps first, first + 1, ..., steps - 1, built on demand.

    Args:
        build: Makes the batch of a step, counted from 0; a pure function of the step.
        steps: Number of steps in all.
        first: First step to build.
    """

    def __init__(self, build: Callable[[int], Batch], steps: int, first: int = 0) -> None:
        self.build, self.steps, self.first = build, steps, first

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self.first + number, self.steps, count):
            yield self.build(step)


def step_loader(build: Callable[[int], Batch], steps: int, first: int, workers: int) -> DataLoader[Batch]:
    """Return a loader of ready batches in step order, built by `workers` processes (0: in this one)."""
    return DataLoader(StepStream(build, steps, first), batch_size=None, num_workers=workers)


def cost(device: str, began: float) -> dict[str, Any]:
    """Return device, seconds and, on a CUDA device, the peak memory of this process.

    Args:
        device: `cpu` or `cuda`.
        began: `time.monotonic()` at the start.
    """
    costs: dict[str, Any] = {"device": device, "seconds": round(time.monotonic() - began, 1)}
    if device == "cuda":
        costs["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return costs
