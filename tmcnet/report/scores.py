"""The scores of the sweep as typed records: runs, means over seeds with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tmcnet.config import Budget, Run
from tmcnet.evaluate.metrics import HEADLINE
from tmcnet.evaluate.summary import GROUP_TABLES, MIN_REPLICATES
from tmcnet.readers import number, read_json, read_table
from tmcnet.report.names import Series, series_order

METRICS = tuple(HEADLINE)
"""Scores with paired differences: OA, kappa, mIoU, mean F1."""
ALL_METRICS = (*METRICS, "boundary_f1", "ece")
MIN_RUNS = 5
"""Runs below which the page warns."""

Standing = Literal["best", "not worse", "worse", "not compared"]
Finding = Literal["few seeds", "no interval", "around zero", "few draws", "corrected away", "gain", "loss"]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its interval; unknown limits are NaN."""

    mean: float
    low: float
    high: float
    runs: int

    @property
    def has_interval(self) -> bool:
        """Whether the limits are known."""
        return self.low == self.low


@dataclass(frozen=True)
class Comparison:
    """A paired difference `a - b` of one metric, with the same labels or of one series with more and fewer labels.

    `budget` is the labels of `a`, and of `b` unless `fewer` is given.

    `p` is two-sided and corrected for the number of comparisons where the file has it so; NaN where unknown.
    `significant` says whether it is small enough. `runs` is the number of pairs of runs, `seeds` that of their seeds;
    0 where unknown.
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
    seeds: int = 0
    fewer: Budget | None = None

    @property
    def reliable(self) -> bool:
        """Whether the interval excludes zero and the p-value, corrected for the number of comparisons, is small."""
        return self.excludes_zero and self.significant

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def has_interval(self) -> bool:
        """Whether both limits are known."""
        return self.low == self.low and self.high == self.high

    def finding(self, confidence: float) -> Finding:
        """What the difference shows, at a confidence in 0..1."""
        if 0 < (self.seeds or self.runs) < MIN_REPLICATES:
            return "few seeds"
        if not self.has_interval:
            return "no interval"
        if not self.excludes_zero:
            return "around zero"
        if not self.significant:
            return "few draws" if self.p < 1 - confidence else "corrected away"
        return "gain" if self.difference > 0 else "loss"

    def reversed(self) -> Comparison:
        """The same as `b - a`."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class Group:
    """A group of test tiles with the means and the paired differences of one metric on it."""

    name: str
    tiles: int
    cells: dict[tuple[Series, Budget], Estimate]
    comparisons: list[Comparison]


class Scores:
    """The scores in `metrics.csv`, `metrics.json` and `comparisons.csv` of a results folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def table(self) -> pd.DataFrame:
        """`metrics.csv`, one row a run, with columns `run` and `budget` (its name); empty without scores."""
        table = read_table(self.root / "metrics.csv")
        if not {"network", "variant", "method", "fraction", "seed"} <= set(table.columns):
            return pd.DataFrame(columns=["run"])
        runs = [_run(row) for row in table.to_dict("records")]
        return table.assign(run=pd.Series(runs, dtype=object), budget=[run.budget.name for run in runs])

    @cached_property
    def cells(self) -> dict[tuple[Series, Budget], pd.DataFrame]:
        """Rows of the runs that differ in draw and seed only."""
        keys = [(Series.of(run), run.budget) for run in self.table["run"]]
        return {key: self.table[[other == key for other in keys]] for key in dict.fromkeys(keys)}

    @cached_property
    def series(self) -> list[Series]:
        """Every combination of network, variant and start with scores."""
        return sorted({series for series, _ in self.cells}, key=series_order)

    @cached_property
    def budgets(self) -> list[Budget]:
        """Label budgets, ascending."""
        return sorted({budget for _, budget in self.cells})

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics with at least one value."""
        return [m for m in ALL_METRICS if m in self.table and self.table[m].notna().any()]

    @cached_property
    def runs(self) -> int:
        """Fewest runs behind any mean."""
        return min(map(len, self.cells.values()), default=0)

    def estimate(self, series: Series, budget: Budget, metric: str) -> Estimate | None:
        """Mean over runs and interval, or None without runs."""
        rows = self.cells.get((series, budget))
        if rows is None or metric not in rows:
            return None
        of_network = self._intervals.get(f"{series.network}-{series.variant}", {})
        limits = of_network.get(series.method, {}).get(budget.name, {}).get(metric) or {}
        low, high = number(limits.get("low")), number(limits.get("high"))
        return Estimate(float(rows[metric].mean()), low, high, runs=len(rows))

    def estimates(self, series: Series, metric: str) -> list[tuple[Budget, Estimate]]:
        """Means of one series, by label budget."""
        return [(budget, e) for budget in self.budgets if (e := self.estimate(series, budget, metric))]

    @cached_property
    def _intervals(self) -> dict[str, Any]:
        """`metrics.json`: `{network-variant: {method: {R5: {miou: {mean, low, high}}}}}`."""
        return read_json(self.root / "metrics.json")

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The paired differences with equal labels: starts first, then networks, by label budget."""
        return sorted((c for c in self._compared if c.fewer is None), key=_comparison_order)

    @cached_property
    def _compared(self) -> list[Comparison]:
        rows = read_table(self.root / "comparisons.csv").to_dict("records")
        return [c for row in rows if (c := _comparison(row))]

    def groups(self, names: Iterable[str], metric: str) -> list[Group]:
        """The scores on groups of test tiles, from `groups.csv` and `group_comparisons.csv`."""
        means, compared = (read_table(self.root / name).to_dict("records") for name in GROUP_TABLES)
        found = []
        for name in names:
            rows, pairs = (
                [row for row in table if (row["group"], row["metric"]) == (name, metric)]
                for table in (means, compared)
            )
            cells = {
                (Series(str(row["network"]), str(row["variant"]), str(row["method"])), budget): Estimate(
                    number(row["mean"]), number(row["low"]), number(row["high"]), int(row["n_runs"])
                )
                for row in rows
                if (budget := _budget(row))
            }
            differences = [c for row in pairs if (c := _comparison(row)) and c.fewer is None]
            tiles = int(rows[0]["n_tiles"]) if rows else 0
            found.append(Group(name, tiles, cells, sorted(differences, key=_comparison_order)))
        return found

    def gain(self, series: Series, metric: str, *, last_step: bool = False) -> Comparison | None:
        """The paired difference of one series from the fewest labels, or the most but one, to the most."""
        if len(self.budgets) < 2:
            return None
        wanted = (series, self.budgets[-1], self.budgets[-2 if last_step else 0], metric)
        return next((c for c in self._compared if (c.a, c.budget, c.fewer, c.metric) == wanted), None)

    def comparison(self, a: Series, b: Series, budget: Budget, metric: str) -> Comparison | None:
        """The paired difference `a - b`, or None where the two were not compared."""
        for c in self.comparisons:
            if (c.budget, c.metric) == (budget, metric) and {c.a, c.b} == {a, b}:
                return c if c.a == a else c.reversed()
        return None

    def leader(self, budget: Budget, metric: str, among: Iterable[Series] | None = None) -> Series | None:
        """The series with the best mean with a label budget, of some or of all; None without runs.

        Means are over the draws and seeds that all of them with three or more have, where there are any.
        """
        runs: dict[Series, dict[tuple[int, int], float]] = {}
        for series in self.series if among is None else among:
            rows = self.cells.get((series, budget))
            if rows is not None and metric in rows:
                known = rows[rows[metric].notna()]
                runs[series] = {(r.draw, r.seed): v for r, v in zip(known["run"], known[metric], strict=True)}
        several = [set(found) for found in runs.values() if len(found) >= MIN_REPLICATES]
        shared = set.intersection(*several) if several else set()
        means = {
            s: np.mean([found[key] for key in shared & set(found) or found]) for s, found in runs.items() if found
        }
        return max(means, key=lambda series: means[series]) if means else None

    def standing(self, series: Series, leader: Series, budget: Budget, metric: str) -> Standing:
        """How a series compares with the best one with its label budget, by paired differences."""
        if series == leader:
            return "best"
        found = self.comparison(leader, series, budget, metric)
        if found is None or found.low != found.low:
            return "not compared"
        return "worse" if found.reliable and found.difference > 0 else "not worse"

    def best(self, metric: str) -> dict[tuple[str, str], Run]:
        """Per network and variant, the best run with its largest label budget."""
        found: dict[tuple[str, str], Run] = {}
        for network in dict.fromkeys((series.network, series.variant) for series in self.series):
            rows = self.table[[(run.network, run.variant) == network for run in self.table["run"]]]
            most = rows[rows["budget"] == max(run.budget for run in rows["run"]).name]
            found[network] = most.sort_values(metric, ascending=False)["run"].iloc[0]
        return found


def _budget(row: dict[Any, Any], prefix: str = "") -> Budget | None:
    """The label budget of a row with a column `points` or `fraction`; None where both are empty."""
    points, fraction = (number(row.get(f"{prefix}{name}")) for name in ("points", "fraction"))
    if points == points:
        return Budget("P", points)
    return Budget("R", fraction) if fraction == fraction else None


def _run(row: dict[Any, Any]) -> Run:
    network, variant, method = (str(row[key]) for key in ("network", "variant", "method"))
    budget = _budget(row)
    assert budget is not None
    return Run(network, variant, method, budget, int(row.get("draw", 1)), int(row["seed"]))


def _comparison_order(c: Comparison) -> tuple[object, ...]:
    other_network = (c.a.network, c.a.variant) != (c.b.network, c.b.variant)
    return (other_network, series_order(c.a), series_order(c.b), c.budget)


def _comparison(row: dict[Any, Any]) -> Comparison | None:
    """A row of `comparisons.csv`; the series that figures list first is `a`: fused or pre-trained."""
    if not {"metric", "fraction", "a", "b", "difference", "low", "high"} <= set(row):
        return None
    budget = _budget(row)
    if budget is None:
        return None
    found = Comparison(
        metric=str(row["metric"]),
        budget=budget,
        a=Series.parse(str(row["a"])),
        b=Series.parse(str(row["b"])),
        difference=number(row["difference"]),
        low=number(row["low"]),
        high=number(row["high"]),
        p=number(row.get("p_holm", row.get("p"))),
        significant=str(row.get("significant", True)) == "True",
        runs=int(np.nan_to_num(number(row.get("n_runs")))),
        seeds=int(np.nan_to_num(number(row.get("n_seeds")))),
        fewer=_budget(row, "b_"),
    )
    return found if series_order(found.a) <= series_order(found.b) else found.reversed()
