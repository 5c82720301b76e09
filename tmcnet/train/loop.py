"""The training loop that pre-training and fine-tuning share: optimiser, number format, steps and checkpoints."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError
from tmcnet.evaluate.trained import choose_device
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.callbacks import Callback, Curves, Progress, check_finite
from tmcnet.train.distributed import processes, rank, share_layers, wait_for_all
from tmcnet.train.interruption import ignore_signals, stop_requests

Batch = TypeVar("Batch")

STATE_FILE = "training.ckpt"
MIN_BFLOAT16_GAIN = 1.5
"""Least speed-up of a convolution at which `compute.precision: auto` chooses bfloat16; with AMX it is 3 to 4."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Type in which layers compute in a mixed number format; weights are float32."""


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


@dataclass(frozen=True)
class OptimiserPlan:
    """How weights are updated.

    Attributes:
        steps: Total number of steps.
        learning_rate: Maximum learning rate.
        warmup_steps: Steps over which the rate rises linearly.
        weight_decay: Weight decay; decoupled with `adamw`, added to the gradient with `adam`.
        kind: `adamw`, or `adam` as in the published code.
        betas: Decay of the running moments of the gradient.
        final_rate: Rate at the end of the cosine.
        encoder_rate: Rate of the parameters named in `encoders`, as a multiple of the rate.
        encoders: Names of parameters with a rate of their own.
        clip_norm: Maximum norm of the gradient of all weights; None: no limit.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    kind: Literal["adam", "adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    final_rate: float = 4e-8
    encoder_rate: float = 1.0
    encoders: tuple[str, ...] = ()
    clip_norm: float | None = None


def rate_factor(plan: OptimiserPlan) -> Callable[[int], float]:
    """Return the learning rate schedule relative to the maximum: linear warm-up, then half a cosine to `final_rate`.

    The warm-up is at most the number of steps.
    """
    warmup = min(plan.warmup_steps, plan.steps)
    final = min(plan.final_rate / plan.learning_rate, 1.0)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / max(plan.steps - warmup, 1), 1.0)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def parameter_groups(network: nn.Module, plan: OptimiserPlan) -> list[dict[str, Any]]:
    """Group parameters by rate and decay; norms and biases (one-dimensional tensors) are not decayed.

    With `adam` everything is decayed, as in the published code.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decayed = plan.kind == "adam" or parameter.ndim > 1
        groups.setdefault((name in plan.encoders, decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": plan.learning_rate * (plan.encoder_rate if encoder else 1.0),
            "weight_decay": plan.weight_decay if decayed else 0.0,
        }
        for (encoder, decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimiser(
    network: nn.Module, plan: OptimiserPlan
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimiser of a network and its schedule, to be advanced every step."""
    kind = torch.optim.Adam if plan.kind == "adam" else torch.optim.AdamW
    groups = parameter_groups(network, plan)
    optimiser = kind(groups, lr=plan.learning_rate, betas=plan.betas, fused=True)  # one kernel, which is fastest
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor(plan))


class StepModule(nn.Module, ABC, Generic[Batch]):
    """A network and the losses of a batch; subclasses implement `losses` and may implement `measure`.

    Args:
        network: The network whose weights are trained.
        optimiser: How they are updated.
        build: Makes a batch by its number, counted from 0; a pure function of it. A step takes one batch, or as many
            as `LoopPlan.accumulate` says.

    Attributes:
        tile_names: Tiles of the current batch, for the message about a non-finite loss; set by `losses`.
        global_step: Number of finished steps.
        batch_number: Number of the current batch, counted from 0 as for `build`; the same in a resumed run.
        last_rate: Learning rate of the last step.
    """

    def __init__(self, network: nn.Module, optimiser: OptimiserPlan, build: Callable[[int], Batch]) -> None:
        super().__init__()
        self.network = network
        self.plan = optimiser
        self.build = build
        self.tile_names: list[str] = []
        self.global_step = self.batch_number = 0
        self.last_rate = 0.0

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar `loss` to minimise, and more scalars for the curves."""

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """Return more values for the row of the curves that a step (counted from 1) ends."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch, as `DistributedDataParallel` calls it."""
        return self.losses(batch)


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


def fit(module: StepModule[Batch], plan: LoopPlan, curves: Curves, callbacks: Sequence[Callback] = ()) -> str:
    """Train for the planned number of steps, from the checkpoint of a killed run if there is one.

    If several processes train together (`run_in_processes`), each calls it with the same arguments and its share of
    the batches; only the first one writes, logs and runs the caller's callbacks.

    Args:
        module: Network and losses; the network holds the trained weights afterwards, on the CPU.
        plan: How it runs.
        curves: Filled with the values of the steps, in the first process; the caller writes them.
        callbacks: Callbacks of the caller, whose `state_dict` is saved and restored. They run after the curves and
            may add values with `curves.add(step, ...)`.

    Returns:
        The number format that was used.

    Raises:
        InputError: If the network is to be compiled, and there is no compiler.
        TrainingError: If a loss is not finite.
        StoppedError: If a signal asked the process to end; the state is saved.
    """
    torch.set_num_threads(plan.threads)
    first, device = rank() == 0, choose_device(plan.compute)
    # convolutions on the CPU are faster in this layout, and tensor cores need it
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if processes() > 1:
        share_layers(module.network, plan.batch_size // processes(), device.type == "cuda")
    if plan.compile:
        _compile(module.network)
    if first:
        choose_precision(plan.compute, plan.state)
        _prepare_state(module, plan)
    wait_for_all()
    precision = choose_precision(plan.compute, plan.state)  # that of the first process, from the state
    module.to(device, torch.float64 if precision == "64-true" else None)
    progress = Progress(plan.label, plan.steps, plan.batch_size * plan.accumulate)
    training = Training(module, plan, precision, device, [curves, progress, *callbacks] if first else [])
    training.resume()
    training.run()
    module.cpu()
    return precision


class Training(Generic[Batch]):
    """The state of a running training: what a checkpoint holds, and one step.

    Args:
        module: Network and losses, ready to train on `device`.
        plan: How it runs.
        precision: Number format.
        device: Where it runs.
        callbacks: Called after every batch and step; their state is part of the checkpoint.

    Attributes:
        step: Number of finished steps.
    """

    def __init__(
        self,
        module: StepModule[Batch],
        plan: LoopPlan,
        precision: str,
        device: torch.device,
        callbacks: Sequence[Callback],
    ) -> None:
        self.module, self.plan, self.device, self.callbacks = module, plan, device, callbacks
        self.step = 0
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.lower = AUTOCAST.get(precision)
        self.optimiser, self.schedule = build_optimiser(module.network, module.plan)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
        # Batch norms share their statistics, so no buffers need to be sent from the first process.
        shared = processes() > 1
        self.compute = DistributedDataParallel(module, broadcast_buffers=False) if shared else module

    def run(self) -> None:
        """Train from the current step to the end."""
        self.module.train()
        self.module.global_step = self.step
        for callback in self.callbacks:
            callback.on_start(self)
        # Reading tiles competes with a GPU only when it happens in the training process.
        workers = self.plan.threads if self.device.type == "cuda" else 0
        first, last = (number * self.plan.accumulate for number in (self.step, self.plan.steps))
        batches = iter(step_loader(self.module.build, last, first, workers))
        with stop_requests() as stop_requested:
            while self.step < self.plan.steps:
                self._take_step(batches)
                for callback in self.callbacks:
                    callback.on_step_end(self)
                stop = self.step < self.plan.steps and stop_requested()  # after the last step, results are written
                due = self.step % self.plan.checkpoint_every == 0 and self.step < self.plan.steps
                if (due or stop) and rank() == 0:
                    self._save()
                if stop and rank() == 0:  # the other processes end with the first one
                    raise StoppedError(f"{stop} after step {self.step} of {self.plan.steps}; the state is saved")

    def _take_step(self, batches: Iterator[Batch]) -> None:
        module, plan = self.module, self.plan
        module.last_rate = float(self.optimiser.param_groups[-1]["lr"])
        self.optimiser.zero_grad()
        for number in range(self.step * plan.accumulate, (self.step + 1) * plan.accumulate):
            last = (number + 1) % plan.accumulate == 0
            module.batch_number = number
            # Dropout draws from torch's global generator; seeding it for every batch makes it repeatable.
            torch.manual_seed(derive_seed(plan.seed, "dropout", number))
            batch = move(next(batches), self.device, self.dtype)
            waits = isinstance(self.compute, DistributedDataParallel) and not last
            with self.compute.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with torch.autocast(self.device.type, self.lower, enabled=self.lower is not None):
                    losses = self.compute(batch)
                check_finite(losses["loss"], batch, self.step + 1, module.tile_names, plan.state)
                self.scaler.scale(losses["loss"] / plan.accumulate).backward()
            values = {name: float(value.detach()) for name, value in losses.items()}
            for callback in self.callbacks:
                callback.on_batch_end(values)
        self.scaler.unscale_(self.optimiser)
        for callback in self.callbacks:
            callback.on_gradients(module)
        if module.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.network.parameters(), module.plan.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        self.step += 1
        module.global_step = self.step

    def _save(self) -> None:
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        self.plan.state.mkdir(parents=True, exist_ok=True)
        file = self.plan.state / STATE_FILE
        partial = file.with_suffix(".partial")
        torch.save({"step": self.step, **parts}, partial)
        partial.replace(file)

    def resume(self) -> None:
        """Go on from the checkpoint of a killed run, if there is one."""
        file = self.plan.state / STATE_FILE
        if not file.exists():
            return
        saved = torch.load(file, map_location=self.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(saved[name])
        self.step = saved["step"]

    def _parts(self) -> dict[str, Any]:
        """What has a state, by name; the callbacks only run in the first process."""
        parts = {"network": self.module.network, "optimiser": self.optimiser, "schedule": self.schedule}
        callbacks = {type(callback).__name__: callback for callback in self.callbacks}
        return {**parts, "scaler": self.scaler, **callbacks}


def move(batch: Any, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401 - any nesting of containers
    """Move the tensors of a batch to a device; floating-point ones get a type.

    Args:
        batch: A tensor, or a mapping, list or (named) tuple of such; anything else is kept.
        device: Where to.
        dtype: Type of floating-point tensors.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, dtype if batch.is_floating_point() else None)
    if isinstance(batch, Mapping):
        return {name: move(part, device, dtype) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [move(part, device, dtype) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


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
    stream = StepStream(build, steps, first)
    return DataLoader(stream, batch_size=None, num_workers=workers, worker_init_fn=ignore_signals)


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
