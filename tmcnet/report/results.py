"""A results folder as the report reads it: every file typed, every missing file an empty record."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tmcnet.classes import ClassTable
from tmcnet.config import Config, Run
from tmcnet.evaluate.metrics import headline
from tmcnet.evaluate.summary import with_names
from tmcnet.readers import number, read_json, read_table
from tmcnet.report.charts import Styles
from tmcnet.report.scores import Scores
from tmcnet.splits.files import read_list
from tmcnet.store import TileStore

Matrix = npt.NDArray[np.float64]


class Results:
    """The content of a results folder, read on first use; `metric` is that of headline and verdict.

    The scores and maps of `outdated` runs are not shown.
    """

    def __init__(self, root: Path, config: Config, outdated: Collection[Run] = ()) -> None:
        self.root, self.outdated = root, outdated
        self.config = config
        self.metric = config.report.metric
        self.scores = Scores(root)

    @cached_property
    def classes(self) -> ClassTable:
        """Classes with their names and colours: of the config, else of the tiles, else of a map."""
        if self.config.labels.classes:
            return ClassTable.of((c.name, c.color) for c in self.config.labels.classes)
        path = self.root / "tiles" / "classes.csv"
        if path.exists():
            return ClassTable.read(path)
        records = [read_json(record) for record in sorted((self.root / "maps").glob("*/.*.json"))]
        return ClassTable.of(next((record["classes"] for record in records if record.get("classes")), ()))

    def trained_scores(self, source: str) -> dict[str, float]:
        """Scores of a network from a file on the test blocks of its training, and their number; empty if unknown."""
        records = (read_json(record) for record in sorted((self.root / "maps").glob(f"*/.{source}.json")))
        blocks = np.array(next((record["blocks"] for record in records if record.get("blocks")), []))
        return {"blocks": len(blocks), **headline(blocks.sum(axis=0))} if len(blocks) else {}

    @cached_property
    def store(self) -> TileStore:
        """The tiles."""
        return TileStore(self.root / "tiles")

    @cached_property
    def styles(self) -> Styles:
        """Colours and markers of the series."""
        return Styles(self.scores.series)

    @cached_property
    def inventory(self) -> pd.DataFrame:
        """`inventory.csv`, all cells as text."""
        return read_table(self.root / "inventory.csv", as_text=True)

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """The scenes or tiles of `inventory.json`."""
        entries = read_json(self.root / "inventory.json").get("entries")
        return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []

    @cached_property
    def study(self) -> bool:
        """Whether there is a scene to learn from. Without one, networks from files only draw maps."""
        return not self.entries or any(entry.get("role", "train") == "train" for entry in self.entries)

    @cached_property
    def tested(self) -> tuple[int, str]:
        """Number and kind of the spatial units that scores rest on: blocks, or scenes or tiles without blocks."""
        parts = {"train", "val", "test"} if self.config.splits.folds else {"test"}  # folds together test every block
        blocks = sum(block.get("part") in parts for block in self.manifest.get("blocks", []))
        return (blocks, "test block") if blocks else (len(self.parts.get("test", [])), "test tile")

    @cached_property
    def index(self) -> pd.DataFrame:
        """`tiles/index.csv`; tile and scene as text."""
        text = read_table(self.root / "tiles" / "index.csv", as_text=True)
        columns = [
            c for c in text if c in ("row", "col", "height", "width") or re.match("(valid_|label_)?share", str(c))
        ]
        return text.assign(**{str(c): pd.to_numeric(text[c], errors="coerce") for c in columns})

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """`splits/manifest.json`."""
        return read_json(self.root / "splits" / "manifest.json")

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """Tile names of train, val and test, from the list files."""
        paths = {part: self.root / "splits" / f"{part}_RGB.txt" for part in ("train", "val", "test")}
        return {part: read_list(path) for part, path in paths.items() if path.exists()}

    def labelled_for(self, run: Run) -> set[str]:
        """Tiles whose labels a run has seen, from its list; those of the whole training part without one."""
        path = self.root / "splits" / f"{run.subset}_RGB.txt"
        return set(read_list(path) if path.exists() else self.parts.get("train", []))

    @cached_property
    def alignments(self) -> dict[str, dict[str, Any]]:
        """`alignment.json` per scene."""
        paths = sorted((self.root / "scenes").glob("*/alignment.json"))
        return {p.parent.name: record for p in paths if (record := read_json(p))}

    def curves(self, stage: str, name: str) -> pd.DataFrame:
        """`curves.csv` of one training; empty without steps."""
        table = read_table(self.root / stage / name / "curves.csv")
        return table if "step" in table else pd.DataFrame()

    def summary(self, stage: str, name: str) -> dict[str, Any]:
        """`summary.json` of one training."""
        return read_json(self.root / stage / name / "summary.json")

    def evaluation(self, run: Run) -> dict[str, Any]:
        """`metrics.json` of one run, with the classes under their present names."""
        return with_names(read_json(self.root / "evaluate" / run.name / "metrics.json"), self.classes.names)

    def confusion(self, run: Run) -> Matrix | None:
        """Confusion matrix of one run (K x K pixels, rows truth); None where it does not fit the classes."""
        matrix = np.array(self.evaluation(run).get("confusion", []), float)
        return matrix if matrix.shape == (len(self.classes),) * 2 else None

    def tile_scores(self, run: Run) -> pd.DataFrame:
        """Overall accuracy (NaN without labels) and labelled pixels of each test tile; empty without `tiles.npz`."""
        try:
            with np.load(self.root / "evaluate" / run.name / "tiles.npz", allow_pickle=False) as file:
                names, scenes, confusion = file["names"].astype(str), file["scenes"].astype(str), file["confusion"]
        except (OSError, KeyError, ValueError):
            return pd.DataFrame()
        table = pd.DataFrame({"tile": names, "scene": scenes, "pixels": confusion.sum((1, 2))})
        table["oa"] = np.trace(confusion, axis1=1, axis2=2) / table["pixels"].where(table["pixels"] > 0)
        return table

    def areas(self, source: str) -> pd.DataFrame:
        """`maps/<run>_areas.csv` of a run or model: areas of the classes by scene and in all; empty without it."""
        table = read_table(self.root / "maps" / f"{source}_areas.csv", as_text=True)
        numbers = [c for c in table if c not in ("scene", "class", "assumption")]
        return table.assign(**{str(c): pd.to_numeric(table[c], errors="coerce") for c in numbers})

    @cached_property
    def scored(self) -> list[Run]:
        """Evaluated runs of the sweep."""
        current = [run for run in self.config.runs if run not in self.outdated]
        return [run for run in current if (self.root / "evaluate" / run.name / "metrics.json").exists()]

    @cached_property
    def missing(self) -> list[Run]:
        """Runs of the sweep without an evaluation."""
        return [run for run in self.config.runs if run not in self.scored]

    @cached_property
    def best_runs(self) -> list[Run]:
        """The best evaluated run of each network with its largest label budget."""
        return [run for run in self.scores.best(self.metric).values() if self.evaluation(run)]

    def score(self, run: Run) -> float:
        """Headline score of a run for sorting; -1 without one."""
        return float(np.nan_to_num(number(self.evaluation(run).get(self.metric)), nan=-1.0))

    def reason(self, run: Run) -> str:
        """Why a run has no scores: the last line of its latest log; empty without a log."""
        folders = [self.root, *self.root.glob("folds/*")]
        logs = [at / "logs" / stage / f"{run.name}.log" for at in folders for stage in ("finetune", "evaluate")]
        latest = max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)
        lines = [line.strip() for line in latest.read_text(errors="replace").splitlines()] if latest else []
        return next((line.removeprefix("- ") for line in reversed(lines) if line), "")

    @cached_property
    def majority(self) -> tuple[str, float] | None:
        """Most frequent class of the test truth and its share, which is the OA of always predicting it."""
        for run in self.scored:
            truth = self.confusion(run)
            if truth is not None and truth.any():
                pixels = truth.sum(1)
                return self.classes.names[int(pixels.argmax())], float(pixels.max() / pixels.sum())
        return None

    @cached_property
    def benchmarks(self) -> pd.DataFrame:
        """Seconds, CPU seconds, peak memory in MiB and number of jobs per stage, from Snakemake's benchmark files."""
        rows = []
        folders = [self.root / "benchmarks", *sorted(self.root.glob("folds/*/benchmarks"))]
        for path in sorted(path for folder in folders for path in folder.rglob("*.tsv")):
            table = read_table(path, as_text=True, separator="\t")
            stage = path.relative_to(self.root).as_posix().split("benchmarks/")[1].split("/")[0].removesuffix(".tsv")
            keys = ("s", "cpu_time", "max_rss")
            rows += [(stage, *(number(r.get(key)) for key in keys)) for r in table.to_dict("records")]
        frame = pd.DataFrame(rows, columns=["stage", "seconds", "cpu_seconds", "memory"])
        return frame.groupby("stage", sort=False).agg(
            jobs=("seconds", "size"),
            seconds=("seconds", "sum"),
            longest=("seconds", "max"),
            cpu_seconds=("cpu_seconds", "sum"),
            memory=("memory", "max"),
        )
