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
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError
from tmcnet.evaluate.trained import choose_device
from tmcnet.seeding import derive_seed
from tmcnet.train.average import WeightAverage
from tmcnet.train.curves import Curves, Progress, check_finite
from tmcnet.train.distributed import from_first, processes, rank, share_layers
from tmcnet.train.interruption import stop_requests
from tmcnet.train.stream import move, step_loader

Batch = TypeVar("Batch")

STATE_FILE = "training.ckpt"
STATE_FORM = 2
"""Number of the form of a checkpoint; one of another form is not used."""
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
        gradient_norm: Measure the norm of the gradient of all weights before clipping, for the curves. Sudden peaks
            mean that the learning rate is too high or that clipping would help; a norm near 0 that nothing is learnt.
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
    gradient_norm: bool = False


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
    """

    def __init__(self, network: nn.Module, optimiser: OptimiserPlan, build: Callable[[int], Batch]) -> None:
        super().__init__()
        self.network = network
        self.plan = optimiser
        self.build = build
        self.tile_names: list[str] = []
        self.global_step = self.batch_number = 0

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar `loss` to minimise, and more scalars for the curves."""

    def measure(self, step: int) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """Return more values for the row of the curves that a step (counted from 1) ends."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch, as `DistributedDataParallel` calls it."""
        return self.losses(batch)


class Evaluation(ABC):
    """Scores of the network while it is trained, added to the curves; its state is part of the checkpoint.

    Attributes:
        every: Steps between two evaluations; there is also one after the last step.
        at_start: Whether there is one before the first step too.
    """

    every: int
    at_start = False

    @abstractmethod
    def score(self, step: int) -> dict[str, float]:
        """Return the scores after a step (counted from 1).

        If several processes train together, all of them call it, and those of the first one count.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: B027 - without a state, nothing
        """Restore the state from a checkpoint."""


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


def _settings_mark(module: StepModule[Batch], plan: LoopPlan) -> str:
    """Return everything that a checkpoint must agree with."""
    shapes = {name: list(tensor.shape) for name, tensor in module.network.state_dict().items()}
    known = [
        STATE_FORM,
        __version__,
        plan.settings,
        plan.seed,
        asdict(module.plan),
        plan.batch_size,
        plan.accumulate,
        shapes,
    ]
    return json.dumps(known)


def read_state(mark: str, plan: LoopPlan) -> dict[str, Any] | None:
    """Return the checkpoint of a killed run; remove one of other settings or software, or one that is damaged.

    Args:
        mark: Everything that the checkpoint must agree with; noted beside the checkpoints to come.
        plan: Names the folder.
    """
    note, file = plan.state / "settings.json", plan.state / STATE_FILE
    saved: dict[str, Any] | None = None
    if file.exists():
        if note.exists() and note.read_text() == mark:
            with suppress(RuntimeError, EOFError, OSError, pickle.UnpicklingError):
                saved = torch.load(file, map_location="cpu", weights_only=True)
        if saved is None:
            print(
                f"{plan.label}: {file} is damaged or has other settings; starting again", file=sys.stderr, flush=True
            )
            file.unlink()
    plan.state.mkdir(parents=True, exist_ok=True)
    note.write_text(mark)
    return saved


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


def fit(
    module: StepModule[Batch],
    plan: LoopPlan,
    curves: Curves,
    evaluations: Sequence[Evaluation] = (),
    average: WeightAverage | None = None,
) -> str:
    """Train for the planned number of steps, from the checkpoint of a killed run if there is one.

    If several processes train together (`tmcnet.train.launch`), each calls it with the same arguments and its share
    of the batches; only the first one writes and prints.

    Args:
        module: Network and losses; the network holds the trained weights afterwards, on the CPU.
        plan: How it runs.
        curves: Filled with the values of the steps; the caller writes them.
        evaluations: Scores of the network while it is trained, added to the curves.
        average: Moving average of the weights, updated after every step.

    Returns:
        The number format that was used.

    Raises:
        InputError: If the network is to be compiled, and there is no compiler.
        TrainingError: If a loss is not finite.
        StoppedError: If a signal asked the process to end; the state is saved.
    """
    torch.set_num_threads(plan.threads)
    device = choose_device(plan.compute)
    # convolutions on the CPU are faster in this layout, and tensor cores need it
    module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if processes() > 1:
        share_layers(module.network, plan.batch_size // processes(), device.type == "cuda")
    if plan.compile:
        _compile(module.network)
    precision = from_first(lambda: choose_precision(plan.compute, plan.state))
    saved = from_first(lambda: read_state(_settings_mark(module, plan), plan))
    module.to(device, torch.float64 if precision == "64-true" else None)
    training = Training(module, plan, precision, device, curves, evaluations, average)
    if saved is not None:
        training.load(saved)
    training.run()
    module.cpu()
    return precision


class Training(Generic[Batch]):
    """A running training: its steps, and what a checkpoint holds.

    Args:
        module: Network and losses, ready to train on `device`.
        plan: How it runs.
        precision: Number format.
        device: Where it runs.
        curves: Values of the steps.
        evaluations: Scores of the network.
        average: Moving average of the weights.

    Attributes:
        step: Number of finished steps.
    """

    def __init__(
        self,
        module: StepModule[Batch],
        plan: LoopPlan,
        precision: str,
        device: torch.device,
        curves: Curves,
        evaluations: Sequence[Evaluation],
        average: WeightAverage | None,
    ) -> None:
        self.module, self.plan, self.device = module, plan, device
        self.curves, self.evaluations, self.average = curves, evaluations, average
        self.step = 0
        self.dtype = torch.float64 if precision == "64-true" else torch.float32
        self.lower = AUTOCAST.get(precision)
        self.optimiser, self.schedule = build_optimiser(module.network, module.plan)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
        if average is not None:
            average.network.to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Batch norms share their statistics, so no buffers need to be sent from the first process.
        shared = processes() > 1
        self.compute = DistributedDataParallel(module, forward_sync_buffers=False) if shared else module
        self.parts: dict[str, Any] = {"network": module.network, "optimiser": self.optimiser}
        self.parts |= {"schedule": self.schedule, "scaler": self.scaler, "curves": curves}
        self.parts |= {type(evaluation).__name__: evaluation for evaluation in evaluations}
        self.parts |= {} if average is None else {"average": average}

    def run(self) -> None:
        """Train from the current step to the end."""
        module, plan = self.module, self.plan
        module.train()
        module.global_step = self.step
        if self.step == 0:
            for evaluation in self.evaluations:
                if evaluation.at_start:
                    self.curves.add(0, **evaluation.score(0))
        progress = Progress(plan.label, plan.steps, plan.batch_size * plan.accumulate, self.step)
        # Reading tiles competes with a GPU only when it happens in the training process.
        workers = plan.threads if self.device.type == "cuda" else 0
        batches = iter(step_loader(module.build, plan.steps * plan.accumulate, self.step * plan.accumulate, workers))
        with stop_requests() as stop_requested:
            while self.step < plan.steps:
                self._finish_step(batches, progress)
                if self.step == plan.steps:  # the results are written
                    return
                stop = stop_requested() if rank() == 0 else ""  # the other processes end with the first one
                if stop or self.step % plan.checkpoint_every == 0:
                    self.save()
                if stop:
                    raise StoppedError(f"{stop} after step {self.step} of {plan.steps}; the state is saved")

    def _finish_step(self, batches: Iterator[Batch], progress: Progress) -> None:
        """Take a step, and do what follows it: average, curves, progress and scores."""
        module, step = self.module, self.step + 1
        rate = float(self.optimiser.param_groups[-1]["lr"])
        loss = self._update_weights(batches)
        self.step = module.global_step = step
        if self.average is not None:
            self.average.update(module.network)
        if self.curves.wants(step):
            self.curves.end_row(step, learning_rate=rate, **module.measure(step))
        progress.step(step, loss)
        for evaluation in self.evaluations:
            if step % evaluation.every == 0 or step == self.plan.steps:
                self.curves.add(step, **evaluation.score(step))

    def _update_weights(self, batches: Iterator[Batch]) -> float:
        """Update the weights with the gradients of one batch or more, and return the loss of the last one."""
        module, plan, loss = self.module, self.plan, math.nan
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
            self.curves.accumulate(**values)
            loss = values["loss"]
        self.scaler.unscale_(self.optimiser)
        if plan.gradient_norm:
            gradients = [p.grad for p in module.network.parameters() if p.grad is not None]
            self.curves.accumulate(gradient_norm=float(get_total_norm(gradients)))
        if module.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(module.network.parameters(), module.plan.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return loss

    def save(self) -> None:
        """Write a checkpoint, in the first process; the old one stays until the new one is complete."""
        if rank() > 0:
            return
        file = self.plan.state / STATE_FILE
        partial = file.with_suffix(".partial")
        torch.save({"step": self.step, **{name: part.state_dict() for name, part in self.parts.items()}}, partial)
        partial.replace(file)

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.step = saved["step"]


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
