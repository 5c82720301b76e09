"""The contrastive loss, forward and backward, compared with a loop over the shifts that recomputes all cosines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import best_of
from tmcnet.loss import TupleNTXent

TEMPERATURE, WEIGHT, EPS = 0.5, 0.1, 1e-8
MEASURE = """if True:
    import sys, time
    import torch
    from benchmarks.memory import peak_mib
    from tmcnet.loss import TupleNTXent
    torch.set_num_threads(1)
    inputs = [torch.randn(int(sys.argv[1]), 64, requires_grad=True) for _ in range(4)]
    options = {"perturbed_views": "both", "wrong_partners": "both"} if sys.argv[3] == "all tuples" else {}
    before, began = peak_mib(), time.process_time()
    TupleNTXent(variant=sys.argv[2], **options)(*inputs).backward()
    print(f"{time.process_time() - began:.1f} | {peak_mib():.0f} | {before:.0f}")
"""


def loop_over_shifts(opt1: Tensor, opt2: Tensor, sar1: Tensor, sar2: Tensor) -> Tensor:
    """The published loss (docs/method.md, section 5): one pass over all cosines for each of the N - 1 shifts."""
    n = len(opt1)
    o1, o2, s1, s2 = (F.normalize(x, dim=1) for x in (opt1, opt2, sar1, sar2))
    others = 1 - torch.eye(2 * n) - torch.eye(2 * n).roll(n, 0)

    def similarity(first: Tensor) -> Tensor:
        rows = torch.cat([first, o2 + s2])
        return torch.exp(F.cosine_similarity(rows[:, None], rows[None], dim=2) / TEMPERATURE)

    base = similarity(o1 + s1)
    negatives = (base * others).sum(1)
    for shift in range(1, n):
        negatives = negatives + (similarity(o1 + WEIGHT * s1.roll(shift, 0).detach()) * others).sum(1)
    positives = torch.cat([base.diagonal(n), base.diagonal(-n)])
    return -torch.log(positives / (negatives + EPS)).mean()


def run() -> None:
    """Print times and ratios for N = 64 embeddings of length 64 in float32, times for larger N, and peak memory.

    With a GPU, compare CPU and GPU times.
    """
    _times()
    _memory()
    if torch.cuda.is_available():
        _on_gpu()
    else:
        print("\nNo CUDA device: no GPU times.")


def _on_gpu() -> None:
    print("\n| N | variant | one CPU thread, ms | GPU, ms | times faster |\n| ---: | --- | ---: | ---: | ---: |")
    for n in (64, 256, 1024):
        for variant in ("corrected", "reference") if n < 1024 else ("corrected",):
            criterion = TupleNTXent(variant=variant)
            calls = {where: partial(_backward, criterion, _embeddings(n, where)) for where in ("cpu", "cuda")}
            cpu, gpu = (best_of(call, 5, where) for where, call in calls.items())
            print(f"| {n} | {variant} | {1e3 * cpu:.2f} | {1e3 * gpu:.2f} | {cpu / gpu:.1f} |", flush=True)


def _embeddings(n: int, device: str = "cpu") -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.randn(n, 64, generator=random).to(device).requires_grad_() for _ in range(4)]


def _backward(loss: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)


def _memory() -> None:
    """Measure each loss in a separate process, whose memory is that of the loss and of torch."""
    print("\n| N | variant | perturbed | CPU s | peak MiB | before the loss, MiB |")
    print("| ---: | --- | --- | ---: | ---: | ---: |")
    for n, variant, tuples in (
        (256, "reference", "as published"),
        (1024, "reference", "as published"),
        (256, "reference", "all tuples"),
        (1024, "corrected", "as corrected"),
    ):
        command = [sys.executable, "-c", MEASURE, str(n), variant, tuples]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"| {n} | {variant} | {tuples} | {done.stdout.strip()} |", flush=True)


def _times() -> None:
    print("| N | variant | ms | times faster than the loop |\n| ---: | --- | ---: | ---: |")
    for n in (64, 256, 1024):
        inputs = _embeddings(n)
        slow = best_of(partial(_backward, loop_over_shifts, inputs), 2) if n == 64 else None
        for variant in ("reference", "corrected"):
            if variant == "reference" and n > 256:
                continue
            criterion = TupleNTXent(variant=variant)
            fast = best_of(partial(_backward, criterion, inputs), 10 if n == 64 else 2)
            ratio = f"{slow / fast:.0f}" if slow else ""
            print(f"| {n} | {variant} | {1e3 * fast:.1f} | {ratio} |", flush=True)
