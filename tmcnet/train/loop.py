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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.callbacks import STATE_FILE, Curves, FiniteLoss, Progress, StateSaver
from tmcnet.train.distributed import processes, rank, share_layers, wait_for_all
from tmcnet.train.optimise import OptimiserPlan, build_optimiser

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class LoopPlan:
    """How a training runs.

    Attributes:
        label: What is trained, in progress lines.
        steps: Number of steps.
        batch_size: Tiles in a batch, of all processes together.
        checkpoint_every: Steps between two saved states.
        state: Folder of the saved states; a state found there is taken up.
        threads: CPU threads of each process.
        compute: Accelerator and number format.
        seed: Seed of what the network itself draws (dropout).
        settings: Whatever else the result depends on, as text; a saved state of other settings is not taken up.
        accumulate: Batches whose mean gradient makes a step. It saves memory and steadies the gradient, but batch
            norm and contrastive losses still see one batch at a time: the negatives do not grow.
        compile: Compile the network with `torch.compile`. Worth its minutes for long trainings, on GPUs most of all.
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
    """A network with what one step of its training does; subclasses give `losses` and may give `measure`.

    Args:
        network: The network whose weights are trained.
        optimiser: How they are updated.
        build: Makes a batch by its number, counted from 0; a pure function of it. A step takes one batch, or as many
            as `LoopPlan.accumulate` says.

    Attributes:
        tile_names: Tiles of the batch at hand, for the message about a loss that is not finite; set by `losses`.
        batch_number: Number of the batch at hand, counted from 0 as for `build`; the same in a resumed run.
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
        """The scalar `loss` of a batch that is minimised, and more scalars for the curves."""

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """More numbers for the row of the curves that step (counted from 1) ends; none unless overridden."""
        return {}

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """One batch: the loss with its graph, everything else without."""
        # Dropout draws from torch's global generator and takes no other; seeding it by the batch makes it repeatable.
        self.batch_number = self.global_step * self.accumulate + batch_idx % self.accumulate
        torch.manual_seed(derive_seed(self.dropout_seed, "dropout", self.batch_number))
        losses = self.losses(batch)
        self.last_rate = float(self.optimizers().param_groups[-1]["lr"])
        return {name: value if name == "loss" else value.detach() for name, value in losses.items()}

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and schedule, advanced every step."""
        optimiser, schedule = build_optimiser(self.network, self.plan, self.fused)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches from the step at which training starts or resumes."""
        batches, first = (number * self.accumulate for number in (self.plan.steps, self.global_step))
        return step_loader(self.build, batches, first, self.workers)


def _quiet() -> None:
    """Lightning's tips and notices drown the project's own lines."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in (
        r".*does not have many workers.*",
        r".*mid-epoch checkpoint.*",
        r".*You're resuming from a checkpoint that ended before the epoch.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", pattern)


def _prepare_state(module: StepModule[Batch], plan: LoopPlan) -> None:
    """Remove a state that a run of other settings, sizes or software left, and one that cannot be read."""
    shapes = {name: list(tensor.shape) for name, tensor in module.network.state_dict().items()}
    mark = json.dumps(
        [__version__, plan.settings, plan.seed, asdict(module.plan), plan.batch_size, plan.accumulate, shapes]
    )
    note, saved = plan.state / "settings.json", plan.state / STATE_FILE
    fits = note.exists() and note.read_text() == mark
    if saved.exists() and not (fits and _readable(saved)):
        print(f"{plan.label}: {saved} is damaged or of other settings; starting anew", file=sys.stderr, flush=True)
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
        what = f"asks for a C++ compiler, and `{compiler}` is not found"
        raise InputError(Problem("`torch.compile`", what, "Install one, name it in CXX, or do not compile."))
    network.compile()


def fit(module: StepModule[Batch], plan: LoopPlan, curves: Curves, callbacks: Sequence[pl.Callback] = ()) -> None:
    """Train for the planned number of steps, from the state a killed run left if there is one.

    Where several processes train together (`run_in_processes`), each calls it with the same arguments but its own
    share of the batches, and the first of them alone writes, tells and runs the caller's callbacks.

    Args:
        module: What is trained; its network holds the trained weights afterwards, on the CPU.
        plan: How it runs.
        curves: Filled with what the steps report; the caller writes them. Those of the first process alone.
        callbacks: Lightning callbacks of the caller; a `state_dict` of theirs is saved and restored. They run after
            the curves took in a step, and may enter values of their own with `curves.add(step, ...)`.

    Raises:
        InputError: If the network is to be compiled, and there is no compiler.
        TrainingError: If a loss is not finite.
    """
    _quiet()
    torch.set_num_threads(plan.threads)
    progress = Progress(plan.label, plan.steps, plan.batch_size * plan.accumulate)
    tells = [curves, progress, *callbacks] if rank() == 0 else []
    saver = StateSaver(plan.state, plan.checkpoint_every, plan.steps)
    trainer = _trainer(module, plan, [FiniteLoss(plan.state), *tells, saver])
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


def _prepare_network(module: StepModule[Batch], plan: LoopPlan, gpu: bool) -> None:
    """Lay the network out for training, and tell the module how it is trained."""
    # convolutions on the CPU are about a third faster this way, and those of tensor cores want it
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.dropout_seed, module.accumulate = plan.seed, plan.accumulate
    # Scaled gradients must be scaled back before they are looked at, which a fused optimiser does too late; Lightning
    # does not clip before one in any mixed precision.
    precision, clips = plan.compute.precision, module.plan.clip_norm is not None
    module.fused = precision != "16-mixed" and not (clips and precision == "bf16-mixed")
    if processes() > 1:
        share_layers(module.network, plan.batch_size // processes(), gpu)
    if plan.compile:
        _compile(module.network)


def _trainer(module: StepModule[Batch], plan: LoopPlan, callbacks: list[pl.Callback]) -> pl.Trainer:
    # Batch norms share their statistics, so there is nothing to send from the first process to the others.
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
        # One process a job: without this Lightning takes a Slurm allocation for its own and may wait for others.
        plugins=[LightningEnvironment()],
    )


def indices_of_step(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which of n items make up the batch of a step.

    Items are shuffled anew each epoch. No item comes twice in a batch, and the items left over at the end of an
    epoch are dropped, unless there are fewer items than a batch needs: then whole shuffles are strung together.

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
    """A loader of ready batches in step order; `workers` processes build them, 0 for none beside this one."""
    return DataLoader(StepStream(build, steps, first), batch_size=None, num_workers=workers)


def cost(device: str, began: float) -> dict[str, Any]:
    """Device, seconds, and on a CUDA device the most memory that this process held there.

    Args:
        device: `cpu` or `cuda`, where it ran.
        began: `time.monotonic()` at its beginning.
    """
    told: dict[str, Any] = {"device": device, "seconds": round(time.monotonic() - began, 1)}
    if device == "cuda":
        told["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return told
