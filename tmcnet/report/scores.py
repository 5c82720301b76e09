"""The scores of the sweep as typed records: runs, means over seeds with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tmcnet.config import Budget, EvaluateConfig, Run
from tmcnet.evaluate.comparisons import read_blocks
from tmcnet.report.boundary import boundary_interval
from tmcnet.report.files import number, read_json, read_table
from tmcnet.report.palette import Series, series_order

METRICS = ("oa", "kappa", "miou", "mf1")
"""Scores with intervals and paired differences."""
PLAIN_METRICS = ("boundary_f1", "ece")
"""Scores without paired differences."""

Standing = Literal["best", "not worse", "worse", "not compared"]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its interval; the limits are NaN where none is known."""

    mean: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Comparison:
    """A paired difference `a - b` of one metric with the same labels.

    Attributes:
        p: Two-sided p-value, corrected for the number of comparisons where the file says so; NaN where unknown.
        significant: Whether that p-value is small enough.
        runs: Pairs of runs behind it, 0 where not told.
    """

    metric: str
    budget: Budget
    a: Series
    b: Series
    difference: float
    low: float
    high: float
    p: float
    significant: bool
    runs: int

    @property
    def reliable(self) -> bool:
        """Whether the interval excludes no difference, and the p-value holds for so many comparisons."""
        return self.outside and self.significant

    @property
    def outside(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0

    def oriented(self) -> Comparison:
        """The same with the series first that figures list first: fused before single, pre-trained before random."""
        return self if series_order(self.a) <= series_order(self.b) else self.reversed()

    def reversed(self) -> Comparison:
        """The same as `b - a`."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)


class Scores:
    """What `metrics.csv`, `metrics.json` and `comparisons.csv` of a results folder say.

    Args:
        root: The results folder.
        config: How intervals of boundary F1 are made, which the evaluation leaves out; None: not at all.
    """

    def __init__(self, root: Path, config: EvaluateConfig | None = None) -> None:
        self.root = root
        self.config = config
        self._boundary: dict[tuple[Series, Budget], dict[str, float]] = {}

    @cached_property
    def table(self) -> pd.DataFrame:
        """`metrics.csv`, one row a run, with a column `budget` of the names of label budgets."""
        table = read_table(self.root / "metrics.csv")
        if not {"network", "variant", "method", "fraction", "seed"} <= set(table.columns):
            return pd.DataFrame()
        return table.assign(budget=[_budget(row).name for row in table.to_dict("records")])

    @cached_property
    def series(self) -> list[Series]:
        """Every combination of network, variant and start that was scored."""
        if self.table.empty:
            return []
        rows = self.table[["network", "variant", "method"]].drop_duplicates().itertuples(index=False)
        return sorted((Series(*map(str, row)) for row in rows), key=series_order)

    @cached_property
    def budgets(self) -> list[Budget]:
        """Label budgets, ascending."""
        return [] if self.table.empty else sorted(map(Budget.parse, self.table["budget"].unique()))

    @cached_property
    def runs(self) -> int:
        """Fewest runs behind any mean."""
        return (
            0
            if self.table.empty
            else int(self.table.groupby(["network", "variant", "method", "budget"]).size().min())
        )

    def rows(self, series: Series, budget: Budget) -> pd.DataFrame:
        """The runs of one series with one label budget."""
        t = self.table
        same = (t["network"] == series.network) & (t["variant"] == series.variant) & (t["method"] == series.method)
        return t[same & (t["budget"] == budget.name)]

    def estimate(self, series: Series, budget: Budget, metric: str) -> Estimate | None:
        """Mean over runs and interval, or None where nothing was run."""
        rows = self.rows(series, budget)
        if rows.empty or metric not in rows:
            return None
        known = self._headline.get((series, budget), {}).get(metric)
        if known is None and metric == "boundary_f1":
            known = self._boundary_limits(series, budget, rows)
        limits = (
            (number(known.get("low")), number(known.get("high"))) if isinstance(known, dict) else (np.nan, np.nan)
        )
        return Estimate(float(rows[metric].mean()), *limits, runs=len(rows))

    def _boundary_limits(self, series: Series, budget: Budget, rows: pd.DataFrame) -> dict[str, float]:
        """Limits of the mean boundary F1 of one series with one label budget; empty where they cannot be told."""
        if self.config is None or not self._blocks:
            return {}
        if (series, budget) not in self._boundary:
            runs = [self._run(series, budget, row) for row in rows.to_dict("records")]
            found = boundary_interval(self.root / "evaluate", sorted(runs), self._blocks, self.config)
            self._boundary[series, budget] = {"low": found.low, "high": found.high} if found else {}
        return self._boundary[series, budget]

    @cached_property
    def _blocks(self) -> dict[str, str]:
        try:
            return read_blocks(self.root / "tiles" / "index.csv", self.root / "splits" / "manifest.json")
        except (OSError, ValueError, KeyError):
            return {}

    @staticmethod
    def _run(series: Series, budget: Budget, row: Mapping[Any, Any]) -> Run:
        draw, seed = int(row.get("draw", 1)), int(row["seed"])
        return Run(series.network, series.variant, series.method, budget, draw, seed)

    @cached_property
    def _headline(self) -> dict[tuple[Series, Budget], dict[str, Any]]:
        return dict(_headline_entries(read_json(self.root / "metrics.json")))

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The paired differences: starts first, then networks, by label budget."""
        rows = read_table(self.root / "comparisons.csv").to_dict("records")
        found = [c for row in rows if (c := _comparison(row))]
        return sorted(found, key=_comparison_order)

    def comparison(self, a: Series, b: Series, budget: Budget, metric: str) -> Comparison | None:
        """The paired difference `a - b`, or None where the two were not compared."""
        for c in self.comparisons:
            if (c.budget, c.metric) == (budget, metric) and {c.a, c.b} == {a, b}:
                return c if c.a == a else c.reversed()
        return None

    def leader(self, budget: Budget, metric: str, among: Iterable[Series] | None = None) -> Series | None:
        """The series with the best mean with a label budget, of some or of all; None where none was run."""
        means = {
            series: found.mean
            for series in (self.series if among is None else among)
            if (found := self.estimate(series, budget, metric)) and found.mean == found.mean
        }
        return max(means, key=lambda series: means[series]) if means else None

    def standing(self, series: Series, leader: Series, budget: Budget, metric: str) -> Standing:
        """How a series stands against the best with its label budget, as far as paired differences tell."""
        if series == leader:
            return "best"
        found = self.comparison(leader, series, budget, metric)
        if found is None or found.low != found.low:
            return "not compared"
        return "worse" if found.reliable and found.difference > 0 else "not worse"

    def best(self, metric: str) -> dict[tuple[str, str], Run]:
        """Per network and variant, the best run with the largest label budget that it was run with."""
        found: dict[tuple[str, str], Run] = {}
        for series in self.series:
            rows = self.table[(self.table["network"] == series.network) & (self.table["variant"] == series.variant)]
            budget = max(map(Budget.parse, rows["budget"]))
            row = rows[rows["budget"] == budget.name].sort_values(metric, ascending=False).iloc[0]
            start = Series(series.network, series.variant, str(row["method"]))
            found[series.network, series.variant] = self._run(start, budget, row.to_dict())
        return found


def _budget(row: dict[Any, Any]) -> Budget:
    """The label budget that a row of a table names by points or fraction."""
    points = number(row.get("points"))
    return Budget("R", number(row["fraction"])) if points != points else Budget("P", points)


def _headline_entries(tree: dict[str, Any]) -> Iterator[tuple[tuple[Series, Budget], dict[str, Any]]]:
    """Walk `{network-variant: {method: {R5: {miou: {mean, low, high}}}}}`."""
    for network, methods in tree.items():
        for method, budgets in methods.items() if isinstance(methods, dict) else ():
            for budget, entry in budgets.items() if isinstance(budgets, dict) else ():
                yield (parse_series(f"{network}__{method}"), Budget.parse(str(budget))), entry


def parse_series(key: str) -> Series:
    """Read `mssnet-corrected__tmcnet` back into a series."""
    head, _, method = key.partition("__")
    network, _, variant = head.partition("-")
    return Series(network, variant, method)


def _comparison_order(c: Comparison) -> tuple[object, ...]:
    other_network = (c.a.network, c.a.variant) != (c.b.network, c.b.variant)
    return (other_network, series_order(c.a), series_order(c.b), c.budget)


def _comparison(row: dict[Any, Any]) -> Comparison | None:
    if not {"metric", "fraction", "a", "b", "difference", "low", "high"} <= set(row):
        return None
    runs = number(row.get("n_runs", 0))
    found = Comparison(
        metric=str(row["metric"]),
        budget=_budget(row),
        a=parse_series(str(row["a"])),
        b=parse_series(str(row["b"])),
        difference=number(row["difference"]),
        low=number(row["low"]),
        high=number(row["high"]),
        p=number(row.get("p_holm", row.get("p"))),
        significant=str(row.get("significant", True)) == "True",
        runs=0 if np.isnan(runs) else int(runs),
    )
    return found.oriented()
