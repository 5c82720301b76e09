# Load and check the config; functions and names that several stages use.
import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

from tmcnet.config import (
    RANDOM_START,
    Budget,
    ModelConfig,
    check_config_files,
    is_pixelwise,
    load,
    missing_weights,
    over_preset,
)
from tmcnet.config.training import deep_context_px
from tmcnet.errors import InputError
from tmcnet.filesystem import correct_times, require_writable
from tmcnet.hashing import file_digest, json_digest
from tmcnet.filesystem import hold_results_lock, hold_workflow_lock
from tmcnet.model.model_file import METADATA, read_header
from tmcnet.raster.inventory.cautions import cautions
from tmcnet.raster.names import remote_stamps
from tmcnet.raster.inventory.sample_sheet import is_vector
from tmcnet.raster.inventory.sources import (
    check_outside,
    find_entries,
    label_names,
)
from tmcnet.readers import read_record
from tmcnet.recovery import (
    SOURCE_RECORD,
    archive_of,
    find_lost,
    has_copies,
    is_unchanged,
    put_back,
)

# OpenMP threads wait by spinning, which cost a third of their time when other jobs used the same cores. With a shorter
# spin, a job alone on the machine loses 5 %.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# The Slurm plugin (2.8) waits ten seconds longer after each look at jobs that go on, up to three minutes, and notices a
# cancelled one that late. Let it keep to Snakemake's own option.
if slurm := sys.modules.get("snakemake_executor_plugin_slurm"):
    slurm.Executor.sleep = lambda executor: asyncio.sleep(
        executor.workflow.remote_execution_settings.seconds_between_status_checks
    )


# For its limit of new jobs a second, Snakemake (9.27) starts a clock with each job that ends, and each of them goes on looking
# at all waiting jobs once a second: after 130 of 550 jobs that took half a core. Here one clock does.
def look_again(scheduler, delay):
    """Let the scheduler look at the waiting jobs after some seconds, unless it will anyway."""

    def look():
        scheduler.clock = None
        scheduler._open_jobs.release()

    if getattr(scheduler, "clock", None) is None:
        scheduler.clock = threading.Timer(delay, look)
        scheduler.clock.start()


if scheduling := sys.modules.get("snakemake.scheduling.job_scheduler"):
    scheduling.JobScheduler._schedule_reevalutation = look_again

# Of the module, where another workflow uses this one. The conda environments install the package from there.
REPOSITORY = Path(str(workflow.current_basedir)).parents[1]
os.environ.setdefault("TMCNET_SOURCE", str(REPOSITORY))

# `workflow.dryrun` is known only after the Snakefile is read.
DRY_RUN = workflow.output_settings.dryrun

if workflow.is_main_process:
    try:
        # Snakemake keeps its records there, for dry runs as well.
        require_writable(
            Path(".snakemake").absolute(),
            "working directory",
            f"Start in a folder of your own, or name one: --directory FOLDER -s {REPOSITORY / 'Snakefile'}.",
        )
        require_writable(
            Path(os.environ.get("TMPDIR", tempfile.gettempdir())),
            "temporary folder",
            "Free some space, or name another folder: export TMPDIR=FOLDER.",
            inside=False,
        )
    except InputError as error:
        raise WorkflowError(str(error)) from None

# Started again after a kill, the same command goes on: the lock of a dead process is removed.
if hint := hold_workflow_lock(
    Path(".snakemake"), clear=workflow.is_main_process and not DRY_RUN
):
    print(hint, file=sys.stderr)

try:
    check_config_files(workflow.configfiles)
    # The keys of `--configfile` and `--config`, or those that a workflow passes to this one as a module, over the
    # preset. The statement `configfile` would have no effect in a module. Jobs get `config` as it is now.
    config.update(over_preset(config))
    CONFIG = load(config)
    if workflow.is_main_process and not DRY_RUN:
        require_writable(
            Path(CONFIG.results_dir),
            "config key `results_dir`:",
            "Free some space, ask for the right to write there, or choose another `results_dir`.",
        )
except InputError as error:
    raise WorkflowError(f"The config has errors:\n{error}") from None

RESULTS = CONFIG.results_dir
DATA = CONFIG.data_root
TILED = CONFIG.source.layout in ("tiles", "seed")
OTHERS = list(CONFIG.sensors.others)

if not Path(DATA).exists() and Path(f"{DATA}.dvc").is_file():
    raise WorkflowError(
        f"The imagery has errors:\n- config key `data_root`: {DATA} is not in this clone, but DVC knows it. "
        f"Fetch it: dvc pull {DATA}.dvc"
    )

try:
    ENTRIES = {
        entry.scene: entry
        for entry in find_entries(CONFIG.source, Path(DATA), CONFIG.sensors)
    }
    check_outside(ENTRIES.values(), Path(RESULTS))
    if workflow.is_main_process:
        simulated = CONFIG.source.layout == "demo"
        correct_times(
            ([] if DRY_RUN else [Path(RESULTS), *[Path(DATA, "demo")] * simulated]),
            [] if simulated else [f for e in ENTRIES.values() for f in e.files],
        )
except InputError as error:
    raise WorkflowError(f"The imagery has errors:\n{error}") from None

# Without a scene to learn from there is nothing to train: only networks from files (`maps.models`) draw maps.
TRAINABLE = any(entry.role == "train" for entry in ENTRIES.values())
RUNS = {run.name: run for run in CONFIG.runs if TRAINABLE}
# The runs of the sweep, the members of its ensembles and the teachers of its self-training.
TRAINED = {run.name: run for run in CONFIG.finetune.with_needed(RUNS.values())}
MAP_RUNS = [run.name for run in CONFIG.map_runs if TRAINABLE]
MAPPED = [*MAP_RUNS, *CONFIG.maps.models]

# Subfolder of the results for the stages from splits to weights, by fold; the main fold has none.
FOLDS = CONFIG.splits.folders

# Folder of each fold by the folder of its scores. With cross-validation, `evaluate` itself holds the pooled scores.
TESTED = {
    f"folds/{number}/" if CONFIG.splits.folds else "": folder
    for number, folder in FOLDS.items()
}

SCENES = [] if TILED else sorted(ENTRIES)

if missing := missing_weights(CONFIG):
    raise WorkflowError(f"The config has errors:\n{InputError(missing)}")


# Snakemake's records say with which settings results were made.
if workflow.is_main_process and Path(RESULTS, "splits", "manifest.json").exists():
    if not any(Path(".snakemake", "metadata").glob("*")):
        print(
            f"Warning: the records of the jobs that made {RESULTS} are not in {Path('.snakemake').absolute()}, so that "
            "changed settings repeat nothing. Start where they were made, copy `.snakemake` along with the results, or "
            "choose another `results_dir`.",
            file=sys.stderr,
        )


if not workflow.is_main_process:
    hold_results_lock(Path(RESULTS), alone=False)


def show_cautions():
    """Print warnings about the inventory of an earlier run, which the config may now deserve."""
    try:
        entries = read_record(Path(RESULTS, "inventory.json"))["entries"]
        for warning in cautions(entries, CONFIG) if TRAINABLE else []:
            print(f"Warning: {warning}", file=sys.stderr)
    except (InputError, KeyError, TypeError, AttributeError):
        pass  # There is none yet, or a damaged one, which is made again.


def lock_results():
    """Stop a workflow whose results folder another one is writing to, from any working directory."""
    if not hold_results_lock(Path(RESULTS), alone=True):
        raise WorkflowError(
            f"Another workflow, or a job of a killed one, is writing to {RESULTS}. "
            "Wait until it ends, or choose another `results_dir`."
        )


# Versions of the code by config section, and of `inventory`, `summary` and `style` (pictures of maps). Raise one, from 1,
# when the code gives other results: jobs of the section, and what depends on them, run again. File times do not count.
CODE_VERSIONS = {
    "inventory": 10,
    "align": 5,
    "splits": 3,
    "pretrain": 4,
    "finetune": 7,
    "summary": 3,
    "maps": 2,
}


def code_version(*names):
    """Versions of the code as params of a job; nothing for version 1."""
    return {f"{n}_code": CODE_VERSIONS[n] for n in names if n in CODE_VERSIONS}


def section(*names):
    """Config sections as params of a job, so that only a change of these sections or of their code reruns it.

    Without the bands of pictures: only the report draws them.
    """
    pictures = {"sensors": {modality: {"display"} for modality in CONFIG.sensors}}
    sections = {
        name: getattr(CONFIG, name).model_dump(mode="json", exclude=pictures.get(name))
        for name in names
    }
    return sections | code_version(*names)


def growing(amount):
    """Resource: an amount for the first attempt, twice as much for the second, and so on.

    A dry run has first attempts only, and plans a thousand scenes a second sooner with numbers than with functions.
    """
    return amount if DRY_RUN else lambda wildcards, attempt: amount * attempt


def memory_mb(**sizes):
    """Memory of a job that uses a network, at its first attempt; arguments as of `ComputeConfig.memory_mb`."""
    return CONFIG.compute.memory_mb(**sizes) + SNAKEMAKE_MB


def memory(**sizes):
    """Resource: memory of a job that uses a network, growing with the attempt; arguments as of `memory_mb`."""
    return growing(memory_mb(**sizes))


def gpus(count=1):
    """GPUs of a job. With `auto` there are some if Snakemake is given a limit for them: `--resources gpu=4`."""
    limit = workflow.global_resources.get("gpu")
    found = limit is not None and limit.value not in (None, 0)
    wanted = {"gpu": True, "cpu": False, "auto": found}
    return count * wanted[CONFIG.compute.accelerator]


def only_pixelwise(run):
    """Whether a run trains pixel-wise classifiers only; not known of files."""
    run = TRAINED.get(run)
    return run is not None and all(
        is_pixelwise(member.network) for member in run.members or [run]
    )


def gpus_of_run(wildcards):
    """GPUs of a job of one run: pixel-wise classifiers and ensembles of them use none."""
    return 0 if only_pixelwise(wildcards.run) else gpus()


def sharing(wildcards):
    """Number of nodes, and of processes on each, that fine-tune a run together."""
    compute = CONFIG.compute
    shared = compute.finetune_shared and TRAINED[run_of(wildcards)].takes_steps
    return (compute.nodes, compute.devices) if shared else (1, 1)


def loaders(threads):
    """Processes that read tiles for a training: as many as it has threads, where it has a GPU."""
    return threads * bool(gpus())


def training_memory(wildcards, attempt):
    """Memory of a job that fine-tunes a run."""
    devices = sharing(wildcards)[1]
    reading = loaders(devices * CONFIG.compute.finetune_threads)
    return attempt * memory_mb(cached=True, processes=devices, loaders=reading)


# Snakemake runs twice beside the script of a job on a cluster.
SNAKEMAKE_MB = 500
# Memory in MB and time in minutes of jobs that only read tables. With `localrule`, they run where Snakemake runs, on a
# cluster, too: they take seconds, and MLflow's database is there.
SMALL = {"mem_mb": growing(1500), "runtime": growing(30)}


def known(scene, scenes):
    """The entry of a scene among those of the source."""
    if scene not in scenes:
        raise WorkflowError(
            f"{scene} is not a scene of the source. The scenes are: {', '.join(scenes)}."
        )
    return scenes[scene]


@cache
def size_of(scene):
    """Height and width of a scene in pixels, the same in every process; 0 for small files, which are not opened."""
    if CONFIG.source.layout == "demo":
        return CONFIG.source.demo.size, CONFIG.source.demo.size
    entry = known(scene, ENTRIES)
    # No image takes less than a sixteenth of a byte per pixel.
    least = CONFIG.maps.strip_megapixels * 1e6 / 16
    if sum(file.stat().st_size for file in entry.files if file.is_file()) < least:
        return 0, 0
    # Opening rasters takes libraries that load slowly.
    from tmcnet.raster.inventory.rasters import scene_size

    try:
        return scene_size(entry) or (0, 0)
    except InputError:
        return 0, 0  # The inventory says what is wrong with it.


def strips_of(wildcards):
    """Number of jobs that map a scene together."""
    height, width = size_of(wildcards.scene)
    return max(math.ceil(height * width / 1e6 / CONFIG.maps.strip_megapixels), 1)


def strips(wildcards):
    """Predictions and records of the jobs that map a scene together; nothing if it is one job."""
    count = strips_of(wildcards)
    name = f"{RESULTS}/maps/{wildcards.scene}/.{wildcards.run}_strip"
    return [
        f"{name}_{i}_of_{count}{ending}"
        for ending in (".tif", ".record")
        for i in range(1, count + 1)
        if count > 1
    ]


def map_gpus(wildcards):
    """GPUs of a job that maps a scene; joining strips takes none."""
    return 0 if strips_of(wildcards) > 1 else gpus_of_run(wildcards)


@cache
def map_window(run):
    """Side in pixels of the windows in which a network maps scenes; wide dilations and context enlarge it."""
    model = CONFIG.model
    if run in CONFIG.maps.models:
        try:
            with open(CONFIG.maps.models[run], "rb") as file:
                known = read_header(file)[METADATA]["model"]
            model = ModelConfig.model_validate_json(known)
        except (OSError, ValueError, KeyError):
            pass  # Its job says what is wrong with it.
    deep = 0 if only_pixelwise(run) else deep_context_px(max(model.dilations))
    return CONFIG.maps.fit(model.context.reach, deep).size


def map_memory(wildcards, attempt):
    """Memory of a job that maps a scene or a strip: probabilities of a row of windows as wide as the scene."""
    width = size_of(wildcards.scene)[1]
    row = width and width * map_window(wildcards.run)
    probabilities = row * max(len(CONFIG.labels.classes), 8) * 20 / 1e6
    return attempt * (memory_mb(cached=False) + round(probabilities))


def plain(files):
    """Paths without the rule that makes them. With it, every job would plan the jobs of that rule as well."""
    return [str(file) for file in files]


def start_weights(wildcards):
    """Weights that a run starts from: none, those of a pre-training, or a file named in the config."""
    run = TRAINED[run_of(wildcards)]
    method = CONFIG.finetune.start_of(run)
    if method == RANDOM_START or run.members:
        return []
    return CONFIG.pretrain.weights.get(
        method, f"{RESULTS}/{wildcards.fold}pretrain/{method}/weights.safetensors"
    )


def teacher_weights(wildcards):
    """Weights of the network that labels tiles for a run with self-training; none for other runs."""
    teacher = CONFIG.finetune.teacher_of(TRAINED[run_of(wildcards)])
    return (
        f"{RESULTS}/{wildcards.fold}finetune/{teacher.name}/weights.safetensors"
        if teacher
        else []
    )


def finetune_settings(wildcards):
    """Section `finetune` as far as it concerns one run."""
    taught = CONFIG.finetune.teacher_of(TRAINED[run_of(wildcards)]) is not None
    hidden = {"sweep"} if taught else {"sweep", "self_training"}
    return CONFIG.finetune.model_dump(mode="json", exclude=hidden)


def member_weights(wildcards):
    """Weights of the members of an ensemble."""
    return [
        f"{RESULTS}/{wildcards.fold}finetune/{member.name}/weights.safetensors"
        for member in TRAINED[run_of(wildcards)].members
    ]


def method_of(wildcards):
    """The settings of a pre-training method."""
    if wildcards.method not in CONFIG.pretrain.methods:
        raise WorkflowError(
            f"{wildcards.method} is not a method of `pretrain.methods`. "
            f"The methods are: {', '.join(CONFIG.pretrain.methods) or 'none'}."
        )
    return CONFIG.pretrain.methods[wildcards.method].model_dump(mode="json")


def splits_of(fold):
    """The section `splits` with the number of the tested fold."""
    number = next((n for n, folder in FOLDS.items() if folder == fold), None)
    if number is None:
        raise WorkflowError(
            f"There is no {fold.strip(os.sep) or 'fold'} with `splits.folds: {CONFIG.splits.folds}`."
        )
    return {**CONFIG.splits.model_dump(mode="json"), "fold": number}


def list_file(fold, name):
    """File of a list of tiles, such as `trainR5`."""
    return f"{RESULTS}/{fold}splits/{name}_RGB.txt"


def parts_of(fold):
    """What the parts, and each list by itself, depend on: other fractions, points or draws change no list.

    Fractions that the source gives do: drawn ones are fitted between them.
    """
    drawn = () if CONFIG.splits.given_fractions else ("fractions", "points", "subsets")
    return {k: v for k, v in splits_of(fold).items() if k not in drawn}


def put_back_lost(name, folder, params, inputs, results=RESULTS):
    """Put back small files of a job that were lost or damaged, so that nothing that depends on them is repeated."""
    if workflow.is_main_process:
        archive = archive_of(Path(results), name)
        for path in put_back(archive, Path(folder), params, inputs):
            print(
                f"{path} was lost or changed; it is written again as it was made.",
                file=sys.stderr,
            )


def in_tested_fold(file):
    """Input function: a file of the fold in which the run is scored."""
    return lambda wildcards: str(file).format(
        fold=TESTED[wildcards.tested], run=wildcards.run
    )


def in_main_fold(file):
    """A file of the fold in `results_dir/splits`, the only one without cross-validation."""
    return str(file).replace("{fold}", "")


def run_of(wildcards):
    """Name of the run, checked to belong to the sweep or to one of its ensembles."""
    if wildcards.run not in TRAINED:
        nearest = get_close_matches(wildcards.run, RUNS, n=5, cutoff=0)
        which = (
            "The"
            if len(nearest) == len(RUNS)
            else f"The most similar of the {len(RUNS)}"
        )
        raise WorkflowError(
            f"{wildcards.run} is not a run of `finetune.sweep`. {which} runs are: {', '.join(nearest)}."
        )
    return wildcards.run


def folder(name):
    """Params function: a folder below the results, for jobs that read several of its files."""
    return lambda wildcards: str(Path(RESULTS, name))


# The note of the last failure, an input of the tables and the report: Snakemake counts a file as finished while inputs that
# do not exist are all that it lacks, so those of the finished runs would stay.
GAPS = [path for path in [f"{RESULTS}/.state/gaps.txt"] if Path(path).exists()]


def report_gaps():
    """After a failure, write a report of the finished runs, so that one failed run does not hide the others."""
    job = {
        "config": CONFIG.model_dump(mode="json"),
        "data_version": rules.write_report.input.data_version,
    }
    script = REPOSITORY / "workflow" / "scripts" / "report_gaps.py"
    subprocess.run([sys.executable, str(script)], input=json.dumps(job), text=True)


def across_nodes(nodes, devices):
    """Resources of a job that starts one task on each of several nodes by `srun`, for Snakemake's Slurm plugin.

    `gpu` is the number on all nodes, of which Slurm may give one node more than another; `gres` is that of each node.
    """
    if nodes == 1:
        return {}
    each = {"gres": f"gpu:{devices}"} if gpus() else {}
    return {"mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0, **each}


def stamps(entries):
    """What says that remote rasters of scenes or tiles have changed; their content is not read for it."""
    if not CONFIG.source.remote:
        return []
    try:
        return remote_stamps(name for e in entries for name in e.members_of_all)
    except InputError as error:
        raise WorkflowError(f"The imagery has errors:\n{error}") from None


def label_coding(entries):
    """What the label files of a scene mean; features of vector labels may name their class."""
    scenes = [e.scene for e in entries for path in e.label if is_vector(path)]
    names = [label_names(Path(RESULTS), scene, CONFIG.labels) for scene in scenes]
    coding = {**CONFIG.labels.coding, "names": sum(names, [])}
    table = Path(DATA, "class_dict.txt")
    if CONFIG.source.layout == "seed" and not CONFIG.labels.classes and table.exists():
        coding["class_dict"] = file_digest(table)
    return coding


def row_of(entries):
    """What the sample sheet and the config say of a scene or of all ready-made tiles."""
    return [[e.to_dict() for e in entries], label_coding(entries)]


def entries_of(wildcards):
    """The scene of a job; all ready-made tiles for `tiles`."""
    return known(wildcards.scene, BY_SCENE)


def unless_given(trained, given):
    """Value for the maps of a run, and a function if some are drawn by files of `maps.models`.

    For each map, Snakemake calls functions again.
    """
    models = CONFIG.maps.models

    def value(wildcards):
        return given(wildcards.run) if wildcards.run in models else trained

    return value if models else trained


# What draws a map: weights, scores on the test part of the fold of the weights, names and colours of the classes. Files
# of `maps.models` hold the last two themselves.
MAP_WEIGHTS = unless_given(
    f"{RESULTS}/finetune/{{run}}/weights.safetensors", CONFIG.maps.models.get
)
MAP_SCORES = unless_given(
    next(
        f"{RESULTS}/{tested}evaluate/{{run}}/tiles.npz"
        for tested, folder in TESTED.items()
        if not folder
    ),
    lambda run: [],
)
MAP_CLASSES = unless_given(
    [[c.name, c.color] for c in CONFIG.labels.classes] or None, lambda run: None
)
