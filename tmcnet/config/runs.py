"""The runs of a sweep and their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tmcnet.config.training import PIXELWISE, RANDOM_START, SweepConfig

BASELINE = "baseline"
"""Variant of networks without a published form."""

_BUDGET = r"(?P<kind>[PR])(?P<amount>[0-9]+(?:\.[0-9]+)?)"
_DRAWN = rf"{_BUDGET}(?:_s(?P<draw>[0-9]+))?"
_PATTERN = re.compile(
    rf"^(?P<network>[a-z0-9_]+?)-(?P<variant>[a-z]+)__(?P<method>[\w-]+?)__{_DRAWN}__s(?P<seed>[0-9]+)$"
)


@dataclass(frozen=True, order=True)
class Budget:
    """Number of labels that a run learns from; budgets of points sort before fractions of tiles.

    Attributes:
        kind: `P`: labelled pixels of each class; `R`: percent of the labelled training tiles.
        amount: Number of pixels, or percent.
    """

    kind: Literal["P", "R"]
    amount: float

    @property
    def name(self) -> str:
        """Name in lists and paths: `P10`, `R5`, `R0.5`."""
        return f"{self.kind}{self.amount:g}" if self.kind == "R" else f"P{self.points}"

    @property
    def fraction(self) -> float | None:
        """Percent of the training tiles; None for points."""
        return self.amount if self.kind == "R" else None

    @property
    def points(self) -> int | None:
        """Labelled pixels of each class; None for tiles."""
        return int(self.amount) if self.kind == "P" else None

    @property
    def is_all(self) -> bool:
        """Whether the budget is all labels, so that only one draw exists."""
        return self.kind == "R" and self.amount == 100

    def subset(self, draw: int) -> str:
        """Name of the label list of one draw, counted from 1: `trainR5`, `trainR5_s2`, `trainP10`."""
        return f"train{self.name}" + ("" if draw == 1 else f"_s{draw}")

    @classmethod
    def parse(cls, name: str) -> Budget:
        """Parse a name.

        Raises:
            ValueError: If `name` is not the name of a budget.
        """
        match = re.fullmatch(_BUDGET, name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a label budget, such as R5 or P10")
        return cls._of(match)

    @classmethod
    def parse_subset(cls, name: str) -> tuple[Budget, int] | None:
        """Parse the name of a label list into budget and draw; None for other lists, such as `train`."""
        match = re.fullmatch(f"train{_DRAWN}", name)
        return match and (cls._of(match), int(match["draw"] or 1))

    @classmethod
    def _of(cls, match: re.Match[str]) -> Budget:
        return cls("P" if match["kind"] == "P" else "R", float(match["amount"]))


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuned network: one row of `metrics.csv`.

    Attributes:
        network: Segmentation network.
        variant: Variant of the network.
        method: Start: `random`, a pre-training method or named weights.
        budget: Number of labels it learns from.
        draw: Draw of these labels, counted from 1.
        seed: Seed of initial weights, order of the samples and augmentation.
    """

    network: str
    variant: str
    method: str
    budget: Budget
    draw: int
    seed: int

    @property
    def name(self) -> str:
        """Name in paths and figures: `mssnet-corrected__tmcnet__R5_s2__s1` is draw 2 of 5 %, run seed 1."""
        labels = self.subset.removeprefix("train")
        return f"{self.network}-{self.variant}__{self.method}__{labels}__s{self.seed}"

    @property
    def subset(self) -> str:
        """Name of the label list it learns from, such as `trainR5_s2`."""
        return self.budget.subset(self.draw)

    @property
    def record(self) -> dict[str, Any]:
        """The run as plain values for headers, summaries and tables."""
        return {
            "name": self.name,
            "method": self.method,
            "network": self.network,
            "variant": self.variant,
            "fraction": self.budget.fraction,
            "points": self.budget.points,
            "draw": self.draw,
            "seed": self.seed,
        }

    @classmethod
    def parse(cls, name: str) -> Run:
        """Parse a name.

        Raises:
            ValueError: If `name` is not the name of a run.
        """
        match = _PATTERN.match(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a run, such as mssnet-corrected__tmcnet__R5__s1")
        budget = Budget.parse(match["kind"] + match["amount"])
        draw, seed = int(match["draw"] or 1), int(match["seed"])
        return cls(match["network"], match["variant"], match["method"], budget, draw, seed)


def expand_sweep(sweep: list[SweepConfig]) -> list[Run]:
    """List all runs of a sweep without duplicates, in a fixed order.

    Only `mssnet` has variants. Pixel-wise baselines load no weights, so they have the random start only. A budget of
    all labels has one draw.
    """
    runs: set[Run] = set()
    for part in sweep:
        for network in part.networks:
            variants = part.variants if network == "mssnet" else [BASELINE]
            methods = [RANDOM_START] if network in PIXELWISE else part.methods
            runs.update(
                Run(network, variant, method, budget, 1 if budget.is_all else draw, seed)
                for variant in variants
                for method in methods
                for budget in _budgets(part)
                for draw, seed in _replicates(part)
            )
    return sorted(runs)


def _budgets(part: SweepConfig) -> Iterator[Budget]:
    """The label budgets of a part of the sweep."""
    yield from (Budget("P", points) for points in part.points)
    yield from (Budget("R", fraction) for fraction in part.fractions)


def _replicates(part: SweepConfig) -> list[tuple[int, int]]:
    """Draw and run seed of each repetition: equal numbers, or all combinations if `subsets` are listed."""
    if part.subsets is None:
        return [(seed, seed) for seed in part.seeds]
    return [(draw, seed) for draw in part.subsets for seed in part.seeds]
