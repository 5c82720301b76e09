"""Optimiser and learning-rate schedule of both trainings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


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
    network: nn.Module, plan: OptimiserPlan, fused: bool = True
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimiser of a network and its schedule, to be advanced every step.

    Args:
        network: What is trained.
        plan: How.
        fused: Update in one kernel, which is fastest.
    """
    kind = torch.optim.Adam if plan.kind == "adam" else torch.optim.AdamW
    optimiser = kind(parameter_groups(network, plan), lr=plan.learning_rate, betas=plan.betas, fused=fused)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor(plan))
