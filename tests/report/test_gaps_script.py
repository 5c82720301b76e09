"""The script that writes the report after a failed workflow."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "workflow" / "scripts" / "report_gaps.py"


def write_report(root, config):
    job = {"config": {**config.model_dump(mode="json"), "results_dir": str(root)}, "data_version": []}
    command = [sys.executable, str(SCRIPT)]
    return subprocess.run(command, input=json.dumps(job), text=True, capture_output=True, check=True)


def test_before_anything_is_scored_the_page_has_the_other_stages(small):
    root, config = small
    shutil.rmtree(root / "evaluate")
    write_report(root, config)
    page, note = (root / "report.html").read_text(), root / ".state" / "gaps.txt"
    assert "No run has been evaluated yet" in page
    assert "3 runs without scores" in page
    assert "Tiles per scene." in page
    assert (root / "report.html").stat().st_mtime < note.stat().st_mtime, "the next run replaces it"
    assert not (root / "metrics.csv").exists(), "scores of runs that are gone"


def test_before_there_are_tiles_there_is_no_page(small):
    root, config = small
    shutil.rmtree(root / "evaluate")
    (root / "tiles" / "index.csv").unlink()
    write_report(root, config)
    assert not (root / "report.html").exists()
