"""Sections that open and close the page: the summary, time, how to reproduce, how to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

import yaml

from tmcnet.config import RANDOM_START
from tmcnet.report.blocks import (
    DASH,
    Block,
    Code,
    Details,
    Facts,
    Link,
    Note,
    Section,
    Table,
    Text,
    Verdict,
    labels_text,
    number_text,
    plural,
)
from tmcnet.report.figures_scores import label_efficiency
from tmcnet.report.files import read_json, read_table
from tmcnet.report.palette import network_label, series_order
from tmcnet.report.results import Results
from tmcnet.report.sections_scores import runs_table
from tmcnet.report.verdict import lead, verdict

GLOSSARY = (
    (
        "Values of charts",
        "Point at a mark, or go to a chart with the Tab key and step through its marks with the arrow keys.",
    ),
    (
        "Overall accuracy (OA)",
        "The share of labelled test pixels whose class is right. Frequent classes dominate it.",
    ),
    (
        "Cohen's kappa",
        "Agreement beyond what guessing with the same class frequencies would reach: 0 is guessing, 1 is perfect.",
    ),
    (
        "IoU and mIoU",
        "For a class: the pixels that truth and map both call so, divided by those that either calls so. mIoU is the "
        "mean over classes, so rare classes count as much as frequent ones.",
    ),
    (
        "F1",
        "The harmonic mean of how much of a class was found (recall) and how much of what was called so is right "
        "(precision).",
    ),
    (
        "Interval",
        "Where the figure may well lie, given that the test tiles are a sample: blocks of test tiles are drawn again "
        "and again with replacement. It does not cover other places, dates or sensors. From one seed it does not "
        "cover other draws of labels and starts either, so a difference seen with one seed is never called reliable.",
    ),
    (
        "Boundary F1",
        "F1 of the outlines of classes: a predicted boundary pixel is right where a true one of the same class lies "
        "within a few pixels.",
    ),
    ("Calibration, ECE", "Of pixels mapped with 80 % confidence, 80 % should be right. ECE is the mean gap."),
    ("Label fraction", "The share of training tiles whose labels the network saw; pre-training sees images only."),
    ("Points", "Labelled pixels of each class, drawn over all training tiles; no other label was seen."),
    ("Draw", "Which tiles or pixels are labelled is drawn at random, several times: such a drawing, by its number."),
    ("Random start", "The network learns from labels alone. What pre-training is worth is judged against it."),
    (
        "Variant",
        "“reference” follows the published code, “corrected” mends its defects and goes unnamed in figures.",
    ),
)


def summary(results: Results) -> Section:
    """For a reader in a hurry: what data, what was run, the headline figure and the verdict."""
    section = Section("summary", "In short")
    section.blocks.append(Facts(_facts(results)))
    if not results.scores.table.empty:
        section.blocks.append(label_efficiency(results, results.config.report.metric, "headline"))
    section.blocks.append(Verdict(lead(results), verdict(results)))
    return section


def _facts(results: Results) -> list[tuple[str, str]]:
    config, index = results.config, results.index
    source = {
        "demo": "simulated scenes",
        "scenes": "scenes",
        "tiles": "ready-made tiles",
        "seed": "a folder in the seed layout",
    }
    data = f"{config.name}: {source[config.source.layout]}"
    if not index.empty and "scene" in index:
        scenes = index["scene"].nunique()
        data += f", {plural(len(index), 'tile')}" + (
            f" from {plural(scenes, 'scene')}" if scenes < len(index) else ""
        )
    optical, sar = config.sensors["optical"], config.sensors["sar"]
    sensors = f"optical ({', '.join(optical.bands)}) and {sar.kind} ({', '.join(sar.bands)})"
    sensors += "".join(f", {name} ({', '.join(s.bands)})" for name, s in config.sensors.others.items())
    parts = ", ".join(f"{len(t)} {p}" for p, t in results.parts.items()) or "not divided yet"
    networks = dict.fromkeys(network_label(r.network, r.variant) for r in sorted(config.runs, key=series_order))
    starts = dict.fromkeys("random start" if r.method == RANDOM_START else r.method for r in config.runs)
    budgets = sorted({r.budget for r in config.runs})
    fractions, points = ([b for b in budgets if b.kind == kind] for kind in ("R", "P"))
    labels = [f"{', '.join(map(labels_text, fractions))} of the training tiles"] if fractions else []
    labels += [f"{', '.join(map(labels_text, points))} of each class"] if points else []
    draws, seeds = (len({getattr(r, what) for r in config.runs}) for what in ("draw", "seed"))
    done = f"{len(results.scored)} of {plural(len(config.runs), 'run')}"
    return [
        ("Data", data),
        ("Sensors", sensors),
        ("Classes", f"{len(results.classes)}: {', '.join(results.classes.names)}"),
        ("Tiles per part", parts),
        ("Networks", ", ".join(networks)),
        ("Starts", ", ".join(starts)),
        ("Labels used", f"{'; '.join(labels)}; {plural(draws, 'draw')}, {plural(seeds, 'seed')}"),
        ("Evaluated", done),
    ]


def time(results: Results) -> Section:
    """Where the time went."""
    section = Section("time", "Time and memory")
    table = results.benchmarks
    if table.empty:
        section.blocks.append(Note("There are no benchmark files (benchmarks/), so times are unknown."))
        return section
    rows = [
        [
            str(stage),
            str(int(r["jobs"])),
            *(duration(r[key]) for key in ("seconds", "longest", "cpu_seconds")),
            number_text(r["memory"], 0),
        ]
        for stage, r in table.iterrows()
    ]
    wall, cpu = (float(table[key].sum()) for key in ("seconds", "cpu_seconds"))
    section.blocks.append(
        Text(
            f"Jobs took {duration(wall)} one after the other; those that ran side by side count each. Their cost in "
            f"processor time is {cpu / 3600:.2f} core-hours; time on a GPU is not in it."
        )
    )
    columns = ["Stage", "Jobs", "Time", "Longest job", "CPU time", "Peak memory (MiB)"]
    numeric = frozenset(range(1, len(columns)))
    section.blocks.append(
        Table("time", "Time, cost and memory per stage.", columns, rows, numeric, frame=table.reset_index())
    )
    return section


def duration(seconds: float) -> str:
    """Seconds for readers: `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds != seconds:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def reproduce(results: Results, provenance: dict[str, str]) -> Section:
    """What it takes to get the same page again."""
    section = Section("reproduce", "How to reproduce")
    section.blocks += _commands(provenance)
    known = [(k.replace("_", " "), v) for k, v in provenance.items()]
    if "manifest_sha256" not in provenance:
        known.append(("manifest sha256", results.manifest_hash or "no manifest"))
    section.blocks.append(Facts(known))
    text = yaml.safe_dump(results.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    section.blocks.append(Details("Config with all defaults", text))
    if runs := runs_table(results):
        section.blocks.append(runs)
    section.blocks.append(_versions())
    section.blocks += _tracked(results)
    return section


def _versions() -> Table:
    """Versions of what this package asks for, as installed where the report is made."""
    named = (re.match(r"[\w.-]+", text) for text in requires("tmcnet") or [] if "extra ==" not in text)
    rows = [[name, _version(name)] for name in sorted({match[0] for match in named if match})]
    return Table("versions", "Versions of the libraries.", ["Library", "Version"], rows)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _tracked(results: Results) -> Iterator[Block]:
    """Where the runs stand in MLflow; those whose files are gone are left out."""
    tracked = read_table(results.root / "tracking.csv", as_text=True)
    if tracked.empty:
        yield Note("Runs are not recorded in MLflow yet (tracking.csv).")
        return
    yield Text("Curves, parameters and scores of every run are recorded in MLflow; to look at them:")
    yield Code("make mlflow")
    links = read_json(results.root / "tracking.json").get("links")
    for link in links if isinstance(links, list) else ():
        if address := _web(link.get("url")):
            yield Link(str(link.get("title")), address)
    kept = tracked[tracked["status"] != "stale"] if "status" in tracked else tracked
    urls = map(_web, kept["url"]) if "url" in kept else iter(())
    addresses = {i: url for i, url in enumerate(urls) if url}
    shown = kept.drop(columns="url", errors="ignore")
    rows = [list(map(str, row)) for row in shown.itertuples(index=False)]
    heads = [str(c).replace("_", " ").capitalize() for c in shown.columns]
    yield Table("tracking", "Runs recorded in MLflow.", heads, rows, frame=kept, links=addresses)


def _web(address: object) -> str:
    """The address if it leads to a web page; a file may hold anything."""
    return address if isinstance(address, str) and address.startswith(("http://", "https://")) else ""


def _commands(provenance: dict[str, str]) -> Iterator[Text | Code | Note]:
    """What to type, and what of code and data no version holds."""
    code, data = provenance.get("git_commit", "unknown"), provenance.get("data_record", "")
    place = "" if data else ", put the same data in place"
    yield Text(f"Save the config below as my.yaml{place}, and run:")
    steps = [f"git checkout {code}"] if code != "unknown" else []
    steps += [f"dvc pull {data}"] if data else []
    yield Code("\n".join([*steps, "snakemake --cores 8 --configfile my.yaml -- report"]))
    if provenance.get("git_dirty") == "true":
        yield Note("The code, or the record of the data, had changes that no commit holds.", "caution")
    if provenance.get("data_dirty") == "true":
        yield Note("The raw data had changed since their version was recorded; dvc add records a new one.", "caution")


def reading() -> Section:
    """Plain words for the terms on this page."""
    section = Section("reading", "How to read this")
    section.blocks.append(Facts(GLOSSARY))
    return section
