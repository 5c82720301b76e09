"""Training throughput of the MSSNet of the demo and of OMBRIA on one CPU thread, beside a large convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import best_of
from tmcnet.config import ModelConfig
from tmcnet.memory import keep_freed_memory
from tmcnet.model.networks import build_network
from tmcnet.train.loop import OptimiserPlan, build_optimiser

SIZES = {"backbone": "resnet18", "width": 16, "aspp_channels": 48, "decoder_channels": 48, "detail_channels": 48}
SMALL = {"windows": [3, 7, 15], "relative_window": None}


@dataclass(frozen=True)
class _Case:
    """A data set: its bands, classes, side of the crops, batch sizes and network."""

    bands: dict[str, int]
    classes: int
    side: int
    batches: tuple[int, ...]
    model: ModelConfig


CASES = {
    "demo": _Case(
        {"optical": 4, "sar": 2},
        6,
        64,
        (8, 16),
        ModelConfig.model_validate({**SIZES, "dilations": [1, 2, 3], "context": SMALL}),
    ),
    "OMBRIA": _Case(
        {"optical": 3, "sar": 1},
        2,
        128,
        (8,),
        ModelConfig.model_validate({**SIZES, "detail_channels": 128, "dilations": [1, 3, 6]}),
    ),
}
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _step(case: _Case, batch: int, kind: torch.dtype) -> Callable[[], None]:
    torch.manual_seed(0)
    network = build_network("mssnet", "corrected", case.bands, case.classes, case.model)
    network.to(memory_format=torch.channels_last)
    network.detail.requires_grad_(False)  # kept, as in fine-tuning
    optimiser, _ = build_optimiser(network.train(), OptimiserPlan(1000, 1e-3, 10, 1e-2))
    images = {name: torch.randn(batch, bands, case.side, case.side) for name, bands in case.bands.items()}
    detail = torch.randn(batch, case.classes, case.side, case.side)  # computed once a tile in fine-tuning
    label = torch.randint(0, case.classes, (batch, case.side, case.side))

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            loss = F.cross_entropy(network(images, detail).float(), label)
        loss.backward()
        optimiser.step()

    return step


def _peak(kind: torch.dtype) -> float:
    """GFLOP/s of a 3 x 3 convolution of 128 channels and its gradients."""
    x, w = torch.randn(16, 128, 66, 66), torch.randn(128, 128, 3, 3)
    inputs = [t.to(kind).contiguous(memory_format=torch.channels_last).requires_grad_() for t in (x, w)]
    seconds = best_of(lambda: F.conv2d(*inputs).sum().backward(), 3, "cpu")
    return 3 * 2 * 9 * 128 * 128 * 64 * 64 * 16 / seconds / 1e9


def run() -> None:
    """Print kilopixels and GFLOP per second for each data set, number format and batch size."""
    keep_freed_memory()
    print("| network of | format | batch | kilopixels/s | GFLOP/s | GFLOP/s of a large convolution |")
    print("|---|---|---:|---:|---:|---:|")
    for name, kind in FORMATS.items():
        peak = _peak(kind)
        for data, case in CASES.items():
            for batch in case.batches:
                step = _step(case, batch, kind)
                with FlopCounterMode(display=False) as counter:
                    step()
                seconds = best_of(step, 8, "cpu")
                pixels = batch * case.side**2 / 1e3 / seconds
                work = counter.get_total_flops() / 1e9 / seconds
                print(f"| {data} | {name} | {batch} | {pixels:.0f} | {work:.0f} | {peak:.0f} |", flush=True)
