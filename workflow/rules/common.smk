# The checked config, and what all stages ask of it.
import json
import os
import subprocess
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from tmcnet.config import RANDOM_START, load
from tmcnet.errors import InputError
from tmcnet.raster.inventory.sources import find_entries

# Threads of a job wait for each other by spinning; where something else wants the cores too, that took a third of
# their time. They go to sleep sooner now, which costs a job alone on the machine a twentieth.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

try:
    CONFIG = load(config)
except InputError as error:
    raise WorkflowError(f"The config has errors:\n{error}") from None

RESULTS = CONFIG.results_dir
DATA = CONFIG.data_root
TILED = CONFIG.source.layout in ("tiles", "seed")
RUNS = {run.name: run for run in CONFIG.runs}
MAP_RUNS = [run.name for run in CONFIG.map_runs]
MAPPED = [*MAP_RUNS, *CONFIG.maps.models]
OTHERS = list(CONFIG.sensors.others)

try:
    ENTRIES = {
        entry.scene: entry
        for entry in find_entries(CONFIG.source, Path(DATA), CONFIG.sensors)
    }
except InputError as error:
    raise WorkflowError(f"The imagery has errors:\n{error}") from None

# Where the stages from the splits to the weights write: the results folder, and one more for each other fold.
FOLDS = CONFIG.splits.folders

# Where a run is scored, by the folder of its fold; with cross-validation `evaluate` holds the folds together.
TESTED = {
    f"folds/{number}/" if CONFIG.splits.folds else "": folder
    for number, folder in FOLDS.items()
}

SCENES = [] if TILED else sorted(ENTRIES)

for key, files in (
    ("pretrain.weights", CONFIG.pretrain.weights),
    (
        "pretrain",
        (
            {"initial_weights": CONFIG.pretrain.initial_weights}
            if CONFIG.pretrain.initial_weights
            else {}
        ),
    ),
    ("maps.models", CONFIG.maps.models),
):
    missing = [
        f"`{name}`: {path}" for name, path in files.items() if not Path(path).is_file()
    ]
    if missing:
        raise WorkflowError(
            f"The config has errors:\n- config key `{key}`: no such file: {', '.join(missing)}. "
            "Correct the path; relative paths start in the folder the workflow is run in."
        )


def section(*names):
    """The config sections that a job depends on, as plain values; a change of other sections does not rerun it."""
    return {name: getattr(CONFIG, name).model_dump(mode="json") for name in names}


def start_weights(wildcards):
    """The weights a run starts from: none, those of a pre-training, or a file named in the config."""
    method = RUNS[run_of(wildcards)].method
    if method == RANDOM_START:
        return []
    return CONFIG.pretrain.weights.get(
        method, f"{RESULTS}/{wildcards.fold}pretrain/{method}/weights.safetensors"
    )


def splits_of(wildcards):
    """The section `splits`, with the fold that is tested."""
    number = next(n for n, folder in FOLDS.items() if folder == wildcards.fold)
    return {**section("splits")["splits"], "fold": number}


def of_fold(file):
    """A function that gives a file of the fold in which a run is scored."""
    return lambda wildcards: str(file).format(
        fold=TESTED[wildcards.tested], run=wildcards.run
    )


def at_home(file):
    """A file of the fold that `results_dir/splits` tests, the only one where there is no cross-validation."""
    return str(file).replace("{fold}", "")


def map_weights(wildcards):
    """The network that draws a map: a file named in the config, or that of a run."""
    if wildcards.run in CONFIG.maps.models:
        return CONFIG.maps.models[wildcards.run]
    return f"{RESULTS}/finetune/{run_of(wildcards)}/weights.safetensors"


def run_of(wildcards):
    """The name of the run, once it is known to belong to the sweep."""
    if wildcards.run not in RUNS:
        raise WorkflowError(
            f"{wildcards.run} is not a run of `finetune.sweep`. The runs are: {', '.join(RUNS)}."
        )
    return wildcards.run


def folder(*parts):
    """A function that gives a folder below the results, for params that name more than one file."""
    return lambda wildcards: str(Path(RESULTS, *parts))


def report_gaps():
    """After a failure, write the report of what there is, so that one failed run does not hide the others."""
    job = {
        "config": CONFIG.model_dump(mode="json"),
        "data_version": rules.write_report.input.data_version,
    }
    script = Path(workflow.basedir, "workflow", "scripts", "report_gaps.py")
    subprocess.run([sys.executable, str(script)], input=json.dumps(job), text=True)
