"""The scores of the sweep as typed records: runs, means over seeds with intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.config import Budget, EvaluateConfig, Run
from tmcnet.evaluate.boundary import boundary_f1
from tmcnet.evaluate.comparisons import read_blocks
from tmcnet.evaluate.intervals import Interval, Resamples, effects_of, interval
from tmcnet.evaluate.metrics import class_mean
from tmcnet.report.files import number, read_json, read_table
from tmcnet.report.names import Series, series_order
from tmcnet.seeding import generator

METRICS = ("oa", "kappa", "miou", "mf1")
"""Scores with intervals and paired differences."""
PLAIN_METRICS = ("boundary_f1", "ece")
"""Scores without paired differences."""

Standing = Literal["best", "not worse", "worse", "not compared"]
Finding = Literal["no interval", "no difference", "too few runs", "corrected away", "gain", "loss"]
_QUANTITIES = 4
"""Counts of each class behind boundary F1."""


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
    """A paired difference `a - b` of one metric with the same labels.

    Attributes:
        p: Two-sided p-value, corrected for the number of comparisons where the file has it; NaN where unknown.
        significant: Whether that p-value is small enough.
        runs: Number of pairs of runs; 0 where unknown.
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
        if not self.has_interval:
            return "no interval"
        if not self.excludes_zero:
            return "no difference"
        if not self.significant:
            return "too few runs" if self.p < 1 - confidence else "corrected away"
        return "gain" if self.difference > 0 else "loss"

    def oriented(self) -> Comparison:
        """The same with the series first that figures list first: fused before single, pre-trained before random."""
        return self if series_order(self.a) <= series_order(self.b) else self.reversed()

    def reversed(self) -> Comparison:
        """The same as `b - a`."""
        return replace(self, a=self.b, b=self.a, difference=-self.difference, low=-self.high, high=-self.low)


class Scores:
    """The scores in `metrics.csv`, `metrics.json` and `comparisons.csv` of a results folder.

    Args:
        root: The results folder.
        config: Bootstrap of the intervals of boundary F1, which `metrics.json` does not contain; None: no intervals.
    """

    def __init__(self, root: Path, config: EvaluateConfig | None = None) -> None:
        self.root = root
        self.config = config
        self._boundary: dict[tuple[Series, Budget], Interval | None] = {}

    @cached_property
    def table(self) -> pd.DataFrame:
        """`metrics.csv`, one row a run, with a column `budget` of the names of label budgets."""
        table = read_table(self.root / "metrics.csv")
        if not {"network", "variant", "method", "fraction", "seed"} <= set(table.columns):
            return pd.DataFrame()
        return table.assign(budget=[_budget(row).name for row in table.to_dict("records")])

    @cached_property
    def series(self) -> list[Series]:
        """Every combination of network, variant and start with scores."""
        if self.table.empty:
            return []
        rows = self.table[["network", "variant", "method"]].drop_duplicates().itertuples(index=False)
        return sorted((Series(*map(str, row)) for row in rows), key=series_order)

    @cached_property
    def budgets(self) -> list[Budget]:
        """Label budgets, ascending."""
        return [] if self.table.empty else sorted(map(Budget.parse, self.table["budget"].unique()))

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics with at least one value."""
        return [m for m in (*METRICS, *PLAIN_METRICS) if m in self.table and self.table[m].notna().any()]

    @cached_property
    def runs(self) -> int:
        """Fewest runs behind any mean."""
        keys = ["network", "variant", "method", "budget"]
        return 0 if self.table.empty else int(self.table.groupby(keys).size().min())

    def rows(self, series: Series, budget: Budget) -> pd.DataFrame:
        """The runs of one series with one label budget."""
        t = self.table
        same = (t["network"] == series.network) & (t["variant"] == series.variant) & (t["method"] == series.method)
        return t[same & (t["budget"] == budget.name)]

    def estimate(self, series: Series, budget: Budget, metric: str) -> Estimate | None:
        """Mean over runs and interval, or None without runs."""
        rows = self.rows(series, budget)
        if rows.empty or metric not in rows:
            return None
        low = high = float("nan")
        known = self._headline.get((series, budget), {}).get(metric)
        if isinstance(known, dict):
            low, high = number(known.get("low")), number(known.get("high"))
        elif known is None and metric == "boundary_f1" and (found := self._boundary_limits(series, budget, rows)):
            low, high = found.low, found.high
        return Estimate(float(rows[metric].mean()), low, high, runs=len(rows))

    def estimates(self, series: Series, metric: str) -> list[tuple[Budget, Estimate]]:
        """Means of one series, by label budget."""
        return [(budget, e) for budget in self.budgets if (e := self.estimate(series, budget, metric))]

    def _boundary_limits(self, series: Series, budget: Budget, rows: pd.DataFrame) -> Interval | None:
        """Interval of the mean boundary F1 of one series with one label budget; computed once."""
        if self.config is None or not self._blocks:
            return None
        if (series, budget) not in self._boundary:
            runs = [_run(series, budget, row) for row in rows.to_dict("records")]
            found = boundary_interval(self.root / "evaluate", sorted(runs), self._blocks, self.config)
            self._boundary[series, budget] = found
        return self._boundary[series, budget]

    @cached_property
    def _blocks(self) -> dict[str, str]:
        try:
            return read_blocks(self.root / "tiles" / "index.csv", self.root / "splits" / "manifest.json")
        except (OSError, ValueError, KeyError):
            return {}

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
        """The series with the best mean with a label budget, of some or of all; None without runs."""
        means = {
            series: found.mean
            for series in (self.series if among is None else among)
            if (found := self.estimate(series, budget, metric)) and found.mean == found.mean
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
        for series in self.series:
            rows = self.table[(self.table["network"] == series.network) & (self.table["variant"] == series.variant)]
            budget = max(map(Budget.parse, rows["budget"]))
            row = rows[rows["budget"] == budget.name].sort_values(metric, ascending=False).iloc[0]
            start = Series(series.network, series.variant, str(row["method"]))
            found[series.network, series.variant] = _run(start, budget, row.to_dict())
        return found


def _budget(row: dict[Any, Any]) -> Budget:
    """The label budget of a row with a column `points` or `fraction`."""
    points = number(row.get("points"))
    return Budget("R", number(row["fraction"])) if points != points else Budget("P", points)


def _run(series: Series, budget: Budget, row: Mapping[Any, Any]) -> Run:
    draw, seed = int(row.get("draw", 1)), int(row["seed"])
    return Run(series.network, series.variant, series.method, budget, draw, seed)


def _headline_entries(tree: dict[str, Any]) -> Iterator[tuple[tuple[Series, Budget], dict[str, Any]]]:
    """Walk `{network-variant: {method: {R5: {miou: {mean, low, high}}}}}`."""
    for network, methods in tree.items():
        for method, budgets in methods.items() if isinstance(methods, dict) else ():
            for budget, entry in budgets.items() if isinstance(budgets, dict) else ():
                yield (Series.parse(f"{network}__{method}"), Budget.parse(str(budget))), entry


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
        a=Series.parse(str(row["a"])),
        b=Series.parse(str(row["b"])),
        difference=number(row["difference"]),
        low=number(row["low"]),
        high=number(row["high"]),
        p=number(row.get("p_holm", row.get("p"))),
        significant=str(row.get("significant", True)) == "True",
        runs=0 if np.isnan(runs) else int(runs),
    )
    return found.oriented()


def boundary_interval(
    root: Path, runs: list[Run], blocks: Mapping[str, str], config: EvaluateConfig
) -> Interval | None:
    """Mean boundary F1 over runs that differ only in draw and seed, with its interval.

    Resamples blocks of test tiles, draws and seeds as the other scores do.

    Args:
        root: Folder with one folder a run, which contains `tiles.npz`.
        runs: The runs.
        blocks: Block of each known tile.
        config: Bootstrap draws, confidence and seed.

    Returns:
        None where a run has no boundary counts, or has tiles without a block.
    """
    counts = [_counts_by_block(root / run.name / "tiles.npz", blocks) for run in runs]
    known = [one for one in counts if one is not None]
    if not known or len(known) < len(runs) or len({one.shape for one in known}) > 1:
        return None
    first = runs[0]
    random = generator(config.seed, "boundary", first.network, first.variant, first.method, first.budget.name)
    effects = effects_of([(run.draw, run.seed) for run in runs])
    resamples = Resamples.draw(known[0].shape[0], effects, config.bootstrap, random)
    found = interval(_mean_boundary_f1, np.stack(known), resamples, config.confidence)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _counts_by_block(path: Path, blocks: Mapping[str, str]) -> npt.NDArray[np.int64] | None:
    """B x S x S counts: K x 4 of each labelled block, padded with 0 because the bootstrap takes square matrices."""
    try:
        with np.load(path, allow_pickle=False) as file:
            labelled = file["confusion"].sum((1, 2)) > 0
            names, counts = file["names"][labelled].astype(str).tolist(), file["boundary"][labelled]
    except (OSError, KeyError, ValueError):
        return None
    if not set(names) <= set(blocks):
        return None
    found, place = np.unique([blocks[name] for name in names], return_inverse=True)
    _, classes, quantities = counts.shape
    side = max(classes, quantities)
    sums = np.zeros((len(found), side, side), dtype=np.int64)
    np.add.at(sums[:, :classes, :quantities], place, counts)
    return sums


def _mean_boundary_f1(squares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean boundary F1 over classes, of shape ..., of ... x S x S; a row without counts is no class."""
    counts = squares[..., :_QUANTITIES].astype(np.int64)
    return class_mean(boundary_f1(counts.reshape(-1, _QUANTITIES)).reshape(counts.shape[:-1]))
