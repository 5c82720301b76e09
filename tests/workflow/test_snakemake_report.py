"""`snakemake --report` packs the page, its figures and its tables, each with its caption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from tests.workflow.conftest import ROOT, TINY

CHART = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3"/></svg>'
MADE = {"report.html": "<!DOCTYPE html><title>x</title>", "report/figures/headline.svg": CHART}
MADE |= {"report/figures/tile_a.png": "", "report/figures/tile_b.jpg": "", "report/tables/scores.csv": "a,b\n1,2\n"}


def test_the_report_of_snakemake_holds_all_with_captions(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    for name, text in MADE.items():
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    configs = [str(ROOT / "config" / "config.yaml"), str(tmp_path / "tiny.yaml")]
    command = [
        *(str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")),
        *("--directory", str(tmp_path), "--cores", "1", "--report", str(tmp_path / "packed.zip")),
        *("--configfile", *configs, "--", "report"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    with ZipFile(tmp_path / "packed.zip") as packed:
        files = {Path(name).name for name in packed.namelist()}
        page = packed.read("packed/report.html").decode()
    assert files >= {Path(name).name for name in MADE}
    for caption in (
        "data set <strong>demo</strong>",
        "The report on data set demo: one page that opens offline",
        "A figure of the report; the page describes it",
        "A table of the report with all digits, rows and columns",
    ):
        assert caption in page
    for category in ("Report", "Figures", "Tables"):
        assert f'"{category}"' in page
    assert '"figure": "headline"' in page and '"table": "scores"' in page, "listed by name, not by path"
