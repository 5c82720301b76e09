"""Tables of all runs: scores, means with intervals, and paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tmcnet.config import Budget, EvaluateConfig, Run
from tmcnet.config.training import has_start
from tmcnet.errors import InputError, Problem
from tmcnet.evaluate.intervals import Interval, Resamples, difference, effects_of, holm, interval
from tmcnet.evaluate.metrics import HEADLINE, Counts, boundary_f1, class_mean, without_nan
from tmcnet.model.model_file import sum_by_block
from tmcnet.raster.io.writer import write_bytes, write_table
from tmcnet.readers import read_record, reading
from tmcnet.seeding import generator
from tmcnet.splits.files import read_divided, read_tile_blocks

TABLES = ("metrics.csv", "metrics.json", "comparisons.csv", "scores.json")
"""Files that `summarise` writes."""
GROUP_TABLES = ("groups.csv", "group_comparisons.csv")
"""Those on groups of test tiles."""
Replicate = tuple[int, int]
"""Draw of the labels and seed of a run."""
RUN_COLUMNS = ("method", "network", "variant", "fraction", "seed")
SCORE_COLUMNS = ("oa", "kappa", "miou", "mf1", "ece", "n_tiles", "n_pixels", "boundary_f1")
CLASS_METRICS = ("iou", "f1", "precision", "recall")
"""Scores of `metrics.json` by class."""
LABEL_COLUMNS = ("points", "draw")
"""For a budget in points `fraction` is empty, for one in tiles `points` is."""
COMPARISON_COLUMNS = (
    *("kind", "a", "b", "fraction", "points", "b_fraction", "b_points", "metric"),
    *("n_runs", "n_draws", "n_seeds", "n_blocks"),
    *("difference", "low", "high", "p", "p_holm", "significant"),
)
"""`fraction` and `points` are the labels of both; of `a`, where `b_fraction` or `b_points` has fewer for `b`."""
GROUP_COLUMNS = (
    *("group", "n_tiles", "network", "variant", "method", "fraction", "points", "metric"),
    *("n_runs", "n_draws", "n_seeds", "mean", "low", "high"),
)
MIN_UNITS = 5
"""Scenes, or values of a column, from which their differences can be estimated."""
LABELS = "labels"
"""Kind of the comparisons of label budgets."""
MIN_REPLICATES = 3
"""Minimum number of seeds, and of label draws below 100 %, for a significant difference: in simulations, intervals of
one seed contained the truth in as few as 16 % of cases, and with two the spread of seeds is a guess."""


def summarise(
    evaluate_root: Path,
    runs: list[Run],
    index: Path,
    manifest: Path,
    config: EvaluateConfig,
    out: Path,
    classes: Sequence[str] = (),
    groups: Path | None = None,
    outdated: Collection[Run] = (),
) -> None:
    """Write the tables of all runs into the folder `out`.

    `metrics.csv` has one row per run. `metrics.json` has, for every network, method and label budget, the mean over
    runs of each headline score with its interval (`{network-variant: {method: {R5: {miou: {mean, low, high, n_runs,
    n_draws, n_seeds}}}}}`) and, under `missing`, the names of runs that have no scores. `scores.json` has only these
    means, with four decimals (`{network-variant: {method: {R5: {miou: mean}}}}`). `comparisons.csv` has paired
    differences. `groups.csv` and `group_comparisons.csv` have means and differences on the tiles of each group in the
    file `groups` (`group_tiles`), and on all others (`others_of`); groups without a labelled pixel are left out, and
    without the file earlier ones are removed. `classes` are names by id; empty: as the runs were scored. The scores
    of `outdated` runs are left out.

    Raises:
        InputError: If no run was scored, or runs were scored on different test tiles or classes, or on tiles that
            are not in the index.
    """
    if not runs:
        remedy = "Add a row, or run only targets up to `pretrain`."
        raise InputError(Problem("config key `finetune.sweep`", "is empty: there is no run to score", remedy))
    files = ("metrics.json", "tiles.npz")
    current = [run for run in runs if run not in outdated]
    scored = [run for run in current if all((evaluate_root / run.name / name).exists() for name in files)]
    if not scored:
        what = f"has no scores of any of the {len(runs)} runs"
        raise InputError(Problem(str(evaluate_root), what, "Evaluate at least one run (`snakemake evaluate`)."))
    rows = []
    for run in scored:
        path = evaluate_root / run.name / "metrics.json"
        scores = read_record(path)
        with reading(path):
            if (owner := scores.get("run", run.record)["name"]) != run.name:
                raise ValueError(f"it holds scores of {owner}")
            rows.append(_row(run, scores, classes))
    fixed = {*RUN_COLUMNS, *SCORE_COLUMNS, *LABEL_COLUMNS}
    columns = dict.fromkeys(column for row in rows for column in row if column not in fixed)
    _write_csv(out / "metrics.csv", [*RUN_COLUMNS, *SCORE_COLUMNS, *LABEL_COLUMNS, *columns], rows)

    counts = read_counts(evaluate_root, scored, read_tile_blocks(index, manifest), read_divided(index, manifest))
    cells = counts.cells()
    headline, means = _headline(cells, config)
    missing = sorted(run.name for run in set(runs) - set(scored))
    _write_json(out / "metrics.json", {**headline, "missing": missing})
    _write_json(out / "scores.json", means)
    _write_csv(out / "comparisons.csv", COMPARISON_COLUMNS, compare(cells, config))
    if groups:
        of_groups, differences = _by_group(counts, read_record(groups), config)
        _write_csv(out / "groups.csv", GROUP_COLUMNS, of_groups)
        _write_csv(out / "group_comparisons.csv", ("group", "n_tiles", *COMPARISON_COLUMNS), differences)
    else:
        for name in GROUP_TABLES:
            (out / name).unlink(missing_ok=True)


def others_of(group: str) -> str:
    """Name of all test tiles that are not in a group."""
    return f"not {group}"


def _by_group(
    counts: TileCounts, groups: Mapping[str, Collection[str]], config: EvaluateConfig
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return means with intervals, and paired differences, on the tiles of each group and on all others."""
    parts = {}
    for name, tiles in groups.items():
        parts[name] = set(tiles) & set(counts.tiles)
        parts[others_of(name)] = set(counts.tiles) - set(tiles)
    means, differences = [], []
    for name, kept in parts.items():
        cells = counts.cells(kept)
        head = {"group": name, "n_tiles": len(kept)}
        for cell, metric, found in intervals(cells, config):
            labels = {"fraction": cell.budget.fraction, "points": cell.budget.points}
            series = {"network": cell.network, "variant": cell.variant, "method": cell.method}
            limits = {"mean": found.estimate, "low": found.low, "high": found.high}
            means.append(head | series | labels | {"metric": metric} | repetitions(cells[cell].replicates) | limits)
        differences += [head | row for row in compare(cells, config)]
    return means, differences


def _row(run: Run, scores: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {column: run.record[column] for column in (*RUN_COLUMNS, *LABEL_COLUMNS)}
    row["fraction"] = None if run.budget.fraction is None else f"{run.budget.fraction:g}"
    row |= {column: scores.get(column) for column in SCORE_COLUMNS}
    for metric in ("iou", "f1"):
        row |= {f"{metric}_{name}": value for name, value in renamed(scores[metric], classes).items()}
    return row


def with_names(scores: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Content of a `metrics.json` with the classes under the names that they have now."""
    by_class = {key: scores[key] for key in CLASS_METRICS if isinstance(scores.get(key), dict)}
    return {**scores, **{key: renamed(values, classes) for key, values in by_class.items()}}


def renamed(by_class: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Values of all classes under the names that the classes have now, which may be new since they were scored."""
    if len(classes) != len(by_class):
        return dict(by_class)
    return dict(zip(classes, by_class.values(), strict=True))


def _headline(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return means with their intervals and means alone, by network, method, labels and score."""
    with_limits: dict[str, Any] = {}
    means: dict[str, Any] = {}
    for cell, metric, estimated in intervals(cells, config):
        mean, low, high = (round(value, 6) for value in (estimated.estimate, estimated.low, estimated.high))
        entry = {"mean": mean, "low": low, "high": high, **repetitions(cells[cell].replicates)}
        for tree, value in ((with_limits, entry), (means, round(mean, 4))):
            methods = tree.setdefault(f"{cell.network}-{cell.variant}", {})
            methods.setdefault(cell.method, {}).setdefault(cell.budget.name, {})[metric] = value
    return with_limits, means


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(without_nan(content), indent=1) + "\n").encode())


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    write_table(path, columns, ({column: _text(row.get(column)) for column in columns} for row in rows))


def _text(value: Any) -> str:  # noqa: ANN401 - cells of any kind
    """Format a cell: six decimals, empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def outdated_runs(results: Path, runs: Iterable[Run], folds: Collection[str] = ("",)) -> set[Run]:
    """Find runs that were trained again since they were scored: their scores may be of other settings.

    The log of a training has its time, also if it failed. Weights do not: they get new times when they are copied,
    and may be deleted where a published model is kept. Pooled scores need the trainings of all folds.
    """
    outdated = set()
    for run in runs:
        scores = results / "evaluate" / run.name / "metrics.json"
        logs = [results / fold / "logs" / "finetune" / f"{run.name}.log" for fold in folds]
        trained = max((log.stat().st_mtime for log in logs if log.exists()), default=0.0)
        if scores.exists() and scores.stat().st_mtime < trained:
            outdated.add(run)
    return outdated


@dataclass(frozen=True, order=True)
class Cell:
    """Runs that differ in the draw of their labels and in their seed only."""

    network: str
    variant: str
    method: str
    budget: Budget

    @classmethod
    def of(cls, run: Run) -> Cell:
        """The cell of a run."""
        return cls(run.network, run.variant, run.method, run.budget)

    @property
    def series(self) -> str:
        """Name without the labels, such as `mssnet-corrected__tmcnet`."""
        return f"{self.network}-{self.variant}__{self.method}"


@dataclass(frozen=True)
class Scored:
    """The counts of a cell's runs.

    Attributes:
        replicates: Draw of the labels and seed of each of the R runs, ascending.
        counts: R x B x K x K confusion matrices by run and spatial block.
        boundary: R x B x K x 4 boundary pixels, as `boundary_counts` has them.
    """

    replicates: tuple[Replicate, ...]
    counts: Counts
    boundary: Counts

    def only(self, replicates: Sequence[Replicate]) -> Counts:
        """The matrices of these runs, in this order."""
        return np.asarray(self.counts[[self.replicates.index(one) for one in replicates]])


def repetitions(replicates: Sequence[Replicate]) -> dict[str, int]:
    """Return the number of runs, label draws and seeds: `n_runs`, `n_draws`, `n_seeds`."""
    draws, seeds = ({one[place] for one in replicates} for place in (0, 1))
    return {"n_runs": len(replicates), "n_draws": len(draws), "n_seeds": len(seeds)}


@dataclass(frozen=True)
class TileCounts:
    """The counts of all runs by test tile.

    Attributes:
        tiles: Names of the T tiles.
        blocks: Their spatial blocks.
        runs: T x K x K confusion matrices and T x K x 4 boundary pixels of each run.
        divided: Their scenes, or values of a column, where parts are divided by these.
    """

    tiles: list[str]
    blocks: list[str]
    runs: dict[Run, tuple[Counts, Counts]]
    divided: list[str] | None = None

    def cells(self, kept: Collection[str] | None = None) -> dict[Cell, Scored]:
        """Return the sums by unit over all tiles, or over those `kept`; nothing if none of these is labelled.

        Units are what was divided, if there are `MIN_UNITS` of them, or else spatial blocks: how few scenes differ
        is unknown.
        """
        places = [i for i, tile in enumerate(self.tiles) if kept is None or tile in kept]
        units = [(self.divided or self.blocks)[i] for i in places]
        if len(set(units)) < MIN_UNITS:
            units = [self.blocks[i] for i in places]
        sums = {run: sum_by_block(units, *(of[places] for of in found)) for run, found in self.runs.items()}
        members: dict[Cell, list[Run]] = {}
        for run in self.runs if any(of_run[0].size for of_run in sums.values()) else ():
            members.setdefault(Cell.of(run), []).append(run)
        return {
            cell: Scored(
                tuple((run.draw, run.seed) for run in runs),
                *map(np.stack, zip(*(sums[run] for run in runs), strict=True)),
            )
            for cell, runs in sorted(members.items())
        }


def read_counts(
    evaluate_root: Path, runs: Sequence[Run], blocks: Mapping[str, str], divided: Mapping[str, str] | None = None
) -> TileCounts:
    """Read the confusion matrices and boundary pixels of scored runs, for tiles in blocks and in what was divided.

    Raises:
        InputError: If runs were scored on different test tiles or classes, or on tiles that are not known.
    """
    found: dict[Run, tuple[Counts, Counts]] = {}
    names: list[str] = []
    problems = []
    for run in sorted(runs):
        path = evaluate_root / run.name / "tiles.npz"
        with reading(path), np.load(path, allow_pickle=False) as file:
            tiles, confusion, boundary = file["names"].astype(str).tolist(), file["confusion"], file["boundary"]
        names = names or tiles
        shape = next(iter(found.values()))[0].shape[1:] if found else confusion.shape[1:]
        if tiles != names or confusion.shape[1:] != shape:
            what = f"was scored on other test tiles or classes than {next(iter(found)).name}"
            problems.append(Problem(str(path), what, "Evaluate both again on the same split."))
            continue
        unknown = [tile for tile in tiles if tile not in blocks]
        if unknown:
            what = f"was scored on {len(unknown)} tiles that are not in the index, such as {unknown[0]}"
            problems.append(Problem(str(path), what, "Evaluate again on the current tiles."))
            continue
        found[run] = confusion, boundary
    if problems:
        raise InputError(problems)
    groups = [divided[tile] for tile in names] if divided else None
    return TileCounts(names, [blocks[tile] for tile in names], found, groups)


def intervals(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> Iterator[tuple[Cell, str, Interval]]:
    """Yield the mean over runs of every headline score and of boundary F1 of every cell, with its interval."""
    for cell, scored in cells.items():
        random = generator(config.seed, "interval", cell.series, cell.budget.name)
        blocks = scored.counts.shape[1]
        resamples = Resamples.draw(blocks, effects_of(scored.replicates), config.bootstrap, random)
        estimates = {m: interval(score, scored.counts, resamples, config.confidence) for m, score in HEADLINE.items()}
        boundary = interval(
            lambda counts: class_mean(boundary_f1(counts)), scored.boundary, resamples, config.confidence
        )
        for metric, estimate in (estimates | {"boundary_f1": boundary}).items():
            # a limit that was widened for few units may leave the range of the score
            lowest = -1.0 if metric == "kappa" else 0.0
            yield cell, metric, replace(estimate, low=max(estimate.low, lowest), high=min(estimate.high, 1.0))


def compare(cells: Mapping[Cell, Scored], config: EvaluateConfig) -> list[dict[str, Any]]:
    """Return paired differences between methods of one network, between networks of one method, and between labels.

    Pixel-wise baselines have one method only and are compared with networks of any method. Runs of the same draw
    and seed in both cells are paired. Of each network and method, the most labels are compared with fewer, by runs
    of the same seed. P-values are corrected for the number of comparisons of a metric (Holm), those between labels
    apart from the others.

    Returns:
        One row per comparison and metric: kind, a, b, fraction, points, b_fraction, b_points, metric, n_runs,
        n_draws, n_seeds, n_blocks, difference (a - b), low, high, p, p_holm, significant.
    """
    pairs = [(kind, a, b) for a, b in combinations(sorted(cells), 2) if (kind := _kind(a, b, cells))]
    pairs = [(kind, a, b) for kind, a, b in pairs if _paired(a, b, cells)]
    rows = []
    for family in (False, True):
        members = [pair for pair in pairs if (pair[0] == LABELS) == family]
        compared = [row for kind, a, b in members for row in _compare(kind, a, b, cells, config)]
        for metric in HEADLINE:
            of_metric = [row for row in compared if row["metric"] == metric]
            for row, p in zip(of_metric, holm([row["p"] for row in of_metric]), strict=True):
                row["p_holm"] = p
                row["significant"] = bool(p < 1 - config.confidence and _enough(row))
        rows += compared
    return rows


def _paired(a: Cell, b: Cell, cells: Mapping[Cell, Scored]) -> list[tuple[Replicate, Replicate]]:
    """Return the runs of both cells that belong together: of one draw and seed, or of one seed against all labels."""
    pairs = [(x, y) for y in cells[b].replicates for x in cells[a].replicates]
    if a.budget.is_all or b.budget.is_all:
        return [(x, y) for x, y in pairs if x[1] == y[1]]
    return [(x, y) for x, y in pairs if x == y]


def _enough(row: Mapping[str, Any]) -> bool:
    """Return whether a difference has enough seeds and, below 100 % of the labels, enough draws."""
    fewer_than_all = row["fraction"] != 100 or row["kind"] == LABELS
    return bool(row["n_seeds"] >= MIN_REPLICATES and (not fewer_than_all or row["n_draws"] >= MIN_REPLICATES))


def _kind(a: Cell, b: Cell, cells: Iterable[Cell]) -> str | None:
    """Return `method`, `network` or, if one has the most labels of its series, `labels`: what cells differ in."""
    same_network = (a.network, a.variant) == (b.network, b.variant)
    if a.budget != b.budget:
        most = max(cell.budget for cell in cells if cell.series == a.series)
        return LABELS if a.series == b.series and most in (a.budget, b.budget) else None
    if same_network:
        return "method"
    comparable = a.method == b.method or not all(has_start(cell.network, cell.method) for cell in (a, b))
    return "network" if comparable else None


def _compare(
    kind: str, a: Cell, b: Cell, cells: Mapping[Cell, Scored], config: EvaluateConfig
) -> Iterator[dict[str, Any]]:
    if kind == LABELS:
        a, b = sorted((a, b), key=lambda cell: cell.budget, reverse=True)
    of_a, of_b = zip(*_paired(a, b, cells), strict=True)
    counts_a, counts_b = cells[a].only(of_a), cells[b].only(of_b)
    fewer = b.budget if kind == LABELS else None
    names = (a.series, b.series, a.budget.name, *([fewer.name] if fewer else []))
    random = generator(config.seed, "comparison", *names)
    resamples = Resamples.draw(counts_a.shape[1], effects_of(of_b), config.bootstrap, random)
    for metric, score in HEADLINE.items():
        estimated = difference(score, counts_a, counts_b, resamples, config.confidence)
        yield {
            "kind": kind,
            "a": a.series,
            "b": b.series,
            "fraction": a.budget.fraction,
            "points": a.budget.points,
            "b_fraction": fewer.fraction if fewer else None,
            "b_points": fewer.points if fewer else None,
            "metric": metric,
            **repetitions(of_b),
            "n_blocks": counts_a.shape[1],
            "difference": estimated.estimate,
            "low": estimated.low,
            "high": estimated.high,
            "p": estimated.p,
        }
