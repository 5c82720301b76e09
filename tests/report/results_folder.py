"""A complete, small results folder as the workflow leaves it, made in code.

Two scenes of 256 x 256 pixels in 16 tiles each, 5 classes, two pre-trainings and a sweep of fine-tuned runs. The
scores are consistent: predictions are drawn with an error rate per run, and every table follows from them.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from tests.report.results_runs import write_runs
from tmcnet.classes import ClassTable
from tmcnet.config import Config, load

CLASSES = [
    ("water", "#2b6cb0"),
    ("forest", "#1b7837"),
    ("crops & grass", "#e6c229"),
    ("built-up", "#c0392b"),
    ("<script>alert(1)</script>", "#9b59b6"),
]
SCENES = ["alpha", "beta"]
SIDE = 256
TILE = 64
BLOCK = 128
SENSORS = {
    "optical": {"bands": ["red", "green", "blue", "nir"], "kind": "reflectance", "display": ["red", "green", "blue"]},
    "sar": {"bands": ["VV", "VH"], "kind": "backscatter", "scale": "linear"},
}
SWEEP = [
    {"methods": ["random", "tmcnet"], "networks": ["mssnet"], "fractions": [5, 25, 100], "seeds": [1, 2]},
    {"methods": ["tmcnet"], "variants": ["reference"], "fractions": [5], "seeds": [1, 2]},
    {
        "methods": ["random"],
        "networks": ["optical_only", "sar_only", "late_fusion", "pixel_boosting"],
        "fractions": [5, 100],
        "seeds": [1, 2],
    },
]


@dataclass
class World:
    """State of the fixture while it writes: the scenes, and the part of each tile."""

    root: Path
    config: Config
    classes: list[tuple[str, str]]
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    tiles: list[dict[str, object]] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "val": [], "test": []})


def make_config(**sections: object) -> Config:
    """Config of the folder; keyword arguments replace whole sections."""
    values: dict[str, object] = {
        "name": "fixture",
        "sensors": SENSORS,
        "labels": {"classes": [{"name": n, "codes": [i], "color": c} for i, (n, c) in enumerate(CLASSES)]},
        "tiles": {"size": TILE, "stride": TILE},
        "splits": {"block_size": BLOCK},
        "pretrain": {"methods": {"tmcnet": {}, "tmcnet_reference": {"variant": "reference"}}, "crop_size": 48},
        "finetune": {"sweep": SWEEP, "crop_size": 48},
        "evaluate": {"bootstrap": 100},
    }
    return load({**values, **sections})


def make_results(root: Path, **sections: object) -> Config:
    """Write a results folder below `root` and return the config it belongs to."""
    config = make_config(**sections)
    world = World(root, config, CLASSES)
    root.mkdir(parents=True, exist_ok=True)
    (root / "tiles").mkdir()
    ClassTable.of(CLASSES).write(root / "tiles" / "classes.csv")
    for number, scene in enumerate(SCENES):
        _write_scene(world, scene, number)
    _write_inventory(world)
    _write_index(world)
    _write_splits(world)
    write_runs(root, config, [n for n, _ in CLASSES], world.labels, world.tiles, world.parts["test"])
    return config


def write_raster(path: Path, data: np.ndarray, *, nodata: float | None, origin: tuple[float, float]) -> None:
    """Write C x H x W as GeoTIFF with 10 m pixels in UTM zone 33 N."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": data.shape[0], "height": data.shape[1], "width": data.shape[2]}
    transform = from_origin(*origin, 10, 10)
    with rasterio.open(
        path,
        "w",
        dtype=data.dtype,
        nodata=nodata,
        crs="EPSG:32633",
        transform=transform,
        compress="deflate",
        **profile,
    ) as file:
        file.write(data)


def _landscape(rng: np.random.Generator, n_classes: int) -> np.ndarray:
    height = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 14)
    ranks = height.argsort(axis=None).argsort().reshape(height.shape) / height.size
    label = np.minimum((ranks * n_classes).astype(np.uint8), n_classes - 1)
    label[:6, :40] = 255
    return label


def _write_scene(world: World, scene: str, number: int) -> None:
    rng = np.random.default_rng(number)
    label = _landscape(rng, len(world.classes))
    spectra = rng.uniform(300, 4000, size=(len(world.classes) + 1, 4))
    shown = np.where(label == 255, len(world.classes), label)
    optical = (
        (spectra[shown].transpose(2, 0, 1) + rng.normal(0, 150, (4, SIDE, SIDE))).clip(1, 10000).astype(np.uint16)
    )
    optical[:, -20:, -30:] = 0
    sar = (rng.uniform(-22, -4, (len(world.classes) + 1, 2))[shown].transpose(2, 0, 1)).astype(np.float32)
    sar += rng.normal(0, 2, sar.shape).astype(np.float32)
    sar[:, :8, -50:] = np.nan
    world.labels[scene] = label
    folder, origin = world.root / "scenes" / scene, (500_000.0 + 10_000 * number, 5_000_000.0)
    kinds = {"optical": (optical, 0), "sar": (sar, np.nan), "label": (label[None], 255)}
    for kind, (data, nodata) in kinds.items():
        write_raster(folder / f"{kind}.tif", data, nodata=nodata, origin=origin)
    _write_alignment(folder, rejected=number == 1)
    for row in range(0, SIDE, TILE):
        for col in range(0, SIDE, TILE):
            name = f"{scene}_r{row}_c{col}"
            corner = (origin[0] + 10 * col, origin[1] - 10 * row)
            for kind, (data, nodata) in kinds.items():
                cut = data[:, row : row + TILE, col : col + TILE]
                write_raster(world.root / "tiles" / kind / f"{name}.tif", cut, nodata=nodata, origin=corner)
            world.tiles.append({"tile": name, "scene": scene, "row": row, "col": col, "x": corner[0], "y": corner[1]})


def _write_alignment(folder: Path, *, rejected: bool) -> None:
    points = [[32.0 * i, 32.0 * j, 3.1, -2.2, i != j] for i in range(1, 7) for j in range(1, 7)]
    record = {
        "status": "rejected" if rejected else "aligned",
        "model": "none" if rejected else "shift",
        "matrix": [[1.0, 0.0, 3.1], [0.0, 1.0, -2.2]],
        "n_points": 36,
        "n_inliers": 5 if rejected else 30,
        "rmse_px": None if rejected else 0.41,
        "reason": "too few tie points agree (5 of 36)" if rejected else "one shift explains 30 of 36 points",
        "points": points,
    }
    (folder / "alignment.json").write_text(json.dumps(record))
    import matplotlib.image

    picture = np.random.default_rng(0).integers(0, 255, (90, 180, 3)).astype(np.uint8)
    matplotlib.image.imsave(folder / "alignment.png", picture)


def _write_inventory(world: World) -> None:
    classes = [{"id": i, "name": n, "color": c} for i, (n, c) in enumerate(world.classes)]
    entries = [
        {
            "scene": scene,
            "role": "train",
            "optical": [f"{scene}_opt.tif"],
            "sar": [f"{scene}_sar.tif"],
            "label": [f"{scene}_lbl.tif"],
            "fields": {},
            "height": SIDE,
            "width": SIDE,
            "crs": "EPSG:32633",
            "gsd": 10.0,
            "sar_scale": "linear",
            "optical_nodata": 0,
            "sar_nodata": None,
            "overlap": 0.97,
            "bounds": [500000, 4997440, 502560, 5000000],
        }
        for scene in SCENES
    ]
    (world.root / "inventory.json").write_text(
        json.dumps({"layout": "scenes", "entries": entries, "classes": classes})
    )
    rows = [
        {
            "scene": scene,
            "sensor": kind,
            "file": f"{scene}_{kind}.tif",
            "bands": bands,
            "dtype": dtype,
            "crs": "EPSG:32633",
            "gsd": 10,
            "nodata": nodata,
            "min": low,
            "max": high,
        }
        for scene in SCENES
        for kind, bands, dtype, nodata, low, high in [
            ("optical", 4, "uint16", 0, 1, 4500),
            ("sar", 2, "float32", "nan", 0.0031, 0.71),
            ("label", 1, "uint8", 255, 0, 4),
        ]
    ]
    write_csv(world.root / "inventory.csv", rows)


def _write_index(world: World) -> None:
    rows = []
    for tile in world.tiles:
        row, col = int(str(tile["row"])), int(str(tile["col"]))
        label = world.labels[str(tile["scene"])][row : row + TILE, col : col + TILE]
        known = label[label != 255]
        shares = np.bincount(known, minlength=len(world.classes))[: len(world.classes)] / max(known.size, 1)
        rows.append(
            {
                **tile,
                "role": "train",
                "height": TILE,
                "width": TILE,
                "crs": "EPSG:32633",
                "valid_share": f"{0.86 if row == col == 192 else 1:.6f}",
                "label_share": f"{known.size / label.size:.6f}",
                **{f"share_{n}": f"{s:.6f}" for (n, _), s in zip(world.classes, shares, strict=True)},
                "alignment": "0.410000" if tile["scene"] == "alpha" else "",
            }
        )
    write_csv(world.root / "tiles" / "index.csv", sorted(rows, key=lambda r: str(r["tile"])))


def _write_splits(world: World) -> None:
    folder = world.root / "splits"
    folder.mkdir()
    order = ["train", "train", "val", "test", "train", "test", "train", "val"]
    corners = [(s, r, c) for s in SCENES for r in range(0, SIDE, BLOCK) for c in range(0, SIDE, BLOCK)]
    blocks = []
    for part, (scene, top, left) in zip(order, corners, strict=True):
        inside = [
            str(t["tile"])
            for t in world.tiles
            if t["scene"] == scene
            and top <= int(str(t["row"])) < top + BLOCK
            and left <= int(str(t["col"])) < left + BLOCK
        ]
        dropped = inside[-1:] if part == "val" else []
        world.parts[part] += [t for t in inside if t not in dropped]
        blocks.append({"scene": scene, "row": top, "col": left, "part": part, "tiles": len(inside)})
    lists = {part: sorted(tiles) for part, tiles in world.parts.items()}
    for share in (5, 25, 100):
        size = max(1, round(len(lists["train"]) * share / 100))
        for draw in (1, 2):
            lists[f"trainR{share}" + (f"_s{draw}" if draw > 1 else "")] = lists["train"][draw - 1 :][:size]
    for name, tiles in lists.items():
        for kind in ("RGB", "SAR", "lbl"):
            (folder / f"{name}_{kind}.txt").write_text("".join(f"{t}\n" for t in tiles))
    shares = {n: round(1 / len(world.classes), 6) for n, _ in world.classes}
    used = {t for part in world.parts.values() for t in part}
    manifest = {
        "version": 1,
        "config": world.config.splits.model_dump(mode="json"),
        "seed": 1,
        "software_version": "0.1.0",
        "index_sha256": "0" * 64,
        "lists": {
            n: {
                "n": len(t),
                "sha256": hashlib.sha256("".join(f"{x}\n" for x in t).encode()).hexdigest(),
                "class_shares": shares,
            }
            for n, t in lists.items()
        },
        "parts": {p: {"tiles": len(t), "class_shares": shares} for p, t in world.parts.items()},
        "blocks": blocks,
        "dropped": sorted({str(t["tile"]) for t in world.tiles} - used),
        "dropped_by_guard": 2,
        "dropped_unlabelled": 0,
        "deviation": 0.031,
        "warnings": ["5 % of 16 training tiles is 1 tile."],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows of the same keys as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
