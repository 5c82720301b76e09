"""Build the report from a results folder."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tmcnet import __version__
from tmcnet.config import Config
from tmcnet.report import sections_ablations, sections_data, sections_maps, sections_record, sections_scores
from tmcnet.report.blocks import Section, Table
from tmcnet.report.imagery import Painter
from tmcnet.report.page import render_page
from tmcnet.report.results import Results

LARGEST = 15_000_000
"""Bytes that the page must stay below."""
_DETAILS = (1.0, 0.7, 0.5, 0.35, 0.2)
"""Shares of the usual side of pictures, tried in turn until the page is light enough."""


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
    before, between, after = _without_pictures(found, provenance)
    subtitle = f"Data set {config.name}, made with tmcnet {__version__}"

    def page(detail: float) -> tuple[list[Section], str]:
        painter = Painter(found, folder / "figures", detail)
        maps, extremes = sections_maps.maps(found, painter), sections_maps.extremes(found, painter)
        alignment = sections_data.alignment(found, painter)
        sections = [*before, alignment, *between, maps, extremes, *after]
        return sections, render_page(config.report.title, subtitle, sections)

    sections, text = light_enough(page)
    save_files(sections, folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(out)


def _without_pictures(found: Results, provenance: dict[str, str]) -> tuple[list[Section], ...]:
    """Sections before the alignment, between it and the maps, and after the maps."""
    return (
        [sections_record.summary(found), sections_data.inventory(found)],
        [
            sections_data.tiles(found),
            sections_data.splits(found),
            sections_scores.pretrain(found),
            sections_scores.finetune(found),
            sections_scores.scores(found),
            sections_ablations.ablations(found),
            sections_scores.classes(found),
            sections_scores.calibration(found),
        ],
        [
            sections_record.time(found),
            sections_record.reproduce(found, provenance),
            sections_record.reading(),
        ],
    )


def light_enough(
    page: Callable[[float], tuple[list[Section], str]], largest: int = LARGEST
) -> tuple[list[Section], str]:
    """The page with the sharpest pictures that keep it below `largest` bytes, or with the smallest there are.

    Args:
        page: Makes sections and text with pictures of a share of their usual side.
        largest: In bytes.
    """
    for detail in _DETAILS:
        sections, text = page(detail)
        if len(text.encode()) < largest:
            break
    return sections, text


def save_files(sections: list[Section], folder: Path) -> None:
    """Write every chart as SVG and every table as CSV."""
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for section in sections:
        for chart in section.charts():
            (folder / "figures" / f"{chart.name}.svg").write_text(str(chart.svg), encoding="utf-8")
        for block in section.blocks:
            if isinstance(block, Table):
                _save_table(block, folder / "tables" / f"{block.name}.csv")


def _save_table(table: Table, path: Path) -> None:
    if table.frame is not None:
        table.frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6f")
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.rows)
