"""Training throughput of the demo's MSSNet on one CPU thread, beside what a large convolution reaches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import best_of
from tmcnet.config import ModelConfig
from tmcnet.model.networks import build_network
from tmcnet.train.loop import OptimiserPlan, build_optimiser

MODEL = ModelConfig(
    backbone="resnet18", width=16, aspp_channels=48, decoder_channels=48, dilations=(1, 2, 3), detail_channels=24
)
BANDS, CLASSES, SIDE, BATCHES = {"optical": 4, "sar": 2}, 6, 64, (8, 16, 32)
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _step(batch: int, kind: torch.dtype) -> Callable[[], None]:
    torch.manual_seed(0)
    network = build_network("mssnet", "corrected", BANDS, CLASSES, MODEL).to(memory_format=torch.channels_last)
    optimiser, _ = build_optimiser(network.train(), OptimiserPlan(1000, 1e-3, 10, 1e-2))
    images = {name: torch.randn(batch, bands, SIDE, SIDE) for name, bands in BANDS.items()}
    label = torch.randint(0, CLASSES, (batch, SIDE, SIDE))

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            loss = F.cross_entropy(network(images).float(), label)
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
    """Print kilopixels and GFLOP per second for each batch size and number format."""
    print("| format | batch | kilopixels/s | GFLOP/s | GFLOP/s of a large convolution |\n|---|---:|---:|---:|---:|")
    for name, kind in FORMATS.items():
        peak = _peak(kind)
        for batch in BATCHES:
            step = _step(batch, kind)
            with FlopCounterMode(display=False) as counter:
                step()
            seconds = best_of(step, 8, "cpu")
            pixels, work = (amount / seconds for amount in (batch * SIDE**2 / 1e3, counter.get_total_flops() / 1e9))
            print(f"| {name} | {batch} | {pixels:.0f} | {work:.0f} | {peak:.0f} |", flush=True)
