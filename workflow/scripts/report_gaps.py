"""Write the report of the finished runs after a failure. Reads {config, data_version} as JSON from standard input.

Snakemake starts no job whose input is missing, so without this script one failed training would leave no report.
"""

import json
import os
import sys
from pathlib import Path

from _provenance import provenance

from tmcnet.config import Config
from tmcnet.errors import InputError
from tmcnet.evaluate.summary import forget_outdated, summarise
from tmcnet.report import build

job = json.load(sys.stdin)
config = Config.model_validate(job["config"])
results = Path(config.results_dir)
report = results / "report.html"
tables = [results / name for name in ("metrics.csv", "metrics.json", "comparisons.csv", "scores.json")]
manifest, index = results / "splits" / "manifest.json", results / "tiles" / "index.csv"

forget_outdated(results, config.runs, config.splits.folders.values())
try:
    names = [c.name for c in config.labels.classes]
    summarise(results / "evaluate", config.runs, index, manifest, config.evaluate, *tables, names)
except (InputError, OSError):
    if not index.exists():
        sys.exit()  # nothing to show yet; the message of the failed job is enough
    for table in tables:
        table.unlink(missing_ok=True)  # it is of runs that no longer exist
build(results, config, report, provenance(results, job["data_version"]))
for path in filter(Path.exists, (report, *tables)):
    os.utime(path, (0, 0))  # older than any input, so the next run makes them again
print(f"{report} shows the finished runs and names the missing ones.", file=sys.stderr)
