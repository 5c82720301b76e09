"""The training loop that pre-training and fine-tuning share: batches, steps, evaluation and checkpoints."""

from __future__ import annotations

import csv
import json
import math
import pickle
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from tmcnet import __version__
from tmcnet.config import ComputeConfig
from tmcnet.errors import StoppedError, TrainingError
from tmcnet.memory import KeptMemory
from tmcnet.model.device import choose_device, choose_precision
from tmcnet.seeding import derive_seed, generator
from tmcnet.train.distributed import from_first, ignore_signals, processes, rank, share_layers, stop_requests

Batch = TypeVar("Batch")
Curves: TypeAlias = dict[int, dict[str, float]]
"""Rows by step, counted from 1: means of the batches since the last row, and scores."""

STATE_FILE = "training.ckpt"
STATE_FORM = 5
"""Number of the form of a checkpoint; one of another form is not used."""
PROGRESS_SECONDS = 10.0
BETAS, FINAL_RATE = (0.9, 0.99), 4e-8
"""Decays of the running moments of the gradient, and the learning rate at the end of the cosine."""
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Type in which layers compute in a mixed number format; weights are float32."""


@dataclass(frozen=True)
class OptimiserPlan:
    """How weights are updated, in a number of `steps`.

    Attributes:
        learning_rate: Maximum learning rate.
        warmup_steps: Steps over which the rate rises linearly.
        weight_decay: Weight decay; decoupled with `adamw`, added to the gradient with `adam`.
        kind: `adamw`, or `adam` as in the published code.
        encoder_rate: Rate of the parameters named in `encoders`, as a multiple of the rate.
        clip_norm: Maximum norm of the gradient of all weights. The curves have the norm before clipping: sudden peaks
            call for a lower learning rate or clipping; near 0 nothing is learnt. None: not even computed.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    kind: Literal["adam", "adamw"] = "adamw"
    encoder_rate: float = 1.0
    encoders: tuple[str, ...] = ()
    clip_norm: float | None = None


@dataclass(frozen=True)
class LoopPlan:
    """How a training runs, in `threads` CPU threads of each process.

    Attributes:
        label: Name of the training, in progress lines.
        batch_size: Tiles per batch, of all processes together.
        log_every: Steps between two rows of the curves; the last step has one, too.
        checkpoint_every: Steps between two checkpoints.
        state: Folder of the checkpoints; training resumes from one found there.
        seed: Seed of what the network itself draws (dropout).
        settings: Everything else the result depends on, as text; a checkpoint of other settings is not used.
        accumulate: Batches per step, whose gradients are averaged; batch norm and losses see one batch at a time.
    """

    label: str
    batch_size: int
    log_every: int
    checkpoint_every: int
    state: Path
    threads: int
    compute: ComputeConfig
    seed: int
    settings: str = ""
    accumulate: int = 1


class StepModule(nn.Module, ABC, Generic[Batch]):
    """What is trained: a network with the losses of a batch, and how it is scored meanwhile.

    Attributes:
        network: The network.
        plan: How its weights are updated.
        build: Makes a batch by its number, counted from 0; a pure function.
        average: Moving average of the network, if one is wanted.
        evaluated: Steps after which the network is evaluated; 0: before the first one.
        global_step: Number of finished steps.
        batch_number: Number of the current batch, as for `build`; the same in a resumed run.
    """

    def __init__(self, network: nn.Module, optimiser: OptimiserPlan, build: Callable[[int], Batch]) -> None:
        super().__init__()
        self.network, self.plan, self.build = network, optimiser, build
        self.average: AveragedModel | None = None
        self.evaluated: Container[int] = ()
        self.global_step = self.batch_number = 0

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the scalar `loss` to minimise, and more scalars for the curves."""

    def measure(self) -> dict[str, float]:
        """Return values of the current batch for the row of the curves that it ends."""
        return {}

    def evaluate(self, step: int) -> dict[str, float]:  # noqa: ARG002 - for subclasses
        """Return scores for the row of the curves of a step."""
        return {}


class Training(Generic[Batch]):
    """A training, which goes on from the checkpoint of a killed run if there is one.

    If several processes train together (`tmcnet.train.distributed`), each has the same arguments and builds its share
    of the batches; the first one averages, evaluates, prints and saves for all.

    Attributes:
        precision: The number format.
        curves: What is recorded.

    Raises:
        InputError: If a GPU is asked for and there is none.
    """

    def __init__(self, module: StepModule[Batch], plan: LoopPlan) -> None:
        torch.set_num_threads(plan.threads)
        self.memory = KeptMemory()
        self.module, self.plan, self.device = module, plan, choose_device(plan.compute)
        self.file = plan.state / STATE_FILE
        # Convolutions on the CPU are faster in this layout, and tensor cores need it.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if processes() > 1:
            share_layers(module.network, plan.batch_size // processes(), self.device.type == "cuda")
        shapes = {name: list(tensor.shape) for name, tensor in module.network.state_dict().items()}
        settings = plan.settings, plan.seed, plan.batch_size, plan.accumulate, plan.compute.precision
        self.settings = json.dumps([STATE_FORM, __version__, *settings, asdict(module.plan), shapes])
        saved = from_first(self._read)
        self.step, self.precision = saved["step"], saved["precision"]
        self.curves: Curves = saved["curves"]
        self.values = defaultdict[str, list[float]](list, saved["values"])  # of the batches since the last row
        self.dtype = torch.float64 if self.precision == "64-true" else torch.float32
        module.to(self.device, self.dtype)
        self.optimiser, self.schedule = build_optimiser(module.network, module.plan)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "16-mixed")
        self.parts: dict[str, Any] = {"module": module, "scaler": self.scaler}
        self.parts |= {"optimiser": self.optimiser, "schedule": self.schedule}
        for name, part in self.parts.items() if self.step else ():
            part.load_state_dict(saved[name])

    def run(self) -> None:
        """Train to the end; the network has the trained weights afterwards, on the CPU.

        Raises:
            TrainingError: If a loss is not finite.
            StoppedError: If a signal asked the process to end; the state is saved.
        """
        module, plan, steps, done = self.module, self.plan, self.module.plan.steps, self.step
        module.train()
        # Batch norms share their statistics, so no buffers need to be sent from the first process.
        compute = DistributedDataParallel(module, forward_sync_buffers=False) if processes() > 1 else module
        # Reading tiles competes with a GPU only when it happens in the training process.
        workers = plan.threads if self.device.type == "cuda" else 0
        batches = iter(step_loader(module.build, steps * plan.accumulate, done * plan.accumulate, workers))
        if done:
            self._say(f"resumes after step {done}")
        elif 0 in module.evaluated and rank() == 0:
            self.curves[0] = module.evaluate(0)
        began = printed = time.monotonic()
        received: list[str] = []
        with stop_requests(received.append):
            for step in range(done + 1, steps + 1):
                self.step, last, rate = step, step == steps, float(self.schedule.get_last_lr()[-1])
                loss = self._update(compute, batches)
                self.memory.bound()
                if step % plan.log_every == 0 or last:
                    means = {name: sum(values) / len(values) for name, values in self.values.items()}
                    self.curves[step] = {**means, "learning_rate": rate, **module.measure()}
                    self.values.clear()
                if rank() > 0:
                    continue
                if module.average is not None:
                    module.average.update_parameters(module.network)
                now = time.monotonic()
                if now - printed >= PROGRESS_SECONDS or last:
                    printed, speed = now, (step - done) / max(now - began, 1e-9)
                    tiles, left = speed * plan.batch_size * plan.accumulate, math.ceil((steps - step) / speed)
                    self._say(f"step {step}/{steps}, loss {loss:.4f}, {tiles:.1f} tiles/s, {left} s left")
                if step in module.evaluated:
                    self.curves.setdefault(step, {}).update(module.evaluate(step))
                if last:  # the results are written
                    break
                if received or step % plan.checkpoint_every == 0:
                    self._save()
                if received:
                    raise StoppedError(f"{received[0]} after step {step} of {steps}; the state is saved")
        module.cpu()

    def _update(self, compute: nn.Module, batches: Iterator[Batch]) -> float:
        """Update the weights with the gradients of the batches of a step, and return the loss of the last one."""
        module, plan, lower = self.module, self.plan, AUTOCAST.get(self.precision)
        module.global_step = self.step - 1
        self.optimiser.zero_grad()
        for number in range((self.step - 1) * plan.accumulate, self.step * plan.accumulate):
            module.batch_number = number
            batch = map_tensors(next(batches), self._to_device)
            # Dropout draws from torch's global generator; seeding it for every batch makes it repeatable.
            torch.manual_seed(derive_seed(plan.seed, "dropout", number))
            waits = processes() > 1 and (number + 1) % plan.accumulate  # the last batch averages over the processes
            with compute.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with torch.autocast(self.device.type, lower, enabled=lower is not None):
                    losses = compute(batch)
                check_finite(losses["loss"], batch, self.step, plan.state)
                self.scaler.scale(losses["loss"] / plan.accumulate).backward()
            for name, value in losses.items():
                self.values[name].append(float(value.detach()))
        self.scaler.unscale_(self.optimiser)
        if module.plan.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(module.network.parameters(), module.plan.clip_norm)
            self.values["gradient_norm"].append(float(norm))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return float(losses["loss"].detach())

    def _to_device(self, _: str, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def _say(self, line: str) -> None:
        if rank() == 0:
            print(f"{self.plan.label}: {line}", file=sys.stderr, flush=True)

    def _save(self) -> None:
        """Write a checkpoint; the old one stays until the new one is complete."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"curves": self.curves, "values": dict(self.values)}
        state |= {"settings": self.settings, "precision": self.precision, "step": self.step}
        self.plan.state.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial := self.file.with_suffix(".partial"))
        partial.replace(self.file)

    def _read(self) -> dict[str, Any]:
        """Return the checkpoint of a killed run, or a start; remove one of other settings, or one that is damaged."""
        if self.file.exists():
            with suppress(RuntimeError, EOFError, OSError, pickle.UnpicklingError):
                saved: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
                if saved.get("settings") == self.settings:
                    return saved
            self._say(f"{self.file} is damaged or has other settings; starting again")
            self.file.unlink()
        return {"step": 0, "curves": {}, "values": {}, "precision": choose_precision(self.plan.compute)}


def indices_of_step(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the indices, out of n, of the items in the batch of a step (counted from 0).

    Items are shuffled every epoch, and the incomplete batch at its end is dropped. If there are fewer items than a
    batch needs, whole shuffles are concatenated.
    """
    if n >= batch_size:
        epoch, place = divmod(step, n // batch_size)
        items = _order_of_epoch(n, seed, epoch)[place * batch_size : (place + 1) * batch_size]
    else:
        random = generator(seed, "order", step)
        items = np.concatenate([random.permutation(n) for _ in range(0, batch_size, n)])[:batch_size]
    return [int(i) for i in items]


@lru_cache(maxsize=1)  # shuffling a million items takes 30 ms
def _order_of_epoch(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return generator(seed, "order", epoch).permutation(n)


def step_loader(build: Callable[[int], Batch], steps: int, first: int, workers: int) -> DataLoader[Batch]:
    """Return a loader of the batches of the steps first, ..., steps - 1, in this order.

    `build` makes the batch of a step; it is a pure function. `workers` processes call it; 0: this one does.
    """
    # Any sequence is a dataset, and without batching each item is "collated" alone.
    numbers: Any = range(first, steps)
    make: Any = build
    return DataLoader(numbers, None, num_workers=workers, collate_fn=make, worker_init_fn=ignore_signals)


def map_tensors(batch: Any, change: Callable[[str, Tensor], Tensor], name: str = "") -> Any:  # noqa: ANN401
    """Return a batch with each tensor replaced by `change(its name, tensor)`.

    A batch is a tensor, or a mapping, list or (named) tuple of such; anything else is kept. A name begins with a key,
    or else a field; places in a tuple follow, counted from 1.
    """
    if isinstance(batch, Tensor):
        return change(name, batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(part, change, key) for key, part in batch.items()}
    if isinstance(batch, tuple | list):
        fields = getattr(batch, "_fields", range(1, len(batch) + 1))
        parts = [map_tensors(part, change, f"{name}{field}") for field, part in zip(fields, batch, strict=True)]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch


def check_finite(loss: Tensor, batch: object, step: int, state: Path) -> None:
    """Stop before a non-finite loss reaches the weights, and save its batch and the names of its tiles.

    Processes that train together stop together, and each saves its share of the batch in the folder `state`.

    Raises:
        TrainingError: If the loss of any process is not finite.
    """
    several = processes() > 1
    non_finite = (~torch.isfinite(loss.detach())).float()
    if several:
        dist.all_reduce(non_finite)
    if not non_finite:
        return
    share = f"_process_{rank()}" if several else ""
    file = state / f"not_finite_step_{step}{share}.safetensors"
    state.mkdir(parents=True, exist_ok=True)
    tiles = getattr(batch, "names", [])
    file.with_suffix(".json").write_text(json.dumps({"step": step, "tiles": list(tiles)}, indent=1))
    tensors: dict[str, Tensor] = {}
    map_tensors(batch, tensors.setdefault)
    save_file({name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}, file)
    if several:
        dist.barrier()  # the first process that ends ends the others
    raise TrainingError(
        f"the loss of step {step} is {float(loss.detach())}; its batch is in {file}, and the names of its tiles "
        "are in the .json file beside it. Check their values, or lower the learning rate."
    )


def write_curves(path: Path, curves: Curves) -> None:
    """Write `curves.csv`, with empty cells where a value was not measured."""
    columns = ["step", *dict.fromkeys(name for row in curves.values() for name in row)]
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, columns, lineterminator="\n")
        rows.writeheader()
        for step, row in sorted(curves.items()):
            rows.writerow({"step": step, **{name: f"{value:.6g}" for name, value in row.items()}})


def rate_factor(plan: OptimiserPlan) -> Callable[[int], float]:
    """Return the schedule relative to the maximum rate: linear warm-up, then half a cosine to `FINAL_RATE`."""
    warmup = min(plan.warmup_steps, plan.steps)
    final = min(FINAL_RATE / plan.learning_rate, 1.0)

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
    optimiser = kind(parameter_groups(network, plan), betas=BETAS, fused=True)  # one kernel, which is fastest
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor(plan))


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average (EMA) of the weights and batch-norm statistics of a network.

    The first step is copied. After n steps the decay is min(`decay`, (1 + n) / (10 + n)), the rule of TensorFlow's
    `ExponentialMovingAverage` with `num_updates`: in short schedules the average soon forgets the random start.
    """

    def mix(averages: Any, currents: Any, n: Any) -> None:  # noqa: ANN401 - lists of tensors of one type, as torch's
        # Whole numbers, such as the count of batches, are copied.
        rate = min(decay, (1 + int(n)) / (10 + int(n))) if averages[0].is_floating_point() else 0.0
        get_ema_multi_avg_fn(rate)(averages, currents, n)  # type: ignore[no-untyped-call]

    return AveragedModel(network, multi_avg_fn=mix, use_buffers=True).requires_grad_(False)


def cost(device: str, began: float) -> dict[str, Any]:
    """Return the device, seconds since `began` and, on a CUDA device, the peak memory of this process."""
    costs: dict[str, Any] = {"device": device, "seconds": round(time.monotonic() - began, 1)}
    if device == "cuda":
        costs["gpu_memory_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return costs
