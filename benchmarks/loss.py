"""The contrastive loss, forward and backward, against a loop over the shifts that computes every cosine anew."""

from __future__ import annotations

import subprocess
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import best_of
from tmcnet.loss import TupleNTXent

TEMPERATURE, WEIGHT, EPS = 0.5, 0.1, 1e-8
MEASURE = """if True:
    import sys, time
    import torch
    from benchmarks.timing import peak_mib
    from tmcnet.loss import TupleNTXent
    torch.set_num_threads(1)
    inputs = [torch.randn(int(sys.argv[1]), 64, requires_grad=True) for _ in range(4)]
    options = {"perturbed_views": "both", "wrong_partners": "both"} if sys.argv[3] == "all tuples" else {}
    before, began = peak_mib(), time.process_time()
    TupleNTXent(variant=sys.argv[2], **options)(*inputs).backward()
    print(f"{time.process_time() - began:.1f} | {peak_mib():.0f} | {before:.0f}")
"""


def loop_over_shifts(opt1: Tensor, opt2: Tensor, sar1: Tensor, sar2: Tensor) -> Tensor:
    """The published loss (reference_spec, section 5): one pass over all cosines for each of the N - 1 shifts."""
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
    """Print times and ratios for N = 64 embeddings of length 64 in float32, times for larger N, and peak memory."""
    _times()
    _memory()


def _memory() -> None:
    """Forward and backward, each in a process of its own, whose memory is that of the loss and of torch itself."""
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
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randn(n, 64, generator=generator, requires_grad=True) for _ in range(4)]

        def backward(loss: object, inputs: list[Tensor] = inputs) -> None:
            torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)  # type: ignore[operator]

        slow = best_of(lambda: backward(loop_over_shifts), 2) if n == 64 else None
        for variant in ("reference", "corrected"):
            if variant == "reference" and n > 256:
                continue
            criterion = TupleNTXent(variant=variant)
            fast = best_of(lambda criterion=criterion: backward(criterion), 10 if n == 64 else 2)
            ratio = f"{slow / fast:.0f}" if slow else ""
            print(f"| {n} | {variant} | {1e3 * fast:.1f} | {ratio} |", flush=True)
