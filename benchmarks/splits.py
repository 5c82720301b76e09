"""Time and memory of dividing a million tiles into parts and label fractions, and of verifying them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

TILES = 1_000_000
CLASSES = 8
MEASURE = """if True:
    import sys, time
    from pathlib import Path
    from benchmarks.memory import peak_mib
    from tmcnet.config import SplitsConfig
    from tmcnet.splits.splits import verify
    from tmcnet.splits.splits import make_splits
    index, folder = map(Path, sys.argv[1:3])
    config = SplitsConfig(method=sys.argv[4], points=[10, 100])
    began = time.process_time()
    if sys.argv[3] == "make":
        make_splits(index, config, folder)
    else:
        assert verify(folder, index, config) == []
    print(f"{time.process_time() - began:.1f} | {peak_mib():.0f}")
"""


def run() -> None:
    """Print CPU seconds and peak memory, each in a separate process, for tiles of scenes and ready-made tiles."""
    print("| tiles | method | step | CPU s | peak MiB |\n| --- | --- | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        for kind, table, method in (("of 10 scenes", _scenes, "blocks"), ("ready-made", _ready_made, "given")):
            index = Path(name, "index.csv")
            table().sort_values("tile").to_csv(index, index=False, float_format="%.6f", lineterminator="\n")
            for step in ("make", "verify"):
                command = [sys.executable, "-c", MEASURE, str(index), str(Path(name, method)), step, method]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                print(f"| {kind} | {method} | {step} | {done.stdout.strip()} |", flush=True)


def _scenes() -> pd.DataFrame:
    """Tiles of 128 pixels in ten scenes of UTM."""
    side = round((TILES / 10) ** 0.5)
    scene, row, col = np.unravel_index(np.arange(10 * side**2), (10, side, side))
    table = pd.DataFrame({"scene": scene, "row": row * 128, "col": col * 128})
    table["tile"] = [f"s{s}_r{r}_c{c}" for s, r, c in table.itertuples(index=False)]
    table["scene"] = "s" + table["scene"].astype(str)
    sides = {"pixel_x": 10, "pixel_y": 10, "pixel_metres": 10}
    return _labelled(table.assign(crs="EPSG:32633", x=3e5 + scene * 1e6 + col * 1280, y=5e6 - row * 1280, **sides))


def _ready_made() -> pd.DataFrame:
    """Tiles without a place, most of them given as training tiles."""
    tiles = [f"patch_{i:07d}" for i in range(TILES)]
    part = np.where(np.arange(TILES) % 5, "train", "test")
    table = pd.DataFrame({"tile": tiles, "scene": tiles, "row": 0, "col": 0, "crs": "", "x": "", "y": ""})
    return _labelled(table.assign(field_part=part))


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.full(CLASSES, 0.5), len(table))
    table = table.assign(role="train", height=128, width=128, label_share=random.uniform(0.3, 1, len(table)))
    table = table.assign(**{f"share_class {k}": shares[:, k] for k in range(CLASSES)})
    table["digest"] = [f"{number:016x}" for number in random.integers(0, 2**63, len(table))]
    return table[["tile", *table.columns.drop("tile")]]  # first, as the tiling stage writes it
