"""The fine-tuned runs that a sweep consists of, and their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tmcnet.config.training import PIXELWISE, RANDOM_START, SweepConfig

BASELINE = "baseline"
"""Variant of the networks that have no published counterpart to depart from."""

_BUDGET = r"(?P<kind>[PR])(?P<amount>[0-9]+(?:\.[0-9]+)?)"
_DRAWN = rf"{_BUDGET}(?:_s(?P<draw>[0-9]+))?"
_PATTERN = re.compile(
    rf"^(?P<network>[a-z0-9_]+?)-(?P<variant>[a-z]+)__(?P<method>[\w-]+?)__{_DRAWN}__s(?P<seed>[0-9]+)$"
)


@dataclass(frozen=True, order=True)
class Budget:
    """How many labels a run learns from; budgets of points come before shares of tiles.

    Attributes:
        kind: `P`: labelled pixels of each class; `R`: percent of the labelled training tiles.
        amount: How many, or how much.
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
        """Whether no label of the training tiles is left out, so that there is nothing to draw."""
        return self.kind == "R" and self.amount == 100

    def subset(self, draw: int) -> str:
        """Name of the label list of one draw, counted from 1: `trainR5`, `trainR5_s2`, `trainP10`."""
        return f"train{self.name}" + ("" if draw == 1 else f"_s{draw}")

    @classmethod
    def parse(cls, name: str) -> Budget:
        """Read a budget back from its name.

        Raises:
            ValueError: If `name` is not the name of a budget.
        """
        match = re.fullmatch(_BUDGET, name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a label budget, such as R5 or P10")
        return cls._of(match)

    @classmethod
    def parse_subset(cls, name: str) -> tuple[Budget, int] | None:
        """The budget and the draw that the name of a label list tells; None for other lists, such as `train`."""
        match = re.fullmatch(f"train{_DRAWN}", name)
        return match and (cls._of(match), int(match["draw"] or 1))

    @classmethod
    def _of(cls, match: re.Match[str]) -> Budget:
        return cls("P" if match["kind"] == "P" else "R", float(match["amount"]))


@dataclass(frozen=True, order=True)
class Run:
    """One fine-tuned network: what `metrics.csv` has a row for.

    Attributes:
        network: Segmentation network.
        variant: Variant of the network.
        method: What it starts from.
        budget: How many labels it learns from.
        draw: Which draw of these labels, counted from 1.
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
        """Name in paths and figures, such as `mssnet-corrected__tmcnet__R5_s2__s1`: draw 2 of 5 %, run seed 1."""
        labels = self.subset.removeprefix("train")
        return f"{self.network}-{self.variant}__{self.method}__{labels}__s{self.seed}"

    @property
    def subset(self) -> str:
        """Name of the label list it learns from, such as `trainR5_s2`."""
        return self.budget.subset(self.draw)

    @property
    def record(self) -> dict[str, Any]:
        """The run in plain values, as headers, summaries and tables name it."""
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
        """Read a run back from its name.

        Raises:
            ValueError: If `name` is not the name of a run.
        """
        match = _PATTERN.match(name)
        if match is None:
            raise ValueError(f"{name!r} is not the name of a run, such as mssnet-corrected__tmcnet__R5__s1")
        budget = Budget.parse(match["kind"] + match["amount"])
        draw, seed = int(match["draw"] or 1), int(match["seed"])
        return cls(match["network"], match["variant"], match["method"], budget, draw, seed)


def subset_name(fraction: float, draw: int) -> str:
    """Name of the label list of one draw of a label fraction in percent: `trainR5`, `trainR5_s2`."""
    return Budget("R", fraction).subset(draw)


def expand_sweep(sweep: list[SweepConfig]) -> list[Run]:
    """All runs of a sweep, each once, in a fixed order.

    Only `mssnet` has variants. Pixel-wise baselines load no weights, so they have the random start alone. Of all
    labels there is one draw only.
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
                for budget in budgets(part)
                for draw, seed in replicates(part)
            )
    return sorted(runs)


def budgets(part: SweepConfig) -> Iterator[Budget]:
    """The label budgets of a part of the sweep."""
    yield from (Budget("P", points) for points in part.points)
    yield from (Budget("R", fraction) for fraction in part.fractions)


def replicates(part: SweepConfig) -> list[tuple[int, int]]:
    """Draw and run seed of each repetition: in pairs, or each with each where `subsets` are listed."""
    if part.subsets is None:
        return [(seed, seed) for seed in part.seeds]
    return [(draw, seed) for draw in part.subsets for seed in part.seeds]
