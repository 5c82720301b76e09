"""The fine-tuned runs that a sweep consists of, and their names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tmcnet.config.training import PIXELWISE, RANDOM_START, SweepConfig

BASELINE = "baseline"
"""Variant of the networks that have no published counterpart to depart from."""

_PATTERN = re.compile(
    r"^(?P<network>[a-z0-9_]+?)-(?P<variant>[a-z]+)__(?P<method>[\w-]+?)__R(?P<fraction>[0-9.]+)__s(?P<seed>[0-9]+)$"
)


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuned network: what `metrics.csv` has a row for."""

    network: str
    variant: str
    method: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Name in paths and figures, such as `mssnet-corrected__tmcnet__R5__s1`."""
        return f"{self.network}-{self.variant}__{self.method}__{fraction_name(self.fraction)}__s{self.seed}"

    @property
    def subset(self) -> str:
        """Name of the label list it learns from, such as `trainR5_s2`."""
        return subset_name(self.fraction, self.seed)

    @classmethod
    def parse(cls, name: str) -> Run:
        """Read a run back from its name.

        Raises:
            ValueError: If `name` is not the name of a run.
        """
        match = _PATTERN.match(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a run, such as mssnet-corrected__tmcnet__R5__s1")
        return cls(match["network"], match["variant"], match["method"], float(match["fraction"]), int(match["seed"]))


def fraction_name(fraction: float) -> str:
    """Name of a label fraction in percent: `R5`, `R0.5`."""
    return f"R{fraction:g}"


def subset_name(fraction: float, draw: int) -> str:
    """Name of the label list of one draw, counted from 1: `trainR5`, `trainR5_s2`."""
    return f"train{fraction_name(fraction)}" + ("" if draw == 1 else f"_s{draw}")


def expand_sweep(sweep: list[SweepConfig]) -> list[Run]:
    """All runs of a sweep, each once, in a fixed order.

    Only `mssnet` has variants. Pixel-wise baselines load no weights, so they have the random start alone.
    """
    runs: set[Run] = set()
    for part in sweep:
        for network in part.networks:
            variants = part.variants if network == "mssnet" else [BASELINE]
            methods = [RANDOM_START] if network in PIXELWISE else part.methods
            runs.update(
                Run(network, variant, method, fraction, seed)
                for variant in variants
                for method in methods
                for fraction in part.fractions
                for seed in part.seeds
            )
    return sorted(runs)
