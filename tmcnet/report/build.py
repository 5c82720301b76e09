"""Build the report from a results folder: numbers and figures from Python, sentences from the templates."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Collection
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tmcnet import __version__
from tmcnet.config import Budget, Config, Run
from tmcnet.hashing import bytes_digest
from tmcnet.raster.io.writer import write_bytes
from tmcnet.readers import number, read_json, read_table
from tmcnet.report import names, sections_data, sections_maps, sections_scores, sections_training
from tmcnet.report.pictures import Painter
from tmcnet.report.results import Results
from tmcnet.report.scores import ALL_METRICS

MAX_BYTES = 15_000_000
"""Size that the page must stay below."""
_DETAILS = (1.0, 0.7, 0.5, 0.35, 0.2)
"""Factors of the side of pictures, tried in this order until the page is small enough."""
_SCRIPTS = ("viewer.js", "readings.js")
_LINE_BREAKS = re.compile(r"[ \n]+")

Sections = dict[str, dict[str, Any]]
"""Values for the templates by section. `figures` (SVG) and `tables` (full precision) are also saved as files."""


def build(
    results: Path, config: Config, out: Path, provenance: dict[str, str], outdated: Collection[Run] = ()
) -> None:
    """Write the report: one self-contained HTML file, and its figures and tables in `results/report`.

    The page names stages without results; they are no error. Without a scene to learn from it has maps only. The
    `provenance` is what is needed to reproduce it: `version`, `git_commit`, `git_dirty`, `data_record`, ... Runs that
    are `outdated` count as missing.

    Raises:
        InputError: If the HTML file cannot be written.
    """
    found = Results(results, config, outdated)
    folder = results / "report"
    shutil.rmtree(folder, ignore_errors=True)
    areas = sections_maps.areas(found)
    fixed = {
        "areas": {"areas": areas, "tables": {"areas": areas["table"]} if areas["found"] else {}},
        "data": sections_data.data(found),
        "time": time(found),
        "reproduce": reproduce(found, provenance),
        **(_study(found) if found.study else {}),
    }
    subtitle = f"Data set {config.name}, made with tmcnet {__version__}"

    def page(detail: float) -> tuple[Sections, str]:
        painter = Painter(found, folder / "figures", detail)
        pictured = {
            "result": sections_maps.result(found, painter),
            "alignment": sections_data.alignment(found, painter),
            "maps": sections_maps.maps(found, painter),
            **({"extremes": sections_maps.extremes(found, painter)} if found.study else {}),
        }
        return fixed | pictured, render_page(config.report.title, subtitle, fixed | pictured)

    sections, text = limit_size(page)
    save_files(sections, folder)
    write_bytes(out, text.encode())


def _study(results: Results) -> Sections:
    """The sections that need labels and trainings."""
    return {
        "tiles": sections_data.tiles(results),
        "splits": sections_data.splits(results),
        "pretraining": sections_training.pretraining(results),
        "finetuning": sections_training.finetuning(results),
        "scores": sections_scores.scores(results),
        "ablations": sections_scores.ablations(results),
        "classes": sections_scores.classes(results),
        "calibration": sections_scores.calibration(results),
        "reading": {},
    }


def limit_size(page: Callable[[float], tuple[Sections, str]], max_bytes: int = MAX_BYTES) -> tuple[Sections, str]:
    """Make the page with the sharpest pictures that keep it below `max_bytes`, or with the smallest ones.

    `page` makes sections and text with a factor of the side of pictures.
    """
    for detail in _DETAILS:
        sections, text = page(detail)
        if len(text.encode()) < max_bytes:
            break
    return sections, text


def save_files(sections: Sections, folder: Path) -> None:
    """Write every chart as SVG and every table as CSV."""
    for kind in ("figures", "tables"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for section in sections.values():
        for name, svg in section.get("figures", {}).items():
            (folder / "figures" / f"{name}.svg").write_text(str(svg), encoding="utf-8")
        for name, table in section.get("tables", {}).items():
            path = folder / "tables" / f"{name}.csv"
            table.to_csv(path, index=False, lineterminator="\n", float_format="%.6f")


def render_page(title: str, subtitle: str, sections: Sections) -> str:
    """Render the page; `page.html` has the order and the headings of the sections.

    Everything from data or config is escaped. The page's own script is the only one that browsers run: its hash is in
    the content security policy.
    """
    here = files("tmcnet.report")
    script = "".join(here.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(bytes.fromhex(bytes_digest(script))).decode("ascii")
    template = environment().get_template("page.html")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections={name: render_section(name, values) for name, values in sections.items()},
        style=Markup(here.joinpath("style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def render_section(name: str, values: dict[str, Any]) -> Markup:
    """Render the template of one section, without its heading."""
    return Markup(environment().get_template(f"{name}.html").render(values))


@cache
def environment() -> Environment:
    """The templates, and filters for names and numbers."""
    made = Environment(
        loader=PackageLoader("tmcnet.report"),
        extensions=["jinja2.ext.do"],
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "area": names.area_text,
        "cell": _cell,
        "duration": names.duration,
        "in_sentence": lambda x: (names.Series.of(x) if isinstance(x, Run) else x).in_sentence,
        "labels": names.labels_text,
        "labels_phrase": names.labels_phrase,
        "number": names.number_text,
        "one_line": _one_line,
        "plural": names.plural,
        "replicate": names.replicate,
        "metres": names.metres,
        "run_label": lambda run: names.Series.of(run).label,
        "start": names.method_label,
    }
    made.globals |= {
        "interval": names.interval_text,
        "metric_names": names.METRIC_NAMES,
        "series": lambda row: names.Series(row["network"], row["variant"], row["method"]),
    }
    return made


def _cell(value: object, style: int | str | None = None) -> str:
    """Text of a table cell: `style` is a number of decimals, `percent`, `labels`, `duration`, or None for text."""
    if isinstance(style, int):
        return names.number_text(number(value), style)
    if style == "percent":
        return names.number_text(100 * number(value), 1)
    if style == "labels":
        return names.labels_text(Budget.parse(str(value)))
    if style == "duration":
        return names.duration(number(value))
    return str(value)


def _one_line(text: str) -> Markup:
    """The text without line breaks and repeated spaces, for attributes; no-break spaces stay."""
    return Markup(_LINE_BREAKS.sub(" ", escape(text)).strip())


def time(results: Results) -> dict[str, Any]:
    """Time and memory of the stages."""
    table = results.benchmarks
    if table.empty:
        return {"tables": {}}
    sums = {f"total_{key}": float(table[key].sum()) for key in ("seconds", "cpu_seconds")}
    return {**sums, "tables": {"time": table.reset_index()}}


def reproduce(results: Results, provenance: dict[str, str]) -> dict[str, Any]:
    """Versions of code, data, config and libraries, and the records in MLflow."""
    tracked = read_table(results.root / "tracking.csv", as_text=True)
    urls = list(tracked["url"]) if "url" in tracked else [""] * len(tracked)
    shown = [str(column) for column in tracked.columns if column != "url"]
    links = read_json(results.root / "tracking.json").get("links")
    versions = pd.DataFrame(library_versions().items(), columns=["library", "version"]).replace("", "not installed")
    return {
        "provenance": provenance,
        "study": results.study,
        "config": yaml.safe_dump(results.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "run_count": len(results.scores.table),
        "run_table": _runs_text(results),
        "links": [link for link in links if is_web_address(link.get("url"))] if isinstance(links, list) else [],
        "columns": [(column.replace("_", " ").capitalize(), None, column) for column in shown],
        "recorded": tracked.assign(link=[url if is_web_address(url) else "" for url in urls]),
        "tables": {"versions": versions} | ({} if tracked.empty else {"tracking": tracked}),
    }


def _runs_text(results: Results) -> str:
    """Scores of all runs as text; empty without any."""
    table = results.scores.table
    if table.empty:
        return ""
    keys = ["network", "variant", "method", "fraction", "points", "draw", "seed"]
    columns = [column for column in (*keys, *ALL_METRICS) if column in table]
    return str(table[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}"))


def library_versions() -> dict[str, str]:
    """Versions of the libraries that this package requires; empty for one that is not installed."""
    named = {re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requires("tmcnet") or [] if "extra ==" not in text}
    return {name: _version(name) for name in sorted(named)}


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def is_web_address(address: object) -> bool:
    """Whether an address from a file leads to a web page, and not to a script."""
    return isinstance(address, str) and address.startswith(("http://", "https://"))
