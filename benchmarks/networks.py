"""Parameters of the segmentation networks, and the time of one training step."""

from __future__ import annotations

import torch

from benchmarks.timing import best_of
from tmcnet.config import ModelConfig
from tmcnet.model.networks import build_network

PUBLISHED = ModelConfig(backbone="resnet50", width=64, aspp_channels=256, decoder_channels=256)
NETWORKS = [
    ("mssnet", "reference"),
    ("mssnet", "corrected"),
    ("early_fusion", "baseline"),
    ("late_fusion", "baseline"),
    ("optical_only", "baseline"),
]


def run() -> None:
    """Print parameters and CPU seconds of a step of 2 tiles of 96 pixels, ResNet-50, 3 + 3 bands, 8 classes."""
    print("| network | variant | parameters, millions | step, s |\n| --- | --- | ---: | ---: |")
    images = dict(zip(("optical", "sar"), torch.randn(2, 2, 3, 96, 96), strict=True))
    for name, variant in NETWORKS:
        network = build_network(name, variant, {"optical": 3, "sar": 3}, 8, PUBLISHED)
        optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)

        def step(network: torch.nn.Module = network, optimiser: torch.optim.Optimizer = optimiser) -> None:
            optimiser.zero_grad()
            network(images).square().mean().backward()
            optimiser.step()

        millions = sum(p.numel() for p in network.parameters()) / 1e6
        print(f"| {name} | {variant} | {millions:.1f} | {best_of(step, 3):.2f} |", flush=True)
