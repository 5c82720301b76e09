"""CPU time and peak memory of inventory, alignment and tiling, in this and in other checkouts of the project.

`python benchmarks/stages.py /path/to/ombria . /path/to/earlier` runs their stages in turn, each in a separate
process, and prints the least of several runs. `git worktree add /path/to/earlier b37ab63` makes an earlier checkout.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

RUNS = 3
HEIGHT, WIDTH, SCENES = 4000, 5000, ("a", "b", "c")
STAGES = {"ombria": ("inventory", "tiles"), "large": ("inventory", "align", "tiles")}
SOURCES = {
    "ombria": {
        "layout": "tiles",
        "optical": "OmbriaS2/{part}/AFTER/S2_after_{tile}.png",
        "sar": "OmbriaS1/{part}/AFTER/S1_after_{tile}.png",
        "label": "OmbriaS1/{part}/MASK/S1_mask_{tile}.png",
    },
    "large": {"layout": "scenes", "optical": "{scene}_o.tif", "sar": "{scene}_s.tif", "label": "{scene}_l.tif"},
}
SENSORS = {
    "ombria": {
        "optical": {"kind": "reflectance", "bands": ["swir", "nir", "green"], "nodata": 0},
        "sar": {"kind": "backscatter", "bands": ["vv"], "scale": "none"},
    },
    "large": {
        "optical": {"kind": "reflectance", "bands": ["blue", "green", "red", "nir"]},
        "sar": {"kind": "backscatter", "bands": ["vv"], "scale": "linear"},
    },
}
CODES = {"ombria": (0, 255), "large": (1, 2, 3)}


def run(ombria: str, checkouts: list[str]) -> None:
    """Print the table: CPU s and peak MiB of each checkout."""
    with tempfile.TemporaryDirectory() as name:
        write_scenes(Path(name))
        roots = {"ombria": ombria, "large": name}
        print(f"| data, stage | {' | '.join(checkouts)} |\n| --- |{' ---: |' * len(checkouts)}")
        for data, stages in STAGES.items():
            for stage in stages:
                spent: dict[str, list[tuple[float, float]]] = {}
                for _ in range(RUNS):
                    for number, checkout in enumerate(checkouts):
                        out = f"{name}/out/{number}-{data}"
                        command = [sys.executable, __file__, "--stage", data, stage, roots[data], out]
                        environment = os.environ | {"PYTHONPATH": str(Path(checkout).resolve())}
                        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
                        printed = subprocess.run(command, env=environment, check=True, **pipes).stdout
                        spent.setdefault(checkout, []).append(json.loads(printed.splitlines()[-1]))
                least = [np.min(measured, axis=0) for measured in spent.values()]
                cells = [f"{cpu:.1f} s, {mib:.0f} MiB" for cpu, mib in least]
                print(f"| {data}, {stage} | {' | '.join(cells)} |", flush=True)


def write_scenes(folder: Path) -> None:
    """Write scenes of four bands of uint16, of float32 on a shifted grid, and with a label."""
    profile = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "crs": "EPSG:32633", "tiled": True}
    profile |= {"compress": "deflate", "zlevel": 1}
    for number, name in enumerate(SCENES, 1):
        random = np.random.default_rng(number)
        smooth = ndimage.zoom(random.normal(size=(4, HEIGHT // 25 + 2, WIDTH // 25 + 2)), (1, 25, 25), order=1)
        smooth = smooth[:, :HEIGHT, :WIDTH].astype("f4")
        optical = np.clip(2500 + 600 * smooth + 25 * random.normal(size=smooth.shape), 1, 65535).astype("u2")
        optical[:, :, :200] = 0
        power = (0.1 * np.exp(0.3 * smooth[:1]) * random.gamma(4, 0.25, (1, HEIGHT, WIDTH))).astype("f4")
        label = (np.digitize(smooth[:1], (-0.5, 0.5)) + 1).astype("u1")
        at = Affine(10, 0, 5e5 + 60_000 * number, 0, -10, 5.4e6)
        moved = at @ Affine.translation(0.3, -0.4)
        for kind, values, place, nodata in (("o", optical, at, 0), ("s", power, moved, None), ("l", label, at, None)):
            form = profile | {"count": len(values), "dtype": values.dtype, "transform": place, "nodata": nodata}
            with rasterio.open(folder / f"{name}_{kind}.tif", "w", **form) as dataset:
                dataset.write(values)


def measure(data: str, stage: str, root: Path, out: Path) -> None:
    """Run one stage with the package on the path; print CPU s, without the import of libraries, and peak MiB."""
    from tmcnet.config import AlignConfig, LabelsConfig, SensorsConfig, SourceConfig, TilesConfig

    source, sensors = SourceConfig(**SOURCES[data]), SensorsConfig.model_validate(SENSORS[data])
    classes = [{"name": f"c{code}", "codes": [code], "color": f"#0000{code:02x}"} for code in CODES[data]]
    labels = LabelsConfig.model_validate({"void": [] if 0 in CODES[data] else [0], "classes": classes})
    tiles, align = TilesConfig(size=256, stride=256), AlignConfig(enabled=False)
    record, table, part = out / "inventory.json", out / "tiles" / "index" / "all.csv", out / "inventory" / "all.json"
    try:
        from tmcnet.raster.inventory.inventory import inspect_scenes, take_inventory
        from tmcnet.raster.tiling.grid import align_scene
        from tmcnet.raster.tiling.tiles import cut_tiles, merge_index
    except ImportError:  # b37ab63 and before
        from tmcnet.raster.grid import align_scene
        from tmcnet.raster.tiles import make_tiles

        from tmcnet.raster.inventory import take_inventory

        inspect_scenes = cut_tiles = None
    shutil.rmtree(out / "tiles", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    before = _cpu_s()
    if stage == "align":
        for name in SCENES:
            align_scene(record, name, sensors, labels, align, out / "scenes" / name)
    elif stage == "inventory" and inspect_scenes:
        inspect_scenes(source, sensors, labels, root, None, part)
        take_inventory([part], sensors, labels, record, record.with_suffix(".csv"))
    elif stage == "inventory":
        take_inventory(source, sensors, labels, root, record, record.with_suffix(".csv"))
    elif cut_tiles:
        cut_tiles(record, out / "scenes", sensors, labels, tiles, table, 1)
        merge_index([table], record, labels, list(sensors), out / "tiles")
    else:
        make_tiles(record, out / "scenes", sensors, labels, tiles, out / "tiles", 1)
    spent = _cpu_s() - before
    status = Path("/proc/self/status").read_text()
    own = int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps([spent, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**10]))


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    if sys.argv[1] == "--stage":
        measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
    else:
        run(sys.argv[1], sys.argv[2:] or ["."])
