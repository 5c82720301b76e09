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
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import InputError, Problem, StoppedError
from tmcnet.model.device import choose_device
from tmcnet.seeding import derive_seed
from tmcnet.train.curves import Curves, check_finite
from tmcnet.train.distributed import from_first, processes, rank, share_layers
from tmcnet.train.interruption import stop_requests
from tmcnet.train.stream import move, step_loader

Batch = TypeVar("Batch")
Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]

STATE_FILE = "training.ckpt"
STATE_FORM = 4
"""Number of the form of a checkpoint; one of another form is not used."""
PROGRESS_SECONDS = 10.0
MIN_BFLOAT16_GAIN = 1.5
"""Least speed-up of a convolution at which `compute.precision: auto` chooses bfloat16; with AMX it is 3 to 4."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Type in which layers compute in a mixed number format; weights are float32."""


@dataclass(frozen=True)
class LoopPlan:
    """How a training runs, in `threads` CPU threads of each process.

    Attributes:
        label: Name of the training, in progress lines.
        batch_size: Tiles per batch, of all processes together.
        checkpoint_every: Steps between two checkpoints.
        state: Folder of the checkpoints; training resumes from one found there.
        seed: Seed of what the network itself draws (dropout).
        settings: Everything else the result depends on, as text; a checkpoint of other settings is not used.
        accumulate: Batches per step, whose gradients are averaged. It saves memory, but batch norm and contrastive
            losses see one batch at a time: the number of negatives does not grow.
        compile: Compile the network with `torch.compile`; pays off in long trainings.
        gradient_norm: Add the norm of the gradient of all weights, before clipping, to the curves. Sudden peaks call
            for a lower learning rate or clipping; near 0 nothing is learnt.
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
    """How weights are updated, in a number of `steps`.

    Attributes:
        learning_rate: Maximum learning rate.
        warmup_steps: Steps over which the rate rises linearly.
        weight_decay: Weight decay; decoupled with `adamw`, added to the gradient with `adam`.
        kind: `adamw`, or `adam` as in the published code.
        betas: Decay of the running moments of the gradient.
        final_rate: Rate at the end of the cosine.
        encoder_rate: Rate of the parameters named in `encoders`, as a multiple of the rate.
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
    """Return the schedule relative to the maximum rate: linear warm-up, then half a cosine to `final_rate`."""
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
    optimiser = kind(parameter_groups(network, plan), betas=plan.betas, fused=True)  # one kernel, which is fastest
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor(plan))


class StepModule(nn.Module, ABC, Generic[Batch]):
    """A network and the losses of a batch; subclasses implement `losses` and may implement `measure`.

    `build` makes a batch by its number, counted from 0; it is a pure function.

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
        """Return more values for the row of the curves that a step ends."""
        return {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of a batch, as `DistributedDataParallel` calls it."""
        return self.losses(batch)


class WeightAverage(AveragedModel):
    """Exponential moving average (EMA) of the weights and batch-norm statistics of a network, in `network`.

    The first step is copied. After n steps the decay is min(`decay`, (1 + n) / (10 + n)), the rule of TensorFlow's
    `ExponentialMovingAverage` with `num_updates`: in short schedules the average soon forgets the random start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, multi_avg_fn=self._mix, use_buffers=True)
        self.decay = decay

    @property
    def network(self) -> nn.Module:
        """The averaged network."""
        return self.module

    def _mix(self, averages: Tensors, currents: Tensors, steps: Tensor | int) -> None:
        """Take in tensors of one type; whole numbers, such as the count of batches, are copied."""
        n = int(steps)
        decay = min(self.decay, (1 + n) / (10 + n)) if averages[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(decay)(averages, currents, steps)  # type: ignore[no-untyped-call]


class Evaluation(ABC):
    """Scores of the network while it is trained, added to the curves; its state is part of the checkpoint."""

    every: int
    """Steps between two evaluations; there is also one after the last step."""
    at_start = False
    """Whether there is one before the first step too."""

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
    """Measure how many times faster this CPU is in bfloat16, for a convolution and its gradients; under a second."""
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


def choose_precision(compute: ComputeConfig, saved: str | None = None) -> str:
    """Return the number format of a training; `auto` is resolved, or `saved` where it resumes from a checkpoint."""
    if compute.precision != "auto":
        return compute.precision
    fast = saved is None and choose_device(compute).type == "cpu" and bfloat16_gain() >= MIN_BFLOAT16_GAIN
    return saved or ("bf16-mixed" if fast else "32-true")


def read_state(mark: str, plan: LoopPlan) -> dict[str, Any]:
    """Return the checkpoint of a killed run; remove one of other settings than `mark`, or one that is damaged."""
    file = plan.state / STATE_FILE
    if not file.exists():
        return {}
    with suppress(RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        if saved.get("settings") == mark:
            return saved
    print(f"{plan.label}: {file} is damaged or has other settings; starting again", file=sys.stderr, flush=True)
    file.unlink()
    return {}


def fit(
    module: StepModule[Batch],
    plan: LoopPlan,
    curves: Curves,
    evaluations: Sequence[Evaluation] = (),
    average: WeightAverage | None = None,
) -> str:
    """Train for the planned number of steps, from the checkpoint of a killed run if there is one.

    The network of the module holds the trained weights afterwards, on the CPU; the curves are filled, and the caller
    writes them. If several processes train together (`tmcnet.train.launch`), each calls it with the same arguments
    and its share of the batches; only the first one writes and prints.

    Returns:
        The number format that was used.

    Raises:
        InputError: If the network is to be compiled, and there is no compiler.
        TrainingError: If a loss is not finite.
        StoppedError: If a signal asked the process to end; the state is saved.
    """
    torch.set_num_threads(plan.threads)
    training = Training(module, plan, curves, evaluations, average)
    training.run()
    module.cpu()
    return training.precision


def _print_progress(plan: LoopPlan, step: int, loss: float, rate: float) -> None:
    """Print a line about a step, counted from 1, at a rate in steps per second."""
    speed, left = rate * plan.batch_size * plan.accumulate, math.ceil((plan.steps - step) / rate)
    line = f"{plan.label}: step {step}/{plan.steps}, loss {loss:.4f}, {speed:.1f} tiles/s, {left} s left"
    print(line, file=sys.stderr, flush=True)


def _compile(network: nn.Module) -> None:
    """Compile a network in place, so that its tensors keep their names."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        what = f"needs a C++ compiler, but `{compiler}` is not found"
        raise InputError(Problem("`torch.compile`", what, "Install one, name it in CXX, or do not compile."))
    network.compile()


class Training(Generic[Batch]):
    """A running training: what its checkpoint holds, its number format (`precision`), and its steps; see `fit`."""

    def __init__(
        self,
        module: StepModule[Batch],
        plan: LoopPlan,
        curves: Curves,
        evaluations: Sequence[Evaluation],
        average: WeightAverage | None,
    ) -> None:
        self.module, self.plan, self.device = module, plan, choose_device(plan.compute)
        self.curves, self.evaluations, self.average = curves, evaluations, average
        network, device = module.network, self.device
        # Convolutions on the CPU are faster in this layout, and tensor cores need it.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if processes() > 1:
            share_layers(network, plan.batch_size // processes(), device.type == "cuda")
        if plan.compile:
            _compile(network)
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        settings = plan.settings, plan.seed, plan.batch_size, plan.accumulate, asdict(module.plan)
        self.settings = json.dumps([STATE_FORM, __version__, *settings, shapes])
        saved = from_first(lambda: read_state(self.settings, plan))
        self.step = saved.get("step", 0)
        self.precision = from_first(lambda: choose_precision(plan.compute, saved.get("precision")))
        self.dtype = torch.float64 if self.precision == "64-true" else torch.float32
        module.to(device, self.dtype)
        self.optimiser, self.schedule = build_optimiser(network, module.plan)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "16-mixed")
        self.parts: dict[str, Any] = {"network": network, "optimiser": self.optimiser, "schedule": self.schedule}
        self.parts |= {"scaler": self.scaler, "curves": curves}
        self.parts |= {type(evaluation).__name__: evaluation for evaluation in evaluations}
        if average is not None:
            average.to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.parts["average"] = average
        for name, part in self.parts.items() if saved else ():
            part.load_state_dict(saved[name])
        # Batch norms share their statistics, so no buffers need to be sent from the first process.
        shared = processes() > 1
        self.compute = DistributedDataParallel(module, forward_sync_buffers=False) if shared else module

    def run(self) -> None:
        """Train from the step after the checkpoint to the end."""
        module, plan, curves, first = self.module, self.plan, self.curves, self.step
        module.train()
        for evaluation in self.evaluations:
            if first == 0 and evaluation.at_start:
                curves.add(0, **evaluation.score(0))
        if first and rank() == 0:
            print(f"{plan.label}: resumes after step {first}", file=sys.stderr, flush=True)
        began = printed = time.monotonic()
        # Reading tiles competes with a GPU only when it happens in the training process.
        workers = plan.threads if self.device.type == "cuda" else 0
        batches = iter(step_loader(module.build, plan.steps * plan.accumulate, first * plan.accumulate, workers))
        with stop_requests() as stop_requested:
            for step in range(first + 1, plan.steps + 1):
                module.global_step = step - 1
                self.optimiser.zero_grad()
                for number in range((step - 1) * plan.accumulate, step * plan.accumulate):
                    loss = self._add_gradients(next(batches), number)
                rate = float(self.schedule.get_last_lr()[-1])
                self._update_weights()
                module.global_step = self.step = step

                if self.average is not None:
                    self.average.update_parameters(module.network)
                if curves.wants(step):
                    curves.end_row(step, learning_rate=rate, **module.measure(step))
                now = time.monotonic()
                if rank() == 0 and (now - printed >= PROGRESS_SECONDS or step == plan.steps):
                    printed = now
                    _print_progress(plan, step, loss, (step - first) / max(now - began, 1e-9))
                for evaluation in self.evaluations:
                    if step % evaluation.every == 0 or step == plan.steps:
                        curves.add(step, **evaluation.score(step))

                if step == plan.steps:  # the results are written
                    return
                stop = stop_requested() if rank() == 0 else ""  # the other processes end with the first one
                if stop or step % plan.checkpoint_every == 0:
                    self.save()
                if stop:
                    raise StoppedError(f"{stop} after step {step} of {plan.steps}; the state is saved")

    def _add_gradients(self, batch: Batch, number: int) -> float:
        """Add the gradients of a batch, divided by the number of batches of a step, and return its loss."""
        module, plan = self.module, self.plan
        module.batch_number = number
        # Dropout draws from torch's global generator; seeding it for every batch makes it repeatable.
        torch.manual_seed(derive_seed(plan.seed, "dropout", number))
        batch = move(batch, self.device, self.dtype)
        last = (number + 1) % plan.accumulate == 0
        waits = isinstance(self.compute, DistributedDataParallel) and not last
        lower = AUTOCAST.get(self.precision)
        with self.compute.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with torch.autocast(self.device.type, lower, enabled=lower is not None):
                losses = self.compute(batch)
            check_finite(losses["loss"], batch, module.global_step + 1, module.tile_names, plan.state)
            self.scaler.scale(losses["loss"] / plan.accumulate).backward()
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.curves.accumulate(**values)
        return values["loss"]

    def _update_weights(self) -> None:
        """Update the weights with the gradients, clipped if wanted, and advance the learning rate."""
        weights, clip_norm = self.module.network.parameters, self.module.plan.clip_norm
        self.scaler.unscale_(self.optimiser)
        if self.plan.gradient_norm:
            self.curves.accumulate(
                gradient_norm=float(get_total_norm(p.grad for p in weights() if p.grad is not None))
            )
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(weights(), clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()

    def save(self) -> None:
        """Write a checkpoint, in the first process; the old one stays until the new one is complete."""
        if rank() > 0:
            return
        file = self.plan.state / STATE_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        about = {"settings": self.settings, "precision": self.precision, "step": self.step}
        torch.save(about | {name: part.state_dict() for name, part in self.parts.items()}, partial)
        partial.replace(file)


def cost(device: str, began: float) -> dict[str, Any]:
    """Return the device, seconds since `began` and, on a CUDA device, the peak memory of this process."""
    costs: dict[str, Any] = {"device": device, "seconds": round(time.monotonic() - began, 1)}
    if device == "cuda":
        costs["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return costs
