"""Leakage between random tiles: the same tiles, predicted with random folds and with block folds.

Cross-validation predicts every labelled tile under both divisions: by a network that may have seen the neighbouring
tiles, and by one that has seen nothing of its block. Both scores are of the same pixels, so their difference is due
to the neighbours only. Needs the tiles of the demo (`make report`) and of Zion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tmcnet.config import Budget, Config, Run, SplitsConfig, load_overlays
from tmcnet.dataset.normalise import compute_normalisation
from tmcnet.evaluate.evaluate import evaluate_run, pool_folds
from tmcnet.evaluate.intervals import Resamples, difference, effects_of
from tmcnet.evaluate.metrics import HEADLINE
from tmcnet.evaluate.summary import read_counts
from tmcnet.seeding import generator
from tmcnet.splits.files import read_tile_blocks
from tmcnet.splits.splits import make_splits
from tmcnet.train.finetune import Finetuning, finetune

DATA = {"demo": [], "zion": ["config/recipes/zion.yaml"]}
BLOCKS = {"demo": 256, "zion": 384}
"""Side of the blocks in pixels; tiles have 128."""
NETWORKS = ("pixel_boosting-baseline", "mssnet-corrected")
SEEDS = (1, 2)
FOLDS = 4
SHOWN = ("oa", "miou")


def run() -> None:
    """Print the scores under both divisions, and their difference with its 95 % interval over blocks and seeds."""
    print("| data | network | score | random tiles | blocks | overestimate |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for name, files in DATA.items():
        config = load_overlays(files, {"preset": "demo"})
        index = Path(config.results_dir) / "tiles" / "index.csv"
        if not index.exists():
            print(f"{index} is missing: run the recipe up to the tiles first (`snakemake ... tiles`).")
            continue
        for network in NETWORKS:
            for row in compare(config, index, network, BLOCKS[name]):
                print(f"| {name} | {network.partition('-')[0]} | {row} |", flush=True)


def compare(config: Config, index: Path, network: str, block_size: int) -> Iterator[str]:
    """Score a network under both divisions.

    Args:
        config: Settings of the data set.
        index: Table of the tiles.
        network: Network and variant, as in the names of runs.
        block_size: Side of the blocks in pixels.

    Yields:
        For each score its name, its value under random tiles and blocks, and the difference.
    """
    runs = [Run(*network.split("-"), "random", Budget("R", 100), 1, seed) for seed in SEEDS]
    divisions = {
        "random": config.splits.model_copy(update={"block_size": config.tiles.size, "folds": FOLDS}),
        "blocks": config.splits.model_copy(update={"block_size": block_size, "folds": FOLDS}),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, splits in divisions.items():
            _cross_validate(config, index.parent, runs, splits, Path(folder, name))
        # both are resampled by block, the larger unit
        blocks = read_tile_blocks(index, _manifest(Path(folder, "blocks")))
        counts = {}
        for name in divisions:
            (scored,) = read_counts(Path(folder, name, "evaluate"), runs, blocks).cells().values()
            counts[name] = scored.counts
    random = generator(1, "leakage", network)
    effects = effects_of(scored.replicates)
    resamples = Resamples.draw(counts["blocks"].shape[1], effects, 2000, random)
    for metric in SHOWN:
        score = HEADLINE[metric]
        each = [float(score(counts[name].sum(axis=1).astype(np.float64)).mean()) for name in divisions]
        overestimate = difference(score, counts["random"], counts["blocks"], resamples, 0.95)
        yield (
            f"{metric} | {each[0]:.3f} | {each[1]:.3f} | "
            f"{overestimate.estimate:+.3f} ({overestimate.low:+.3f} to {overestimate.high:+.3f})"
        )


def _manifest(folder: Path) -> Path:
    return folder / "1" / "splits" / "manifest.json"


def _cross_validate(config: Config, tiles: Path, runs: list[Run], splits: SplitsConfig, folder: Path) -> None:
    """Train and score every run once per fold, and pool the scores."""
    for number in range(1, FOLDS + 1):
        fold_root = folder / str(number)
        make_splits(tiles / "index.csv", splits.model_copy(update={"fold": number}), fold_root / "splits")
        scaling = fold_root / "normalisation.json"
        compute_normalisation(tiles, fold_root / "splits", config.sensors, config.normalise, scaling)
        for run in runs:
            out = fold_root / "finetune" / run.name
            places = tiles, fold_root / "splits", scaling
            settings = config.finetune, config.model, config.sensors, config.compute
            finetune(Finetuning(*places, run, None, *settings, out, fold_root / ".state"))
            weights, scores = out / "weights.safetensors", fold_root / "evaluate" / run.name
            evaluate_run(tiles, fold_root / "splits", weights, run, config.evaluate, config.compute, scores)
    for run in runs:
        parts = [folder / str(number) / "evaluate" / run.name for number in range(1, FOLDS + 1)]
        pool_folds(parts, run, folder / "evaluate" / run.name)
