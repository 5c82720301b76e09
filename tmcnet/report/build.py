"""Build the report from a results folder."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

from tmcnet import __version__
from tmcnet.config import Config
from tmcnet.report import sections_data, sections_maps, sections_record, sections_scores
from tmcnet.report.blocks import Figure, Row, Section, Table
from tmcnet.report.imagery import Painter
from tmcnet.report.page import render_page
from tmcnet.report.results import Results


def build(results: Path, config: Config, out: Path, provenance: dict[str, str]) -> None:
    """Write the report: one self-contained HTML file, and its figures and tables beside it.

    Whatever stage has not run yet is named on the page instead of failing.

    Args:
        results: The results folder.
        config: The config that it was made with.
        out: The HTML file. Figures and tables go to `results/report/figures` and `results/report/tables`.
        provenance: What it takes to reproduce the page, as shown: `command`, `version`, `git_commit`, `dirty`, ...
    """
    found = Results(results, config)
    folder = results / "report"
    shutil.rmtree(folder, ignore_errors=True)
    painter = Painter(found, folder / "figures")
    sections = [
        sections_record.summary(found),
        sections_data.inventory(found),
        sections_data.alignment(found),
        sections_data.tiles(found),
        sections_data.splits(found),
        sections_scores.pretrain(found),
        sections_scores.finetune(found),
        sections_scores.scores(found),
        sections_scores.classes(found),
        sections_scores.calibration(found),
        sections_maps.maps(found, painter),
        sections_maps.extremes(found),
        sections_record.time(found),
        sections_record.reproduce(found, provenance),
        sections_record.reading(),
    ]
    save_files(sections, folder)
    subtitle = f"Data set {config.name}, made with tmcnet {__version__}"
    text = render_page(config.report.title, subtitle, sections)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(out)


def save_files(sections: list[Section], folder: Path) -> None:
    """Write every chart as SVG and every table as CSV."""
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    blocks = [b for section in sections for b in section.blocks]
    for block in [*blocks, *(f for b in blocks if isinstance(b, Row) for f in b.figures)]:
        if isinstance(block, Figure):
            (folder / "figures" / f"{block.name}.svg").write_text(str(block.svg), encoding="utf-8")
        elif isinstance(block, Table):
            _save_table(block, folder / "tables" / f"{block.name}.csv")


def _save_table(table: Table, path: Path) -> None:
    if table.frame is not None:
        table.frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6f")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.rows)
